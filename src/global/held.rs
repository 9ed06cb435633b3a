//! Ways in and ways out: how a thread comes to hold the heap of a region, and what happens when it lets go.

use super::publish::Publishing;
use super::record::Recording;
use super::{Guarded, SmallocGlobal};
use crate::calls::{self, Held, MovedFrom};
use crate::free_list::FreeList;
use crate::heap::Heap;
use crate::recording::Call;
use crate::region::{Extent, Granule};
use crate::threads::lock::{self, Guard, SlowReason};
use crate::watch::{Checkers, Hardened};
use core::alloc::Layout;

/// The heap of a region that this thread has locked.
///
/// There are two of a kind. Whoever takes the lock by the fast path knows that nobody records, publishes or purges: these
/// make the lock slow. On the slow path they are asked.
pub(super) struct Locked<'a, L: FreeList, const REGIONS: usize, const SLOW: bool> {
    pub(super) global: &'a SmallocGlobal<L, REGIONS>,
    pub(super) guard: Guard<'a, Guarded<L>>,
}

/// A heap that was locked by the fast path.
pub(super) type Fast<'a, L, const REGIONS: usize> = Locked<'a, L, REGIONS, false>;
/// A heap that was locked by the slow path.
pub(super) type Slow<'a, L, const REGIONS: usize> = Locked<'a, L, REGIONS, true>;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Locks a region's heap if its lock is free and nothing makes it slow.
    #[inline(always)]
    pub(super) fn enter(&self, region: usize) -> Option<Fast<'_, L, REGIONS>> {
        let guard = self.regions.get(region).lock.try_lock_fast()?;
        Some(Locked { global: self, guard })
    }

    /// The same, with everything freed that was handed over to the region.
    #[inline(always)]
    pub(super) fn enter_drained(&self, region: usize) -> Option<Fast<'_, L, REGIONS>> {
        self.enter(region).map(|held| held.drained(region))
    }

    /// Locks a region's heap, waits for it as long as another thread has it, and frees everything that was handed over to it.
    #[inline]
    pub(super) fn enter_slow(&self, region: usize) -> Slow<'_, L, REGIONS> {
        self.ensure_registered();
        let guard = self.regions.get(region).lock.lock();
        Locked { global: self, guard }.drained(region)
    }
}

impl<'a, L: FreeList, const REGIONS: usize, const SLOW: bool> Locked<'a, L, REGIONS, SLOW> {
    /// The number of the region.
    pub(super) fn region(&self) -> usize {
        self.global.regions.number_of_lock(self.guard.lock())
    }

    /// Returns once nothing is being purged.
    pub(super) fn idle(self) -> Self {
        self.wait_for(Extent::new(Granule(0), Granule(usize::MAX)))
    }

    #[cold]
    #[inline(never)]
    fn wait_for(self, range: Extent) -> Self {
        let me = lock::thread_token();
        let guard = self.guard.wait_while(|heap| match heap.purged_by(range) {
            Some(by) if by == me => lock::recursive_call(),
            by => by.is_some(),
        });
        Self { guard, ..self }
    }
}

impl<'a, L: FreeList, const REGIONS: usize, const SLOW: bool> Held<L> for Locked<'a, L, REGIONS, SLOW> {
    type Watch<'w>
        = ((&'w mut Hardened, Checkers), (Recording<'w, L, REGIONS, SLOW>, Publishing<'w, L, REGIONS, SLOW>))
    where
        Self: 'w;

    #[inline(always)]
    fn with<'w, R>(&'w mut self, work: impl FnOnce(&mut Heap<L>, &mut Self::Watch<'w>) -> R) -> R {
        let (global, lock) = (self.global, self.guard.lock());
        let Guarded { heap, hardened } = &mut *self.guard;
        work(heap, &mut ((hardened, Checkers), (Recording { global, lock }, Publishing { global, lock })))
    }

    #[inline(always)]
    fn heap(&mut self) -> &mut Heap<L> {
        &mut self.guard.heap
    }

    fn outside<R>(self, work: impl FnOnce() -> R) -> (Self, R) {
        let (guard, result) = self.guard.unlocked(work);
        (Self { guard, ..self }, result)
    }

    fn outside_purging(mut self, work: impl FnOnce()) -> Self {
        self.guard.set_slow(SlowReason::Purge, true);
        (self, ()) = self.outside(work);
        self.guard.set_slow(SlowReason::Purge, false);
        self
    }

    /// Others may come now who fork, or wait for a piece.
    fn yield_to_waiters(self) -> Self {
        Self { guard: self.guard.yield_to_waiters(), ..self }.idle()
    }

    #[inline(always)]
    fn settled(self, range: Extent) -> Self {
        if SLOW && self.guard.is_purging() { self.wait_for(range) } else { self }
    }

    #[inline(always)]
    fn release(self) {
        if SLOW {
            self.leave();
        }
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
        let Self { global, guard } = self;
        global.alloc_elsewhere(guard, call, layout)
    }

    #[inline(always)]
    fn may_move(&self) -> bool {
        REGIONS == 1 || self.region() == self.global.regions.home_number()
    }

    unsafe fn realloc_elsewhere(self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let Self { global, guard } = self;
        // SAFETY: the caller's promise.
        unsafe { global.realloc_elsewhere(guard, payload, layout, new_size) }
    }
}

/// Frees what was moved from where the lock was taken, or where somebody watches: that may have begun in the meantime.
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
