//! Allocating where the short way of `alloc` and `alloc_zeroed` ends: what must be searched, what does not fit at home, and
//! where the lock was taken.

use super::{Found, Heap, SmallocGlobal};
use crate::free_list::{Fit, FreeList};
use crate::recording::Call;
use crate::threads::lock::Guard;
use crate::{checkers, unlocked};
use core::alloc::Layout;
use core::ptr;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Allocates where the lock was taken, or where there was no region.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_again(&self, layout: Layout) -> *mut u8 {
        self.give(&self.place(layout, Call::Alloc), layout)
    }

    /// Allocates zeroed memory of some size, or where the lock was taken, or where there was no region.
    #[inline(never)]
    pub(super) fn alloc_zeroed_again(&self, layout: Layout) -> *mut u8 {
        let found = self.place(layout, Call::AllocZeroed);
        match found.placement.start() {
            Some(at) => unlocked::zeroed(found.heap, at, layout),
            None => ptr::null_mut(),
        }
    }

    /// Allocates where the first look was in vain. All of the search is inline: one call, one frame.
    #[inline(never)]
    pub(super) fn alloc_searching(&self, mut heap: Guard<'_, Heap<L>>, layout: Layout) -> *mut u8 {
        match heap.place_after_look(layout.size()).start() {
            Some(at) => checkers::given(heap.region().pointer(at), layout.size()),
            None => self.alloc_elsewhere(heap, layout),
        }
    }

    /// Allocates where there was no first look, or it did not settle it.
    #[inline(never)]
    pub(super) fn alloc_any(&self, mut heap: Guard<'_, Heap<L>>, layout: Layout) -> *mut u8 {
        match heap.place_any(layout.size(), layout.align()).start() {
            Some(at) => checkers::given(heap.region().pointer(at), layout.size()),
            None => self.alloc_elsewhere(heap, layout),
        }
    }

    /// Allocates where nothing fits at home.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_elsewhere(&self, heap: Guard<'_, Heap<L>>, layout: Layout) -> *mut u8 {
        let found = Found { region: self.regions.home_number(), heap, placement: Fit::NONE };
        self.give(&self.place_elsewhere(found, layout, Call::Alloc), layout)
    }

    /// Allocates zeroed memory where nothing fits at home.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_zeroed_elsewhere(&self, heap: Guard<'_, Heap<L>>, layout: Layout) -> *mut u8 {
        let found = Found { region: self.regions.home_number(), heap, placement: Fit::NONE };
        let found = self.place_elsewhere(found, layout, Call::AllocZeroed);
        match found.placement.start() {
            Some(at) => unlocked::zeroed(found.heap, at, layout),
            None => ptr::null_mut(),
        }
    }

    /// The payload that was placed; null if none was.
    pub(super) fn give(&self, found: &Found<'_, L>, layout: Layout) -> *mut u8 {
        match found.placement.start() {
            Some(at) => checkers::given(found.heap.region().pointer(at), layout.size()),
            None => ptr::null_mut(),
        }
    }
}
