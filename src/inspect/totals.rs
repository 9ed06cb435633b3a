//! The numbers of a heap that fit a small stack.

/// The most wanted numbers of a heap, without the histograms of [`Stats`](crate::Stats): less than 100 bytes, read
/// without a search. Sizes are in bytes; each field means what the field of that name means in [`Stats`](crate::Stats).
///
/// ```
/// use core::alloc::Layout;
///
/// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
/// heap.smalloc(Layout::new::<[u8; 1000]>());
/// let (totals, stats) = (heap.totals(), heap.stats());
/// assert_eq!((totals.used_bytes, totals.live_segments, totals.holes), (1008, 1, 0));
/// assert_eq!((totals.top, totals.committed_bytes), (stats.top, stats.committed_bytes));
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// The size of the region, or of all regions.
    pub region_size: usize,
    /// Bytes in segments in use, including rounding.
    pub used_bytes: usize,
    /// The offset where the wilderness begins; with several regions, the sum of theirs.
    pub top: usize,
    /// Segments in use.
    pub live_segments: usize,
    /// Free segments below top.
    pub holes: usize,
    /// Bytes in holes.
    pub hole_bytes: usize,
    /// Committed bytes of the region.
    pub committed_bytes: usize,
    /// Committed bytes of the bookkeeping beside the region.
    pub metadata_bytes: usize,
    /// The highest top since the heap was created, or since the peaks were reset.
    pub peak_top: usize,
    /// The most bytes in use at once, since the heap was created or the peaks were reset.
    pub peak_used_bytes: usize,
}

impl Totals {
    /// The sums of two heaps' numbers.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            region_size: self.region_size.saturating_add(other.region_size),
            used_bytes: self.used_bytes.saturating_add(other.used_bytes),
            top: self.top.saturating_add(other.top),
            live_segments: self.live_segments.saturating_add(other.live_segments),
            holes: self.holes.saturating_add(other.holes),
            hole_bytes: self.hole_bytes.saturating_add(other.hole_bytes),
            committed_bytes: self.committed_bytes.saturating_add(other.committed_bytes),
            metadata_bytes: self.metadata_bytes.saturating_add(other.metadata_bytes),
            peak_top: self.peak_top.saturating_add(other.peak_top),
            peak_used_bytes: self.peak_used_bytes.saturating_add(other.peak_used_bytes),
        }
    }
}
