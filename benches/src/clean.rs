//! Freeing the blocks that a round leaves behind.

use std::alloc::{GlobalAlloc, Layout};
use std::time::{Duration, Instant};

/// Frees the blocks that are not null, or as many of them as the time allows: a list of free blocks is as slow to fill
/// as to search. Only region allocators are that slow, and their region is unmapped as a whole.
///
/// # Safety
///
/// The blocks are live, have these layouts, and no one uses them any more.
pub unsafe fn free_all<A: GlobalAlloc>(
    heap: &A,
    blocks: impl IntoIterator<Item = (*mut u8, Layout)>,
    limit: Duration,
) {
    let start = Instant::now();
    for (block, layout) in blocks.into_iter().filter(|(block, _)| !block.is_null()) {
        // SAFETY: guaranteed by the caller.
        unsafe { heap.dealloc(block, layout) };
        if start.elapsed() > limit {
            break;
        }
    }
}
