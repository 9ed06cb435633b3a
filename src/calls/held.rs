//! Holding a heap, letting it go, and purging it meanwhile.
//!
//! Purging returns pages of free memory to the system while others may have the heap. A thread that purges has taken no
//! segment for it: placement stays what it is. Whoever is given a place among pages that are being purged waits until the
//! system has them, and only then touches them ([`Held::settled`]).
//!
//! The links of [`Linked`](crate::Linked) lie in free memory and may be written at any time, so that list's memory is purged
//! with the heap held.

use crate::free_list::FreeList;
use crate::heap::{Heap, Purge};
use crate::recording::Call;
use crate::region::Extent;
use crate::threads::lock::thread_token;
use crate::watch::Watch;
use core::alloc::Layout;

/// A segment that a payload was moved away from.
#[derive(Clone, Copy)]
pub(crate) struct MovedFrom {
    pub(crate) segment: Extent,
    pub(crate) layout: Layout,
}

/// A heap that is held: this thread alone uses it until the value is dropped or let go.
pub(crate) trait Held<L: FreeList>: Sized {
    /// Who watches.
    type Watch<'w>: Watch<L>
    where
        Self: 'w;

    /// Runs `work` with the heap and with who watches it.
    fn with<'w, R>(&'w mut self, work: impl FnOnce(&mut Heap<L>, &mut Self::Watch<'w>) -> R) -> R;

    /// The heap.
    fn heap(&mut self) -> &mut Heap<L>;

    // ---- meanwhile -------------------------------------------------------------------------------------------

    /// Runs `work` while others may have the heap.
    fn outside<R>(self, work: impl FnOnce() -> R) -> (Self, R);

    /// The same for work that purges pages: whoever is given one of them waits.
    fn outside_purging(self, work: impl FnOnce()) -> Self;

    /// Lets others have the heap who have waited for long.
    fn yield_to_waiters(self) -> Self;

    /// Returns once nothing of a range is being purged.
    fn settled(self, range: Extent) -> Self;

    // ---- ways out --------------------------------------------------------------------------------------------

    /// Lets the heap go after a free by the fast path, which leaves no page to purge.
    fn release(self);

    /// Lets the heap go at the end of a call, and purges what is due.
    #[inline(always)]
    fn leave(mut self) {
        self.with(|heap, watch| watch.done(heap));
        purge_if_due(self);
    }

    /// Lets the heap go for `work`, and then frees what it has moved from and `finish`es.
    fn move_out<R>(self, moved: MovedFrom, work: impl FnOnce() -> R, finish: impl FnOnce(&mut Heap<L>, R));

    /// A request found no place: another heap's, or null.
    fn alloc_elsewhere(self, call: Call, layout: Layout) -> *mut u8;

    /// Whether a `realloc` may move within this heap.
    fn may_move(&self) -> bool;

    /// A `realloc` found no place, or may not move here: another heap's, or null.
    ///
    /// # Safety
    /// As for `GlobalAlloc::realloc`.
    unsafe fn realloc_elsewhere(self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8;
}

/// Purges what is due after a free, if anything is, and lets the heap go.
#[inline(always)]
pub(crate) fn purge_if_due<L: FreeList, H: Held<L>>(mut held: H) {
    if <H::Watch<'_> as Watch<L>>::PURGES
        && let Some(pass) = held.heap().purge_due()
    {
        purge(held, pass);
    }
}

/// Purges what a pass finds, and returns how many bytes.
#[cold]
#[inline(never)]
pub(crate) fn purge<L: FreeList, H: Held<L>>(mut held: H, mut pass: Purge) -> usize {
    if !<H::Watch<'_> as Watch<L>>::PURGES {
        return 0;
    }
    while let Some(mut pieces) = held.heap().begin_purge(&mut pass, thread_token()) {
        if L::LINK_BYTES > 0 {
            // SAFETY: the pieces are free, and the heap is held.
            unsafe { pieces.discard() };
        } else {
            // SAFETY: the pieces are free. Whoever is given a part of them waits.
            held = held.outside_purging(|| unsafe { pieces.discard() });
        }
        held.heap().end_purge(&mut pass, &pieces);
        held = held.yield_to_waiters();
    }
    pass.bytes()
}
