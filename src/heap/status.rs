//! The status of a request, as the C allocator reports it.

use crate::free_list::Fit;
use crate::region::Granule;

/// The result of a request and its cost.
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
    /// Whether the request was placed.
    pub success: bool,
    /// The payload's offset from the region's base, in bytes.
    pub payload_offset: Option<usize>,
    /// The number of that region; 0 if there is only one. If nothing fits, the last region that was tried.
    pub region: usize,
    /// Steps of the search beyond its first look: `stepped + probes`.
    ///
    /// With [`Linked`](crate::Linked), exactly the number of free segments in front of the one taken: 0 if the head
    /// fits. With [`Indexed`](crate::Indexed), the steps it really took.
    pub hops: usize,
    /// Free segments stepped over.
    pub stepped: usize,
    /// Index nodes probed; always 0 with [`Linked`](crate::Linked).
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
