//! Caches of threads: how they are filled and emptied, and who empties them.

use super::SmallocGlobal;
use crate::calls::{self, Held};
use crate::checkers;
use crate::free_list::FreeList;
use crate::heap::{Heap, granules, is_aligned};
use crate::system::clock::monotonic_ns;
use crate::threads::caches::{AtExit, BATCH, Bypass, Cache, Home, MOST_GRANULES, Stopped};
use core::alloc::Layout;
use core::ptr;

/// Whether a build has watchers that must see every call.
const BYPASSED: bool = checkers::ACTIVE || cfg!(feature = "hardened");

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// The calling thread's cache, if it may be used now. Takes one if the thread has none.
    pub(crate) fn cache(&self) -> Option<&'static Cache> {
        if BYPASSED {
            return None;
        }
        let Some(cache) = self.caches.own() else { return self.attach() };
        if self.caches.is_asked(cache) {
            self.empty(cache);
            self.caches.answer(cache);
            if let Some(depot) = cache.depot().filter(|depot| self.caches.seize_asked(depot)) {
                self.empty(depot);
                self.caches.answer(depot);
            }
        }
        self.caches.admits(cache).then_some(cache)
    }

    #[cold]
    #[inline(never)]
    fn attach(&self) -> Option<&'static Cache> {
        let region = self.regions.home_number();
        let is_mapped = || !self.enter_slow(region).guard.base().is_null();
        if !self.caches.may_attach() || !(is_mapped() || self.init().is_ok()) {
            return None;
        }
        let cache = self.caches.attach(region, |number| {
            let heap = self.enter_slow(region).guard;
            let parts = heap.parts();
            let at_exit = self.is_registered().then(|| {
                let give_back = const { &(Self::empty_at_exit as AtExit) };
                (ptr::from_ref(self).cast(), give_back)
            });
            let secret = (parts.counters_at as u64 ^ u64::from(monotonic_ns() as u32) << 28) | 1 << 63;
            Home {
                heap: number,
                region,
                base: heap.region().base(),
                bitmaps: parts.bitmaps,
                secret: self.caches.secret(secret),
                at_exit,
            }
        })?;
        self.caches.admits(cache).then_some(cache)
    }

    // ---- filling and spilling ----------------------------------------------------------------------------------

    /// Fills a cache with a batch, from the depot or else placed with the lock held once. Returns one payload of it; of
    /// those placed, the lowest.
    #[inline(never)]
    pub(crate) fn refill(&self, cache: &Cache, n: usize) -> Option<*mut u8> {
        let region = cache.region();
        let deposited = cache.depot().and_then(|depot| cache.withdraw(self.caches.gate(), depot, n));
        let payload = match deposited {
            Some(payload) => payload,
            None => match self.enter_drained(region) {
                Some(held) => self.refill_from(held, cache, n),
                None => self.refill_from(self.enter_slow(region), cache, n),
            }?,
        };
        if cache.refilled(n) {
            self.age(cache);
        }
        Some(payload)
    }

    #[inline(always)]
    fn refill_from<H: Held<L>>(&self, mut held: H, cache: &Cache, n: usize) -> Option<*mut u8> {
        let mut batch = [0; BATCH];
        let wanted = batch.get_mut(..cache.wanted(n))?;
        let placed = calls::place_batch(&mut held, n, wanted);
        cache.reach(held.heap().tiling.ready.0);
        let batch = batch.get_mut(..placed)?;
        let mut held = calls::wait_for_batch(held, n, batch);
        // The lowest is handed out first, and lies on top.
        batch.reverse();
        let (&mut lowest, rest) = batch.split_last_mut()?;
        if !rest.is_empty() && !cache.fill(self.caches.gate(), n, rest) {
            calls::free_batch(&mut held, n, rest);
        }
        drop(held);
        // Payloads that were cached before they were freed still have a mark.
        Some(cache.unmarked(lowest))
    }

    /// Makes room in a cache's full stack of payloads of `n` granules.
    #[inline(never)]
    pub(crate) fn make_room(&self, cache: &Cache, n: usize) {
        let (spare, age) = cache.overflowed(n);
        let deposited = cache.depot().map_or(0, |depot| cache.deposit(self.caches.gate(), depot, n, spare));
        self.spill(cache, n, spare.saturating_sub(deposited));
        if age {
            self.age(cache);
        }
    }

    /// Gives the oldest `spare` payloads of `n` granules back, [`BATCH`] at a time.
    fn spill(&self, cache: &Cache, n: usize, spare: usize) {
        let gate = self.caches.gate();
        let mut left = spare;
        while left > 0 {
            let taken = self.give_back(cache.region(), n, |out| cache.take_oldest(gate, n, left, out));
            if taken == 0 {
                return;
            }
            left = left.saturating_sub(taken);
        }
    }

    /// Frees the payloads of `n` granules that `take` takes out of a cache with the region's heap held, so that none of
    /// them is in neither. Returns how many.
    fn give_back(&self, region: usize, n: usize, take: impl FnOnce(&mut [u32; BATCH]) -> usize) -> usize {
        match self.enter_drained(region) {
            Some(held) => give_back_to(held, n, take),
            None => give_back_to(self.enter_slow(region), n, take),
        }
    }

    /// Gives back half of what idle stacks hold, and adjusts the cache's budget.
    #[cold]
    #[inline(never)]
    fn age(&self, cache: &Cache) {
        let (used, _) = self.enter_slow(cache.region()).guard.used_and_top();
        self.caches.adjust(cache, used.saturating_mul(REGIONS));
        for n in 1..=MOST_GRANULES {
            self.spill(cache, n, cache.age(n));
            if let Some(depot) = cache.depot()
                && let idle @ 1.. = depot.idle(n)
            {
                self.give_back(depot.region(), n, |out| {
                    depot.take_deposited(self.caches.gate(), n, idle, out)
                });
            }
        }
    }

    pub(crate) fn is_in_region(&self, payload: *const u8, region: usize) -> bool {
        self.regions.number_of(payload) == region
    }

    /// Looks again, under the lock, how far the cache may look without it.
    pub(crate) fn look_further(&self, cache: &Cache) {
        let heap = self.enter_slow(cache.region()).guard;
        cache.reach(heap.tiling.ready.0);
    }

    // ---- emptying ----------------------------------------------------------------------------------------------

    /// Gives back all payloads of a cache that nobody may enter.
    fn empty(&self, cache: &Cache) {
        for n in 1..=MOST_GRANULES {
            loop {
                let take = |out: &mut [u32; BATCH]| cache.take_oldest_stopped(n, BATCH, out);
                if self.give_back(cache.region(), n, take) == 0 {
                    break;
                }
            }
        }
    }

    /// Empties all caches, and keeps every thread out of them until the result is dropped. `None` if there are no
    /// caches, or their threads could only be asked to empty them.
    pub(super) fn empty_caches(&self) -> Option<Stopped<'_>> {
        self.caches.stop().inspect(|stopped| self.empty_stopped(stopped))
    }

    /// [`empty_caches`](Self::empty_caches), unless another thread is doing so.
    pub(super) fn try_empty_caches(&self) -> Option<Stopped<'_>> {
        self.caches.try_stop().inspect(|stopped| self.empty_stopped(stopped))
    }

    fn empty_stopped(&self, stopped: &Stopped<'_>) {
        stopped.caches().for_each(|cache| self.empty(cache));
    }

    /// Sends every call to the heap while `reason` holds, in all threads.
    pub(super) fn bypass_caches(&self, reason: Bypass, holds: impl FnOnce() -> bool) {
        if self.caches.bypass(reason, holds) {
            drop(self.empty_caches());
        }
    }

    /// Empties the cache of a thread that ends.
    ///
    /// # Safety
    /// As for [`AtExit`](crate::threads::caches::AtExit).
    unsafe fn empty_at_exit(heap: *const (), cache: &Cache) {
        // SAFETY: guaranteed by the caller.
        let global = unsafe { &*heap.cast::<Self>() };
        if global.is_registered() {
            global.caches.keep_hits(cache);
            global.empty(cache);
            if let Some(depot) = global.caches.seize_last(cache) {
                global.empty(depot);
                depot.retire();
            }
        }
    }

    /// In the child of a fork, empties the caches of the threads that it does not have.
    pub(super) fn empty_caches_in_child(&self) {
        self.caches.take_over(|cache| self.empty(cache));
    }

    // ---- misuse ------------------------------------------------------------------------------------------------

    /// Ends the process if a payload that the program frees is in a cache.
    #[cold]
    #[inline(never)]
    pub(crate) fn refuse_cached(&self, payload: *mut u8, layout: Option<Layout>) {
        let region = self.regions.number_of(payload);
        if region >= REGIONS || !self.caches.may_hold() {
            return;
        }
        let heap = self.enter_slow(region).guard;
        if let Some((at, n)) = small_segment(&heap, payload, layout)
            && self.caches.contains(region, at, n)
        {
            heap.double_free(payload, layout);
        }
    }
}

#[inline(always)]
fn give_back_to<L: FreeList, H: Held<L>>(
    mut held: H,
    n: usize,
    take: impl FnOnce(&mut [u32; BATCH]) -> usize,
) -> usize {
    let mut batch = [0; BATCH];
    let taken = take(&mut batch);
    if let Some(batch) = batch.get(..taken)
        && taken > 0
    {
        calls::free_batch(&mut held, n, batch);
        held.leave();
    }
    taken
}

/// Granule and length of the segment in use that begins at a payload, if a cache could hold it.
fn small_segment<L: FreeList>(
    heap: &Heap<L>,
    payload: *const u8,
    layout: Option<Layout>,
) -> Option<(usize, usize)> {
    let at = heap.region().granule(payload);
    if at >= heap.top() || layout.is_some_and(|layout| !is_aligned(payload, layout)) {
        return None;
    }
    let n = heap.length_in_use(at)?;
    let is_right = layout.is_none_or(|layout| granules(layout.size()) == n);
    (is_right && n <= MOST_GRANULES).then_some((at.0, n))
}
