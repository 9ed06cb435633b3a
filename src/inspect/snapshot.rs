//! All segments of a heap at one instant, in memory outside the heap.
//!
//! A snapshot must not allocate from the heap that it shows, and must hold the lock as briefly as possible. So its
//! buffer is mapped and faulted in before the lock is taken, and a segment takes one word.

use core::fmt::{self, Write};
use core::iter::FusedIterator;
use core::ops::Range;
use core::time::Duration;

use super::number::{narrow, share, wide};
use super::stats::Stats;
use crate::system::Buffer;

/// A run of granules of a heap, in use or free.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Segment {
    /// The offset of the first byte from the region's base, in bytes.
    pub offset: usize,
    /// The size in bytes, a multiple of 16.
    pub size: usize,
    /// Whether the segment is in use.
    pub in_use: bool,
}

impl Segment {
    /// The offset of the first byte behind the segment.
    #[must_use]
    pub const fn end(&self) -> usize {
        self.offset.saturating_add(self.size)
    }
}

/// A segment in one word: the offset of its end, plus [`IN_USE`] for one in use. It begins where the one before ends.
type Packed = u64;

/// Offsets are multiples of 16, so the lowest bit is unused.
const IN_USE: Packed = 1;

/// The memory that a heap's segments are copied to under its lock: in ascending order, without gaps, from offset 0.
pub(crate) struct SegmentBuffer {
    packed: Buffer<Packed>,
}

impl SegmentBuffer {
    pub(crate) const EMPTY: Self = Self { packed: Buffer::EMPTY };

    /// Memory for `capacity` segments, faulted in. The error is the system's `errno`.
    pub(crate) fn populated(capacity: usize) -> Result<Self, i32> {
        Ok(Self { packed: Buffer::populated(capacity)? })
    }

    pub(crate) fn capacity(&self) -> usize {
        self.packed.capacity()
    }

    /// Appends the next segment, which begins at the end of the last one. False if the memory is full.
    #[inline]
    pub(crate) fn push(&mut self, segment: Segment) -> bool {
        let flag = if segment.in_use { IN_USE } else { 0 };
        self.packed.push(wide(segment.end()) | flag)
    }

    pub(crate) fn clear(&mut self) {
        self.packed.clear();
    }
}

/// The snapshot could not be taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The system refused memory for the copy of the segments.
    NoMemory {
        /// The number of segments that the memory was meant for.
        segments: usize,
        /// The system's error number.
        errno: i32,
    },
    /// Several attempts failed because the heap grew beyond the memory for the copy.
    GrewTooFast {
        /// The number of segments that the last attempt had memory for.
        capacity: usize,
    },
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::NoMemory { segments, errno } => {
                write!(f, "no memory for a snapshot of {segments} segments (errno {errno})")
            }
            Self::GrewTooFast { capacity } => {
                write!(f, "the heap grew beyond {capacity} segments while a snapshot was being taken")
            }
        }
    }
}

impl core::error::Error for SnapshotError {}

/// All segments of a heap and its numbers at one instant.
///
/// It uses memory outside the heap and returns it to the system when dropped. The segments tile the region from offset
/// 0 on; the last one is the wilderness, if there is one.
///
/// ```
/// use core::alloc::Layout;
/// use smalloc::Segment;
///
/// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
/// heap.smalloc(Layout::new::<[u8; 48]>());
/// let snapshot = heap.snapshot()?;
/// let mut segments = snapshot.segments();
/// assert_eq!(segments.next(), Some(Segment { offset: 0, size: 48, in_use: true }));
/// assert_eq!(segments.next(), Some(Segment { offset: 48, size: heap.region_size() - 48, in_use: false }));
/// assert_eq!(segments.next(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Snapshot {
    segments: SegmentBuffer,
    stats: Stats,
    held: u64,
    /// The number of the region.
    region: usize,
}

impl Snapshot {
    /// A snapshot from the copy that the heap made under its lock, which was held for `held` nanoseconds. The largest
    /// hole is computed here, since that takes time and needs no lock.
    pub(crate) fn new(segments: SegmentBuffer, stats: Stats, held: u64, region: usize) -> Self {
        let mut snapshot = Self { segments, stats, held, region };
        snapshot.stats.largest_hole = snapshot.largest_hole().map_or(0, |hole| hole.size);
        snapshot
    }

    /// The number of the region; 0 if there is only one.
    #[must_use]
    pub const fn region(&self) -> usize {
        self.region
    }

    /// All segments in address order, the wilderness last. Their sizes add up to the region's size.
    #[must_use]
    pub fn segments(&self) -> Segments<'_> {
        let packed = self.segments.packed.as_slice();
        Segments { packed, range: 0..packed.len() }
    }

    /// The free segments in address order, the wilderness last.
    pub fn free_segments(&self) -> impl DoubleEndedIterator<Item = Segment> + Clone + '_ {
        self.segments().filter(|segment| !segment.in_use)
    }

    /// The segments in use, in address order.
    pub fn used_segments(&self) -> impl DoubleEndedIterator<Item = Segment> + Clone + '_ {
        self.segments().filter(|segment| segment.in_use)
    }

    /// The holes, that is the free segments below top, in address order.
    pub fn holes(&self) -> impl DoubleEndedIterator<Item = Segment> + Clone + '_ {
        let top = self.stats.top;
        self.free_segments().filter(move |segment| segment.offset < top)
    }

    /// The numbers at the same instant.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The time for which the heap's lock was held for the snapshot: zero for a heap without a lock.
    #[must_use]
    pub const fn held(&self) -> Duration {
        Duration::from_nanos(self.held)
    }

    /// The largest hole, and the lowest of these if there are several; None without a hole.
    #[must_use]
    pub fn largest_hole(&self) -> Option<Segment> {
        self.holes().reduce(|largest, hole| if hole.size > largest.size { hole } else { largest })
    }

    /// The wilderness, the free rest above top; None if there is none.
    #[must_use]
    pub fn wilderness(&self) -> Option<Segment> {
        self.segments().next_back().filter(|last| !last.in_use)
    }

    /// The share of the holes' bytes that a request of `n` bytes cannot use, because they lie in smaller holes.
    ///
    /// 0 without a hole. The wilderness is not counted; [`unusable_with_wilderness`](Self::unusable_with_wilderness)
    /// counts it.
    ///
    /// ```
    /// use core::alloc::Layout;
    ///
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
    /// let [a, _b, c, _d] = [16, 16, 48, 16].map(|size| heap.smalloc(Layout::from_size_align(size, 1).unwrap()).0);
    /// unsafe {
    ///     heap.sfree(a.unwrap());
    ///     heap.sfree(c.unwrap());
    /// }
    /// let snapshot = heap.snapshot()?;
    /// assert_eq!([16, 17, 48, 49].map(|n| snapshot.unusable(n)), [0.0, 0.25, 0.25, 1.0]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn unusable(&self, n: usize) -> f64 {
        unusable_share(self.holes(), n)
    }

    /// The share of all free bytes, including the wilderness, that a request of `n` bytes cannot use; 0 if nothing is
    /// free.
    #[must_use]
    pub fn unusable_with_wilderness(&self, n: usize) -> f64 {
        unusable_share(self.free_segments(), n)
    }

    /// The segment that contains the byte at `offset`, in bytes from the region's base; None outside the region.
    ///
    /// A binary search: at most 21 steps among a million segments.
    #[must_use]
    pub fn segment_at(&self, offset: usize) -> Option<Segment> {
        self.segments_from(offset).next()
    }

    /// The segments from the one that contains the byte at `offset` on.
    pub(super) fn segments_from(&self, offset: usize) -> Segments<'_> {
        let packed = self.segments.packed.as_slice();
        let index = packed.partition_point(|&packed| end_of(packed) <= offset);
        Segments { packed, range: index..packed.len() }
    }

    /// Writes the numbers and all segments as one JSON object.
    ///
    /// `stats` is the output of [`Stats::write_json`], `held_ns` is [`held`](Self::held) in nanoseconds, and `segments`
    /// has an array `[offset, size, in_use]` per segment, about 20 bytes each.
    ///
    /// # Errors
    /// Any error of `out`.
    pub fn write_json(&self, out: &mut (impl Write + ?Sized)) -> fmt::Result {
        out.write_str("{\"stats\":")?;
        self.stats.write_json(out)?;
        write!(out, ",\"held_ns\":{},\"segments\":[", self.held)?;
        for (i, Segment { offset, size, in_use }) in self.segments().enumerate() {
            write!(out, "{}[{offset},{size},{in_use}]", if i == 0 { "" } else { "," })?;
        }
        out.write_str("]}")
    }
}

impl fmt::Debug for Snapshot {
    /// The numbers only, since there may be millions of segments.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("segments", &self.segments().len())
            .field("held", &self.held())
            .field("stats", &self.stats)
            .finish()
    }
}

impl<'a> IntoIterator for &'a Snapshot {
    type Item = Segment;
    type IntoIter = Segments<'a>;

    fn into_iter(self) -> Segments<'a> {
        self.segments()
    }
}

/// The share of the bytes of `free` in segments of less than `n` bytes.
fn unusable_share(free: impl Iterator<Item = Segment>, n: usize) -> f64 {
    let (mut too_small, mut all) = (0, 0);
    for segment in free {
        all += wide(segment.size);
        if segment.size < n {
            too_small += wide(segment.size);
        }
    }
    share(too_small, all)
}

const fn end_of(packed: Packed) -> usize {
    narrow(packed & !IN_USE)
}

/// The segments of a [`Snapshot`] in address order; see [`Snapshot::segments`].
#[derive(Clone, Debug)]
pub struct Segments<'a> {
    packed: &'a [Packed],
    /// The indices of the segments to return.
    range: Range<usize>,
}

impl Segments<'_> {
    /// The segment at an index, counted from the region's base.
    fn get(&self, index: usize) -> Option<Segment> {
        let packed = *self.packed.get(index)?;
        let below = index.checked_sub(1).and_then(|below| self.packed.get(below));
        let offset = below.map_or(0, |&below| end_of(below));
        let size = end_of(packed).saturating_sub(offset);
        Some(Segment { offset, size, in_use: packed & IN_USE != 0 })
    }
}

impl Iterator for Segments<'_> {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        let index = self.range.next()?;
        self.get(index)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.range.size_hint()
    }

    fn nth(&mut self, n: usize) -> Option<Segment> {
        let index = self.range.nth(n)?;
        self.get(index)
    }
}

impl DoubleEndedIterator for Segments<'_> {
    fn next_back(&mut self) -> Option<Segment> {
        let index = self.range.next_back()?;
        self.get(index)
    }
}

impl ExactSizeIterator for Segments<'_> {}
impl FusedIterator for Segments<'_> {}

#[cfg(test)]
#[path = "../../tests/unit/inspect/snapshot.rs"]
pub(super) mod tests;
