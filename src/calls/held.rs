//! A held heap: how it is released, and how it is purged without its lock.
//!
//! Purging returns pages of free memory to the system while other threads may use the heap. The purging thread takes no
//! segment, so purging does not affect placement. A thread whose request is placed on pages that are being purged waits
//! until the purge is done before it touches them ([`Held::wait_for_purge`]).
//!
//! [`Linked`](crate::Linked) keeps links in free memory and may write them at any time, so it is purged with the heap
//! held.

use crate::free_list::FreeList;
use crate::heap::{Heap, Purge};
use crate::recording::Call;
use crate::region::Extent;
use crate::threads::lock::thread_token;
use crate::watch::Watch;
use core::alloc::Layout;

/// The segment that a payload was moved out of.
#[derive(Clone, Copy)]
pub(crate) struct MovedFrom {
    pub(crate) segment: Extent,
    pub(crate) layout: Layout,
}

/// A heap that this thread alone uses until the value is dropped or released.
pub(crate) trait Held<L: FreeList>: Sized {
    type Watch<'w>: Watch<L>
    where
        Self: 'w;

    /// Runs `work` with the heap and its watchers.
    fn with<'w, R>(&'w mut self, work: impl FnOnce(&mut Heap<L>, &mut Self::Watch<'w>) -> R) -> R;

    fn heap(&mut self) -> &mut Heap<L>;

    // ---- with the heap released --------------------------------------------------------------------------------

    /// Runs `work` while other threads may use the heap.
    fn unlocked<R>(self, work: impl FnOnce() -> R) -> (Self, R);

    /// [`unlocked`](Self::unlocked) for work that purges pages: requests placed on them wait.
    fn unlocked_for_purge(self, work: impl FnOnce()) -> Self;

    /// Lets waiting threads have the heap for a while.
    fn yield_to_waiters(self) -> Self;

    /// Waits until no page of `range` is being purged.
    fn wait_for_purge(self, range: Extent) -> Self;

    // ---- release -----------------------------------------------------------------------------------------------

    /// Ends a free by the fast path. With a lock it makes no purge check; slower frees do.
    fn leave_fast(self);

    /// Ends a call: tells the watchers, purges if due, releases the heap.
    #[inline(always)]
    fn leave(mut self) {
        self.with(|heap, watch| watch.done(heap));
        purge_if_due(self);
    }

    /// Releases the heap after a purge check.
    fn leave_checked(self) {}

    /// Releases the heap for `work`, then frees `moved` and runs `finish`.
    fn move_out<R>(self, moved: MovedFrom, work: impl FnOnce() -> R, finish: impl FnOnce(&mut Heap<L>, R));

    /// Continues a request that does not fit here in another heap; null if there is none.
    fn alloc_elsewhere(self, call: Call, layout: Layout) -> *mut u8;

    /// Whether a `realloc` may move within this heap.
    fn may_move(&self) -> bool;

    /// Continues a `realloc` that does not fit here, or may not move here, in another heap; null if there is none.
    ///
    /// # Safety
    /// As for `GlobalAlloc::realloc`.
    unsafe fn realloc_elsewhere(self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8;
}

/// Purges if that is due after a free, and releases the heap.
#[inline(always)]
pub(crate) fn purge_if_due<L: FreeList, H: Held<L>>(mut held: H) {
    if <H::Watch<'_> as Watch<L>>::PURGES && held.heap().is_purge_check_due() {
        check_purge(held);
    }
}

/// Purges if more is free than was needed, and releases the heap.
#[cold]
#[inline(never)]
pub(crate) fn check_purge<L: FreeList, H: Held<L>>(mut held: H) {
    if <H::Watch<'_> as Watch<L>>::PURGES {
        held = match held.heap().plan_purge() {
            Some(pass) => purge(held, pass).0,
            None => held,
        };
    }
    held.leave_checked();
}

/// Purges what `pass` selects, and returns the bytes purged.
pub(crate) fn purge<L: FreeList, H: Held<L>>(mut held: H, mut pass: Purge) -> (H, usize) {
    if !<H::Watch<'_> as Watch<L>>::PURGES {
        return (held, 0);
    }
    while let Some(mut pieces) = held.heap().begin_purge(&mut pass, thread_token()) {
        if L::LINK_BYTES > 0 {
            // SAFETY: the pieces are free (M1), and the heap is held.
            unsafe { pieces.discard() };
        } else {
            // SAFETY: the pieces are free (M1), and requests placed on them wait until the purge is done.
            held = held.unlocked_for_purge(|| unsafe { pieces.discard() });
        }
        held.heap().end_purge(&mut pass, &pieces);
        held = held.yield_to_waiters();
    }
    (held, pass.bytes())
}
