//! Slow paths: the lock is taken or slow, nothing fits at home, or the payload lies in another region.

use super::held::LockedSlow;
use super::{Guarded, LARGE_FREE, SmallocGlobal};
use crate::calls;
use crate::free_list::{Fit, FreeList};
use crate::recording::Call;
use crate::region::InitError;
use crate::system::errno;
use crate::system::fatal::say;
use crate::threads::lock::Guard;
use crate::watch::Request;
use core::alloc::Layout;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering};

/// The outcome of a request: its placement in a locked heap, or the last heap that had no room.
pub(super) struct Placed<'a, L: FreeList, const REGIONS: usize> {
    pub(super) held: LockedSlow<'a, L, REGIONS>,
    pub(super) fit: Fit,
    request: Request,
}

impl<L: FreeList, const REGIONS: usize> Placed<'_, L, REGIONS> {
    /// Releases the heap and returns the payload; `None` if there was no room.
    pub(super) fn hand_out(self) -> Option<NonNull<u8>> {
        let Self { held, fit, request } = self;
        fit.start().map(|at| calls::hand_out(held, at, &request))
    }
}

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Allocates if the lock is taken or slow.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_slow<const ZEROED: bool>(&self, layout: Layout) -> *mut u8 {
        calls::alloc::<_, _, ZEROED>(self.enter_for(self.regions.home_number(), layout.size()), layout)
    }

    /// Allocates if nothing fits at home, or no region is mapped yet.
    #[cold]
    #[inline(never)]
    pub(super) fn alloc_elsewhere(
        &self,
        guard: Guard<'_, Guarded<L>>,
        call: Call,
        layout: Layout,
    ) -> *mut u8 {
        let (held, request) = (LockedSlow { global: self, guard }, Request::new(call, layout));
        let placed = self.place_elsewhere(Placed { held, fit: Fit::NONE, request });
        placed.hand_out().map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    /// Places a request at home, otherwise in another region.
    pub(super) fn place(&self, request: Request) -> Placed<'_, L, REGIONS> {
        self.place_or_elsewhere(self.enter_for(self.regions.home_number(), request.size), request)
    }

    fn place_or_elsewhere<'a>(
        &'a self,
        mut held: LockedSlow<'a, L, REGIONS>,
        request: Request,
    ) -> Placed<'a, L, REGIONS> {
        let fit = calls::place(&mut held, &request);
        let placed = Placed { held, fit, request };
        if fit.start().is_some() { placed } else { self.place_elsewhere(placed) }
    }

    /// Places a request of this call stack in a region.
    fn place_in(&self, region: usize, request: Request, stack: u32) -> Placed<'_, L, REGIONS> {
        let mut held = self.enter_with(region, stack);
        let fit = calls::place(&mut held, &request);
        Placed { held, fit, request }
    }

    /// Handles a request that does not fit: maps the regions, tries the other ones, tries the reserve, calls the
    /// low-memory callback.
    #[cold]
    fn place_elsewhere<'a>(&'a self, mut placed: Placed<'a, L, REGIONS>) -> Placed<'a, L, REGIONS> {
        let (region, request, stack) = (placed.held.region(), placed.request, placed.held.guard.stack);
        if placed.held.guard.base().is_null() {
            drop(placed);
            match self.init() {
                Ok(()) => return self.place(request),
                Err(error) => tell_once(&error),
            }
            placed = self.place_in(region, request, stack);
        } else {
            placed = self.place_in_others(placed);
            if placed.fit.start().is_none() && self.caches.totals().0 > 0 {
                drop(placed);
                placed = self.place_from_caches(request, stack);
            }
        }
        if placed.fit.start().is_none() && self.regions.may_use_reserve() {
            placed = self.place_in_reserve(placed);
        }
        if placed.fit.start().is_none() && self.low_memory.is_set() {
            let last = placed.held.region();
            drop(placed);
            let retry = || {
                let home = self.place_in(self.regions.home_number(), request, stack);
                let mut placed = if home.fit.start().is_some() { home } else { self.place_in_others(home) };
                // The callback may have freed payloads to its thread's cache.
                if placed.fit.start().is_none() && self.caches.totals().0 > 0 {
                    drop(placed);
                    placed = self.place_from_caches(request, stack);
                }
                placed.fit.start().is_some().then_some(placed)
            };
            let made_room = self.ask_for_memory(request.size, request.align, retry);
            placed =
                made_room.unwrap_or_else(|| Placed { held: self.enter_slow(last), fit: Fit::NONE, request });
        }
        if placed.fit.start().is_some() || request.call == Call::Smalloc {
            return placed;
        }
        let guard = self.report(placed.held.guard, request.size, request.align);
        Placed { held: LockedSlow { global: self, guard }, ..placed }
    }

    /// Empties the caches of all threads and tries again before they fill up: no request fails while a cache holds what
    /// would serve it.
    #[cold]
    fn place_from_caches(&self, request: Request, stack: u32) -> Placed<'_, L, REGIONS> {
        let _stopped = self.empty_caches();
        let home = self.place_in(self.regions.home_number(), request, stack);
        if home.fit.start().is_some() { home } else { self.place_in_others(home) }
    }

    /// Empties the caches of all threads and reallocates before they fill up; null if that does not help.
    ///
    /// # Safety
    /// As for `realloc`.
    #[cold]
    unsafe fn realloc_from_caches(
        &self,
        payload: *mut u8,
        layout: Option<Layout>,
        new_size: usize,
    ) -> *mut u8 {
        let _stopped = self.empty_caches();
        let mut held = self.enter_slow(0).wait_until_idle();
        // SAFETY: guaranteed by the caller. Nothing is recorded, or the caches would be empty.
        unsafe { calls::realloc(calls::Own::new(&mut held.guard.heap, ()), payload, layout, new_size) }
    }

    /// Places a request that its region refused in one of the others. Counts it as failed if none has room.
    fn place_in_others<'a>(&'a self, mut placed: Placed<'a, L, REGIONS>) -> Placed<'a, L, REGIONS> {
        let (region, request, stack) = (placed.held.region(), placed.request, placed.held.guard.stack);
        if REGIONS == 1 {
            return placed;
        }
        for other in self.regions.others(region) {
            // One lock at a time: several may be taken only in region order.
            drop(placed);
            placed = self.place_in(other, request, stack);
            if placed.fit.start().is_some() {
                return placed;
            }
        }
        self.cross_region.failures.fetch_add(1, Ordering::Relaxed);
        self.cross_region.last_failed_size.store(request.size, Ordering::Relaxed);
        placed
    }

    /// Places a request that found no room in the reserves.
    fn place_in_reserve<'a>(&'a self, placed: Placed<'a, L, REGIONS>) -> Placed<'a, L, REGIONS> {
        let (request, stack) = (placed.request, placed.held.guard.stack);
        drop(placed);
        let home = self.regions.home_number();
        let place = |region| {
            let mut held = self.enter_with(region, stack);
            self.open_reserve(region, &mut held.guard);
            let fit = calls::place(&mut held, &request);
            self.close_reserve(region, &mut held.guard);
            Placed { held, fit, request }
        };
        let mut placed = place(home);
        for other in self.regions.others(home) {
            if placed.fit.start().is_some() {
                break;
            }
            drop(placed);
            placed = place(other);
        }
        placed
    }

    /// Frees if the lock is taken or slow, or the payload lies in another region.
    #[inline(never)]
    pub(super) fn free_slow(&self, payload: *mut u8, layout: Option<Layout>) {
        let region = self.regions.number_of(payload);
        // A block that waits in a queue keeps its memory, so one that is or may be large waits only for a lock that is
        // taken.
        if REGIONS > 1
            && layout.is_none_or(|layout| layout.size() >= LARGE_FREE)
            && let Some(held) = self.try_enter_slow(region)
        {
            return calls::free(held, payload, layout);
        }
        if REGIONS == 1 || !self.hand_over(region, payload, layout) {
            calls::free(self.enter_slow(region), payload, layout);
        }
    }

    #[inline(never)]
    pub(super) fn dealloc_elsewhere(&self, payload: *mut u8, layout: Layout) {
        if layout.size() >= LARGE_FREE
            && let Some(held) = self.enter(self.regions.number_of(payload))
        {
            return calls::free(held, payload, Some(layout));
        }
        self.free_slow(payload, Some(layout));
    }

    /// Reallocates if the lock is taken or slow.
    ///
    /// # Safety
    /// As for `realloc`.
    #[cold]
    #[inline(never)]
    pub(super) unsafe fn realloc_slow(
        &self,
        region: usize,
        payload: *mut u8,
        layout: Option<Layout>,
        new_size: usize,
    ) -> *mut u8 {
        // SAFETY: guaranteed by the caller.
        unsafe { calls::realloc(self.enter_for(region, new_size), payload, layout, new_size) }
    }

    /// Moves a payload that its region could not resize, or that lies outside the thread's home, to a region with room.
    /// With a single region, retries after the low-memory callback.
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
        let stack = guard.stack;
        drop(guard);
        if REGIONS == 1 && self.caches.totals().0 > 0 {
            // SAFETY: guaranteed by the caller.
            let moved = unsafe { self.realloc_from_caches(payload, Some(layout), new_size) };
            if !moved.is_null() {
                return moved;
            }
        }
        if REGIONS == 1 && !self.regions.may_use_reserve() {
            if self.low_memory.is_retrying() {
                return ptr::null_mut();
            }
            // SAFETY: guaranteed by the caller; the payload is unchanged until a call succeeds.
            let retry = || NonNull::new(unsafe { self.realloc_slow(0, payload, Some(layout), new_size) });
            let made_room = self.ask_for_memory(new_size, layout.align(), retry);
            return made_room.map_or_else(
                || {
                    drop(self.report(self.enter_slow(0).guard, new_size, layout.align()));
                    ptr::null_mut()
                },
                NonNull::as_ptr,
            );
        }
        let alloc = |heap: &mut &Self, layout| {
            let held = heap.enter_with(heap.regions.home_number(), stack);
            let placed = heap.place_or_elsewhere(held, Request::new(Call::Alloc, layout));
            placed.hand_out().map_or(ptr::null_mut(), NonNull::as_ptr)
        };
        let free = |heap: &mut &Self, payload, layout| heap.free_slow(payload, Some(layout));
        // SAFETY: guaranteed by the caller; `alloc` returns a payload of the layout that it was given.
        let moved = unsafe { calls::move_by(self, payload, layout, new_size, alloc, free) };
        if !moved.is_null() {
            self.cross_region.moved.fetch_add(1, Ordering::Relaxed);
        }
        moved
    }
}

/// Says why the region cannot be where the program wants it.
fn tell_once(error: &InitError) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if error.base.is_some() && !TOLD.swap(true, Ordering::Relaxed) {
        errno::unchanged(|| say(format_args!("{error} (name another address)")));
    }
}
