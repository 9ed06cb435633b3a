//! A depot: where threads with the same home leave payloads for each other, in batches.
//!
//! It is a cache that no thread owns. A thread makes it busy by an atomic exchange before it changes it, and leaves
//! it alone if it is busy already, so no thread waits. For all else it is one of the heap's caches: a thread that stops
//! all caches empties it too, and it is searched for payloads that are freed twice.

use super::cache::{BATCH, BUSY, Cache};
use super::policy::most_cap;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering, compiler_fence};

impl Cache {
    /// The depot of this cache's region, if several threads have had it as their home.
    pub(crate) fn depot(&self) -> Option<&'static Cache> {
        // SAFETY: null, or what `share` has stored: caches are never unmapped.
        unsafe { self.depot.load(Ordering::Acquire).as_ref() }
    }

    pub(super) fn is_depot(&self) -> bool {
        self.shared.load(Ordering::Relaxed)
    }

    /// Lets nobody into a depot that was seized and is empty, until several threads have the same home again.
    pub(crate) fn retire(&self) {
        self.admit(0);
    }

    /// As [`enter`](Self::enter), for a depot. `None` also if another thread is in it.
    pub(super) fn claim<R>(&self, gate: &AtomicUsize, work: impl FnOnce() -> Option<R>) -> Option<R> {
        let pass = gate.load(Ordering::Relaxed);
        self.pass.compare_exchange(pass, BUSY, Ordering::Acquire, Ordering::Relaxed).ok()?;
        compiler_fence(Ordering::SeqCst);
        let result = if pass == gate.load(Ordering::Acquire) { work() } else { None };
        self.pass.store(pass, Ordering::Release);
        result
    }

    /// Makes a depot busy for good, if it admits those with another pass than `pass`, or if `pass` is none. The caller
    /// admits threads again.
    pub(super) fn seize(&self, pass: Option<usize>) -> bool {
        let old = self.pass.load(Ordering::Relaxed);
        let is_due = old != BUSY && old != 0 && pass != Some(old);
        is_due && self.pass.compare_exchange(old, BUSY, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Moves the oldest payloads of `n` granules into a depot, at most `most` and [`BATCH`]. Returns how many.
    pub(crate) fn deposit(&self, gate: &AtomicUsize, depot: &Cache, n: usize, most: usize) -> usize {
        let (Some(own), Some(shared)) = (self.stacks.get(n), depot.stacks.get(n)) else { return 0 };
        let moved = self.enter(gate, || {
            depot.claim(gate, || {
                let (cached, count) = (own.cached(), shared.cached().len());
                let moved = most_cap(n).saturating_sub(count).min(most).min(BATCH).min(cached.len());
                copy(cached, shared.slots.get(count..count.saturating_add(moved))?);
                shared.set_count(count.saturating_add(moved));
                own.drop_oldest(moved);
                Some(moved)
            })
        });
        depot.use_depot(n);
        moved.unwrap_or(0)
    }

    /// Moves the last payloads that a depot got to the stack of `n` granules, as many as the next refill should place.
    /// Returns one of them, which is in no cache.
    pub(crate) fn withdraw(&self, gate: &AtomicUsize, depot: &Cache, n: usize) -> Option<*mut u8> {
        let (own, shared) = (self.stacks.get(n)?, depot.stacks.get(n)?);
        if shared.cached().is_empty() {
            return None;
        }
        let payload = self.enter(gate, || {
            depot.claim(gate, || {
                let (stock, count) = (shared.cached(), own.cached().len());
                let left = stock.len().saturating_sub(self.wanted(n));
                let (handed, rest) = stock.get(left..)?.split_last()?;
                let handed = handed.load(Ordering::Relaxed);
                copy(rest, own.slots.get(count..count.saturating_add(rest.len()))?);
                own.set_count(count.saturating_add(rest.len()));
                shared.set_count(left);
                Some(self.unmarked(handed))
            })
        });
        depot.use_depot(n);
        payload
    }

    /// Notes that threads use a depot for payloads of `n` granules.
    fn use_depot(&self, n: usize) {
        if let Some(habit) = self.habits.get(n) {
            habit.active.store(true, Ordering::Relaxed);
        }
    }

    /// The payloads of `n` granules that a depot should give back: half of them, rounded up, if no thread has used
    /// them since the last look.
    pub(crate) fn idle(&self, n: usize) -> usize {
        let (Some(stack), Some(habit)) = (self.stacks.get(n), self.habits.get(n)) else { return 0 };
        if habit.active.swap(false, Ordering::Relaxed) { 0 } else { stack.cached().len().div_ceil(2) }
    }

    /// Takes the oldest payloads of `n` granules out of a depot, at most `most`. Returns how many.
    pub(crate) fn take_deposited(
        &self,
        gate: &AtomicUsize,
        n: usize,
        most: usize,
        out: &mut [u32; BATCH],
    ) -> usize {
        self.claim(gate, || Some(self.take_oldest_stopped(n, most, out))).unwrap_or(0)
    }
}

fn copy(from: &[AtomicU32], to: &[AtomicU32]) {
    from.iter().zip(to).for_each(|(from, to)| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed));
}
