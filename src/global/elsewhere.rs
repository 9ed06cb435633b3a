//! Calls that the fast path does not finish: the lock was taken, nothing fits at home, or the payload lies in another region.

use super::held::Slow;
use super::{Guarded, LARGE, SmallocGlobal};
use crate::calls;
use crate::free_list::{Fit, FreeList};
use crate::recording::Call;
use crate::threads::lock::Guard;
use crate::watch::Request;
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::Ordering;

/// Where a request was placed, in a heap that is held; or the last heap that had no place for it.
pub(super) struct Placed<'a, L: FreeList, const REGIONS: usize> {
    pub(super) held: Slow<'a, L, REGIONS>,
    pub(super) fit: Fit,
    request: Request,
}

impl<L: FreeList, const REGIONS: usize> Placed<'_, L, REGIONS> {
    /// Lets the heap go, and hands out the payload, if there is one.
    pub(super) fn hand_out(self) -> Option<NonNull<u8>> {
        let Self { held, fit, request } = self;
        fit.start().map(|at| calls::hand_out(held, at, &request))
    }
}

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Allocates where the lock was taken, or where there was no region.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow<const ZEROED: bool>(&self, layout: Layout) -> *mut u8 {
        calls::alloc::<_, _, ZEROED>(self.enter_slow(self.regions.home_number()), layout)
    }

    /// Allocates where nothing fits at home, or where there was no region.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_elsewhere(
        &self,
        guard: Guard<'_, Guarded<L>>,
        call: Call,
        layout: Layout,
    ) -> *mut u8 {
        let (held, request) = (Slow { global: self, guard }, Request::new(call, layout));
        let placed = self.place_elsewhere(Placed { held, fit: Fit::NONE, request });
        placed.hand_out().map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// Places a request at home, else in the other regions; maps them if they are not mapped.
    pub(super) fn place(&self, request: Request) -> Placed<'_, L, REGIONS> {
        let placed = self.place_in(self.regions.home_number(), request);
        if placed.fit.start().is_some() { placed } else { self.place_elsewhere(placed) }
    }

    /// Places a request in the region of that number.
    fn place_in(&self, region: usize, request: Request) -> Placed<'_, L, REGIONS> {
        let mut held = self.enter_slow(region);
        let fit = calls::place(&mut held, &request);
        Placed { held, fit, request }
    }

    /// Places a request that found no place: there were no regions yet, or others have room, or the program can make some.
    #[cold]
    fn place_elsewhere<'a>(&'a self, mut placed: Placed<'a, L, REGIONS>) -> Placed<'a, L, REGIONS> {
        let (region, request) = (placed.held.region(), placed.request);
        if placed.held.guard.base().is_null() {
            drop(placed);
            if self.init().is_ok() {
                return self.place(request);
            }
            placed = self.place_in(region, request);
        } else if REGIONS > 1 {
            for other in self.regions.numbers_from(region).skip(1) {
                // One lock at a time: only in the order of the regions may there be several.
                drop(placed);
                placed = self.place_in(other, request);
                if placed.fit.start().is_some() {
                    return placed;
                }
            }
            self.cross_region.failures.fetch_add(1, Ordering::Relaxed);
            self.cross_region.last_failed_size.store(request.size, Ordering::Relaxed);
        }
        let (guard, in_callback) = self.ask_for_room(placed.held.guard, request.size, request.align);
        if in_callback.is_some() {
            drop(guard);
            return self.place(request);
        }
        let told = request.call != Call::Smalloc;
        let guard = if told { self.report(guard, request.size, request.align) } else { guard };
        Placed { held: Slow { global: self, guard }, ..placed }
    }

    /// Frees where the lock was taken, or in another region than the thread's home.
    #[inline(never)]
    pub(super) fn dealloc_slow(&self, payload: *mut u8, layout: Layout) {
        let region = self.regions.number_of(payload);
        if REGIONS == 1 || !self.hand_over(region, payload, Some(layout)) {
            calls::free(self.enter_slow(region), payload, layout);
        }
    }

    /// Frees in another region than the thread's home.
    #[inline(never)]
    pub(super) fn dealloc_elsewhere(&self, payload: *mut u8, layout: Layout) {
        if layout.size() >= LARGE
            && let Some(held) = self.enter(self.regions.number_of(payload))
        {
            return calls::free(held, payload, layout);
        }
        self.dealloc_slow(payload, layout);
    }

    /// Reallocates where the lock was taken.
    ///
    /// # Safety
    /// As for `realloc`.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn realloc_slow(
        &self,
        region: usize,
        payload: *mut u8,
        layout: Layout,
        new_size: usize,
    ) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { calls::realloc(self.enter_slow(region), payload, layout, new_size) }
    }

    /// Moves a payload that its region could not resize, or that lies in another one than this thread's home, to where there
    /// is room. With one region, that is where the program makes some.
    ///
    /// # Safety
    /// As for `realloc`.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn realloc_elsewhere(
        &self,
        guard: Guard<'_, Guarded<L>>,
        payload: *mut u8,
        layout: Layout,
        new_size: usize,
    ) -> *mut u8 {
        if REGIONS == 1 {
            let (guard, in_callback) = self.ask_for_room(guard, new_size, layout.align());
            if in_callback.is_some() {
                drop(guard);
                // SAFETY: the caller's promise.
                return unsafe { self.realloc_slow(0, payload, layout, new_size) };
            }
            drop(self.report(guard, new_size, layout.align()));
            return ptr::null_mut();
        }
        drop(guard);
        let alloc = |heap: &mut &Self, layout| {
            let placed = heap.place(Request::new(Call::Alloc, layout));
            placed.hand_out().map_or(ptr::null_mut(), NonNull::as_ptr)
        };
        let free = |heap: &mut &Self, payload, layout| heap.dealloc_slow(payload, layout);
        // SAFETY: the caller's promise; what is placed has the layout that it was asked for.
        let moved = unsafe { calls::move_by(self, payload, layout, new_size, alloc, free) };
        if !moved.is_null() {
            self.cross_region.moved.fetch_add(1, Ordering::Relaxed);
        }
        moved
    }
}
