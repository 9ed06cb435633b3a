//! Zeroed memory: pages known to be zero are skipped, the rest is cleared with the heap released.

use super::held::Held;
use crate::free_list::FreeList;
use crate::region::Granule;
use crate::watch::Request;

/// Bytes from which a request is cleared page by page. Smaller ones hold one whole page at most.
pub(super) const MIN_CLEARED_BY_PAGE: usize = 8 << 10;

/// Whether only the pages of a request that may not be zero are cleared.
#[inline(always)]
pub(super) fn is_cleared_by_page(request: &Request) -> bool {
    request.is_zeroed() && request.size >= MIN_CLEARED_BY_PAGE
}

/// Clears the pages that may not be zero among the `size` bytes at `at`, which were just placed.
pub(super) fn clear<L: FreeList, H: Held<L>>(mut held: H, at: Granule, size: usize) -> H {
    let mut from = at;
    while let Some((unknown, next)) = held.heap().next_unknown(at, size, from) {
        // SAFETY: these bytes belong to a payload of this thread alone (M1).
        (held, ()) = held.unlocked(|| unsafe { unknown.cast::<u8>().write_bytes(0, unknown.len()) });
        from = next;
    }
    held
}
