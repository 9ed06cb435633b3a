//! The status of a request, as the C allocator reports it.

use crate::free_list::Fit;
use crate::region::Granule;

/// What came of a request, and what it cost.
///
/// ```
/// use core::alloc::Layout;
/// let mut heap = smalloc::Heap::<smalloc::Linked>::with_region_size(1 << 16)?;
/// let (_, status) = heap.smalloc(Layout::new::<u64>());
/// assert!(status.success);
/// assert_eq!((status.payload_offset, status.hops), (Some(0), 0));
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MallocStatus {
    /// Whether there was a place.
    pub success: bool,
    /// Where the payload begins, in bytes from the region's base.
    pub payload_offset: Option<usize>,
    /// The number of that region; 0 where there is only one. Where nothing fits, the last one that was asked.
    pub region: usize,
    /// What the search looked at beyond the first: `stepped + probes`.
    ///
    /// With [`Linked`](crate::Linked) these are exactly the free segments in front of the one that was taken, 0 when the
    /// head fits. With [`Indexed`](crate::Indexed) they are what was really looked at.
    pub hops: usize,
    /// Free segments that were stepped over.
    pub stepped: usize,
    /// Nodes of the index that were looked at; always 0 with [`Linked`](crate::Linked).
    pub probes: usize,
}

impl From<Fit> for MallocStatus {
    fn from(fit: Fit) -> Self {
        Self {
            success: fit.start().is_some(),
            payload_offset: fit.start().map(Granule::bytes),
            region: 0,
            hops: fit.hops(),
            stepped: fit.stepped(),
            probes: fit.probes(),
        }
    }
}
