//! Holding a heap of one thread, which needs no lock.

use super::free::free_moved;
use super::held::{Held, MovedFrom, purge_if_due};
use crate::free_list::FreeList;
use crate::heap::Heap;
use crate::recording::Call;
use crate::region::Extent;
use crate::watch::{Checkers, Watch};
use core::alloc::Layout;
use core::ptr;

/// A borrowed heap, watched by the memory checkers and `W`.
pub(crate) struct Own<'a, L: FreeList, W = ()> {
    heap: &'a mut Heap<L>,
    watch: W,
}

impl<'a, L: FreeList, W: Watch<L> + Copy> Own<'a, L, W> {
    #[inline(always)]
    pub(crate) fn new(heap: &'a mut Heap<L>, watch: W) -> Self {
        Self { heap, watch }
    }
}

impl<L: FreeList, W: Watch<L> + Copy> Held<L> for Own<'_, L, W> {
    type Watch<'w>
        = (Checkers, W)
    where
        Self: 'w;

    #[inline(always)]
    fn with<'w, R>(&'w mut self, work: impl FnOnce(&mut Heap<L>, &mut Self::Watch<'w>) -> R) -> R {
        work(self.heap, &mut (Checkers, self.watch))
    }

    #[inline(always)]
    fn heap(&mut self) -> &mut Heap<L> {
        self.heap
    }

    fn unlocked<R>(self, work: impl FnOnce() -> R) -> (Self, R) {
        let result = work();
        (self, result)
    }

    fn unlocked_for_purge(self, work: impl FnOnce()) -> Self {
        work();
        self
    }

    fn yield_to_waiters(self) -> Self {
        self
    }

    #[inline(always)]
    fn wait_for_purge(self, _range: Extent) -> Self {
        self
    }

    #[inline(always)]
    fn leave_fast(self) {
        purge_if_due(self);
    }

    fn move_out<R>(self, moved: MovedFrom, work: impl FnOnce() -> R, finish: impl FnOnce(&mut Heap<L>, R)) {
        let result = work();
        free_moved(self, moved, |heap| finish(heap, result));
    }

    fn alloc_elsewhere(self, _call: Call, _layout: Layout) -> *mut u8 {
        ptr::null_mut()
    }

    #[inline(always)]
    fn may_move(&self) -> bool {
        true
    }

    unsafe fn realloc_elsewhere(self, _payload: *mut u8, _layout: Layout, _new_size: usize) -> *mut u8 {
        ptr::null_mut()
    }
}
