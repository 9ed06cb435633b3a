//! Locking a region's heap for a call, and releasing it.

use super::publish::PublishWatch;
use super::record::RecordWatch;
use super::thread_measure::MeasureWatch;
use super::{Guarded, SmallocGlobal};
use crate::calls::{self, Held, MovedFrom};
use crate::free_list::FreeList;
use crate::heap::Heap;
use crate::recording::Call;
use crate::region::{Extent, Granule};
use crate::threads::lock::{self, Guard, SlowReason};
use crate::watch::{Checkers, Hardened};
use core::alloc::Layout;
use core::sync::atomic::Ordering;

/// A region's heap, locked by this thread.
///
/// With `SLOW` false, the lock was taken by the fast path, which proves that nothing is recorded, published or purged:
/// each of these makes the lock slow. With `SLOW` true, every step checks for them.
pub(super) struct Locked<'a, L: FreeList, const REGIONS: usize, const SLOW: bool> {
    pub(super) global: &'a SmallocGlobal<L, REGIONS>,
    pub(super) guard: Guard<'a, Guarded<L>>,
}

pub(super) type LockedFast<'a, L, const REGIONS: usize> = Locked<'a, L, REGIONS, false>;
pub(super) type LockedSlow<'a, L, const REGIONS: usize> = Locked<'a, L, REGIONS, true>;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Locks a region's heap; `None` if the lock is taken or slow.
    #[inline(always)]
    pub(super) fn enter(&self, region: usize) -> Option<LockedFast<'_, L, REGIONS>> {
        let guard = self.regions.get(region).lock.try_lock_fast()?;
        Some(Locked { global: self, guard })
    }

    /// [`enter`](Self::enter), after which the queued remote frees are done.
    #[inline(always)]
    pub(super) fn enter_drained(&self, region: usize) -> Option<LockedFast<'_, L, REGIONS>> {
        self.enter(region).map(|held| held.drained(region))
    }

    /// Locks a region's heap, waiting if necessary, and does the queued remote frees.
    #[inline]
    pub(super) fn enter_slow(&self, region: usize) -> LockedSlow<'_, L, REGIONS> {
        self.ensure_registered();
        self.count_calls(1);
        self.entered_slow(region, self.regions.get(region).lock.lock())
    }

    /// [`enter_slow`](Self::enter_slow), but `None` if another thread has the lock.
    pub(super) fn try_enter_slow(&self, region: usize) -> Option<LockedSlow<'_, L, REGIONS>> {
        self.ensure_registered();
        let guard = self.regions.get(region).lock.try_lock()?;
        self.count_calls(1);
        Some(self.entered_slow(region, guard))
    }

    fn entered_slow<'a>(&'a self, region: usize, guard: Guard<'a, Guarded<L>>) -> LockedSlow<'a, L, REGIONS> {
        let mut held = Locked { global: self, guard }.drained(region);
        held.guard.stack = 0;
        if held.guard.lock().has(SlowReason::Reserve) {
            self.close_reserve(region, &mut held.guard);
        }
        held
    }
}

impl<'a, L: FreeList, const REGIONS: usize, const SLOW: bool> Locked<'a, L, REGIONS, SLOW> {
    pub(super) fn region(&self) -> usize {
        self.global.regions.number_of_lock(self.guard.lock())
    }

    pub(super) fn wait_until_idle(self) -> Self {
        self.wait_for_range(Extent::new(Granule(0), Granule(usize::MAX)))
    }

    #[cold]
    #[inline(never)]
    fn wait_for_range(self, range: Extent) -> Self {
        let me = lock::thread_token();
        let forked_inside = &self.global.forked_inside;
        let guard = self.guard.wait_while(|heap| match heap.purged_by(range) {
            Some(by) if by == me => lock::recursive_call(),
            by => by.is_some() && !forked_inside.load(Ordering::Relaxed),
        });
        // A forked child does not have the thread that purges.
        let guard = if forked_inside.load(Ordering::Relaxed) {
            guard.unlocked(|| self.global.finish_fork()).0
        } else {
            guard
        };
        Self { guard, ..self }
    }
}

impl<'a, L: FreeList, const REGIONS: usize, const SLOW: bool> Held<L> for Locked<'a, L, REGIONS, SLOW> {
    type Watch<'w>
        = (
        (&'w mut Hardened, Checkers),
        (
            RecordWatch<'w, L, REGIONS, SLOW>,
            (PublishWatch<'w, L, REGIONS, SLOW>, MeasureWatch<'w, L, REGIONS, SLOW>),
        ),
    )
    where
        Self: 'w;

    #[inline(always)]
    fn with<'w, R>(&'w mut self, work: impl FnOnce(&mut Heap<L>, &mut Self::Watch<'w>) -> R) -> R {
        let (global, lock) = (self.global, self.guard.lock());
        let Guarded { heap, hardened, stack, .. } = &mut *self.guard;
        let slow = (PublishWatch { global, lock }, MeasureWatch { global, lock });
        work(heap, &mut ((hardened, Checkers), (RecordWatch { global, lock, stack: *stack }, slow)))
    }

    #[inline(always)]
    fn heap(&mut self) -> &mut Heap<L> {
        &mut self.guard.heap
    }

    fn unlocked<R>(self, work: impl FnOnce() -> R) -> (Self, R) {
        let (guard, result) = self.guard.unlocked(work);
        (Self { guard, ..self }, result)
    }

    fn unlocked_for_purge(mut self, work: impl FnOnce()) -> Self {
        self.guard.set_slow(SlowReason::Purge, true);
        (self, ()) = self.unlocked(work);
        self.guard.set_slow(SlowReason::Purge, false);
        self
    }

    /// During the wait another thread may fork, or wait for a purged range.
    fn yield_to_waiters(self) -> Self {
        Self { guard: self.guard.yield_to_waiters(), ..self }.wait_until_idle()
    }

    #[inline(always)]
    fn wait_for_purge(self, range: Extent) -> Self {
        if SLOW && self.guard.is_purging() { self.wait_for_range(range) } else { self }
    }

    #[inline(always)]
    fn leave_fast(self) {
        if SLOW {
            self.leave();
        }
    }

    fn leave_checked(self) {
        self.global.record_idle(self.region(), self.guard);
    }

    #[inline(always)]
    fn move_out<R>(self, moved: MovedFrom, work: impl FnOnce() -> R, finish: impl FnOnce(&mut Heap<L>, R)) {
        let (global, region) = (self.global, self.region());
        drop(self);
        let result = work();
        match global.enter(region) {
            Some(held) => calls::free_moved(held, moved, |heap| finish(heap, result)),
            None => {
                let MovedFrom { segment, layout } = moved;
                free_moved_slow(global, region, segment, layout, |heap| finish(heap, result));
            }
        }
    }

    fn alloc_elsewhere(self, call: Call, layout: Layout) -> *mut u8 {
        let Self { global, mut guard } = self;
        if !SLOW {
            guard.stack = 0;
        }
        global.alloc_elsewhere(guard, call, layout)
    }

    #[inline(always)]
    fn may_move(&self) -> bool {
        REGIONS == 1 || self.region() == self.global.regions.home_number()
    }

    unsafe fn realloc_elsewhere(self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Self { global, mut guard } = self;
        if !SLOW {
            guard.stack = 0;
        }
        // SAFETY: guaranteed by the caller.
        unsafe { global.realloc_elsewhere(guard, payload, layout, new_size) }
    }
}

/// Frees the segment that a payload was moved out of, if the lock is now taken or slow.
#[cold]
#[inline(never)]
fn free_moved_slow<L: FreeList, const REGIONS: usize>(
    global: &SmallocGlobal<L, REGIONS>,
    region: usize,
    segment: Extent,
    layout: Layout,
    finish: impl FnOnce(&mut Heap<L>),
) {
    calls::free_moved(global.enter_slow(region), MovedFrom { segment, layout }, finish);
}
