//! `realloc`: in place, else to another place in the same region, else to another region.

use super::{Heap, SmallocGlobal};
use crate::checkers;
use crate::free_list::{Fit, FreeList};
use crate::heap::LEAST_TRANSFER;
use crate::recording::{Call, Record};
use crate::region::Granule;
use crate::threads::lock::Guard;
use crate::unlocked::{purge_if_due, settled};
use core::alloc::Layout;
use core::ptr;
use core::sync::atomic::Ordering;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Reallocates where the lock was taken.
    #[cold]
    #[inline(never)]
    pub(super) fn realloc_again(
        &self,
        region: usize,
        payload: *mut u8,
        layout: Layout,
        new_size: usize,
    ) -> *mut u8 {
        self.realloc_in::<true>(region, self.lock(region), payload, layout, new_size)
    }

    /// Reallocates in a region whose lock is held. Whether somebody watches is asked only if it is `MAYBE_SLOW`.
    #[inline(always)]
    pub(super) fn realloc_in<const MAYBE_SLOW: bool>(
        &self,
        region: usize,
        mut heap: Guard<'_, Heap<L>>,
        payload: *mut u8,
        layout: Layout,
        new_size: usize,
    ) -> *mut u8 {
        let (at, n) = heap.segment_of(payload, layout);
        if heap.resize(at, n, new_size) {
            if MAYBE_SLOW {
                self.note(region, &mut heap, || Record::resize(layout, new_size, at, Fit::NONE.at(at)));
                self.show(region, &heap);
            }
            if MAYBE_SLOW {
                heap = settled(heap, at, new_size);
            }
            checkers::resized(payload, layout.size(), new_size);
            purge_if_due(heap);
            return payload;
        }
        let at_home = REGIONS == 1 || region == self.regions.home_number();
        let placement = if at_home { heap.place(new_size, layout.align()) } else { Fit::NONE };
        if MAYBE_SLOW && at_home {
            self.note(region, &mut heap, || Record::resize(layout, new_size, at, placement));
        }
        let Some(to) = placement.start() else {
            return if REGIONS == 1 {
                self.realloc_failed(heap, payload, layout, new_size)
            } else {
                drop(heap);
                // SAFETY: the caller's promise for realloc.
                unsafe { self.realloc_across(payload, layout, new_size) }
            };
        };
        if MAYBE_SLOW {
            heap = settled(heap, to, new_size);
        }
        if layout.size() >= LEAST_TRANSFER {
            return self.realloc_transferring(region, heap, (payload, layout), (at, n), (to, new_size));
        }
        let moved = checkers::given(heap.region().pointer(to), new_size);
        drop(heap);
        // SAFETY: both segments are in use and this thread's, so they do not overlap; the new one is the larger.
        unsafe { moved.copy_from_nonoverlapping(payload, layout.size()) };
        if let Some(mut heap) = self.regions.get(region).heap.try_lock_fast() {
            checkers::back(payload, layout.size());
            heap.give_back_moved(at, n);
            purge_if_due(heap);
        } else {
            self.free_moved(region, payload, layout, (at, n));
        }
        moved
    }

    /// Frees what was moved from where the lock was taken, or where somebody watches: that may have begun in the meantime.
    #[cold]
    #[inline(never)]
    fn free_moved(&self, region: usize, payload: *mut u8, layout: Layout, segment: (Granule, usize)) {
        self.free_moved_and(region, payload, layout, segment, |_| {});
    }

    /// The same, and before anybody else has the heap, what is left to be done.
    fn free_moved_and(
        &self,
        region: usize,
        payload: *mut u8,
        layout: Layout,
        (at, n): (Granule, usize),
        finish: impl FnOnce(&mut Heap<L>),
    ) {
        let mut heap = self.lock(region);
        self.note(region, &mut heap, || Record::free(Call::MovedFrom, layout, at));
        checkers::back(payload, layout.size());
        heap.give_back_moved(at, n);
        finish(&mut heap);
        self.show(region, &heap);
        purge_if_due(heap);
    }

    /// Moves a large payload to its new place in the same region.
    #[cold]
    #[inline(never)]
    fn realloc_transferring(
        &self,
        region: usize,
        mut heap: Guard<'_, Heap<L>>,
        (payload, layout): (*mut u8, Layout),
        segment: (Granule, usize),
        (to, new_size): (Granule, usize),
    ) -> *mut u8 {
        let moved = checkers::given(heap.region().pointer(to), new_size);
        let transfer = heap.begin_transfer(segment.0, to, layout.size());
        drop(heap);
        // SAFETY: both segments are in use and this thread's, and nothing of them is on its way to the system (X1).
        let done = unsafe { transfer.carry_out() };
        self.free_moved_and(region, payload, layout, segment, |heap| heap.end_transfer(&transfer, done));
        moved
    }

    /// Nothing fits in the one region: asks the program for room and tries again, or reports.
    #[cold]
    #[inline(never)]
    fn realloc_failed(
        &self,
        heap: Guard<'_, Heap<L>>,
        payload: *mut u8,
        layout: Layout,
        new_size: usize,
    ) -> *mut u8 {
        // SAFETY: realloc's caller promises that the size, rounded up to the alignment, does not exceed isize::MAX.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let (heap, asking) = self.ask_for_room(heap, new_layout);
        if asking.is_some() {
            drop(heap);
            return self.realloc_again(0, payload, layout, new_size);
        }
        drop(self.report(heap, new_layout));
        ptr::null_mut()
    }

    /// Moves a payload, which its region could not resize or is not this thread's home, to another region.
    ///
    /// # Safety
    /// As for `realloc`.
    #[cold]
    unsafe fn realloc_across(&self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise for realloc.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let moved = self.give(&self.place(new_layout, Call::Alloc), new_layout);
        if !moved.is_null() {
            // SAFETY: both payloads are in use and this thread's, so they do not overlap; each has that many bytes.
            unsafe { moved.copy_from_nonoverlapping(payload, layout.size().min(new_size)) };
            self.dealloc_locking(payload, layout);
            self.between.moved.fetch_add(1, Ordering::Relaxed);
        }
        moved
    }
}
