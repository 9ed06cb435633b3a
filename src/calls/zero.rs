//! Zeroed memory: pages that are known to be zero are not touched, the rest is cleared while others may have the heap.

use super::held::Held;
use crate::free_list::FreeList;
use crate::region::Granule;
use crate::watch::Request;

/// Smaller requests, in bytes, are cleared whole: they hold no whole page, or one.
pub(super) const CLEARED_WHOLE: usize = 8 << 10;

/// Whether only those pages of a request are cleared that may not be zero.
#[inline(always)]
pub(super) fn is_cleared_by_page(request: &Request) -> bool {
    request.is_zeroed() && request.size >= CLEARED_WHOLE
}

/// Clears what may not be zero of the `size` bytes at `at`, which were just placed.
pub(super) fn clear<L: FreeList, H: Held<L>>(mut held: H, at: Granule, size: usize) -> H {
    let mut from = at;
    while let Some((unknown, next)) = held.heap().next_unknown(at, size, from) {
        // SAFETY: these bytes belong to a payload that is this thread's.
        (held, ()) = held.outside(|| unsafe { unknown.cast::<u8>().write_bytes(0, unknown.len()) });
        from = next;
    }
    held
}
