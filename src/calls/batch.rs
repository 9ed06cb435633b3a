//! Batches for the caches of threads: several placements, or several frees, with the heap held once.

use super::free::free_one;
use super::held::Held;
use crate::free_list::FreeList;
use crate::heap::segment;
use crate::recording::Call;
use crate::region::{GRANULE, Granule};
use crate::watch::{Request, Watch};
use core::alloc::Layout;

/// The layout that a cache's payloads of `n` granules are placed and freed with.
pub(crate) fn cached_layout(n: usize) -> Option<Layout> {
    Layout::from_size_align(n.checked_mul(GRANULE)?, GRANULE).ok()
}

/// Places requests for `n` granules first fit, one after the other, as long as committed wilderness could hold the next
/// one: so none of them fails. Returns how many were placed.
pub(crate) fn place_batch<L: FreeList, H: Held<L>>(held: &mut H, n: usize, out: &mut [u32]) -> usize {
    let Some(layout) = cached_layout(n) else { return 0 };
    let request = Request::new(Call::Alloc, layout);
    held.with(|heap, watch| {
        let mut placed = 0;
        for place in out {
            if n > heap.tiling.ready.above(heap.top()) {
                break;
            }
            let fit = heap.place(layout.size(), layout.align());
            watch.placed(heap, &request, fit);
            // A granule of a region fits in 32 bits.
            let Some(start) = fit.start() else { break };
            *place = start.0 as u32;
            placed += 1;
        }
        watch.done(heap);
        placed
    })
}

/// Waits until no page of the payloads of `n` granules is being purged.
#[inline(always)]
pub(crate) fn wait_for_batch<L: FreeList, H: Held<L>>(held: H, n: usize, batch: &[u32]) -> H {
    let bytes = n.wrapping_mul(GRANULE);
    batch.iter().fold(held, |held, &at| held.wait_for_purge(segment(Granule(at as usize), bytes)))
}

/// Frees payloads of `n` granules. The caller then [leaves](Held::leave).
pub(crate) fn free_batch<L: FreeList, H: Held<L>>(held: &mut H, n: usize, batch: &[u32]) {
    for &at in batch {
        let payload = held.heap().region().pointer(Granule(at as usize)).as_ptr();
        free_one(held, payload, cached_layout(n));
    }
}
