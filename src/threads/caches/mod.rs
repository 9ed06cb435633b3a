//! Caches of free payloads, one for each thread, in front of a heap.
//!
//! This room knows no heap: `global` fills and empties the caches, and asks here who may.

mod barrier;
mod cache;
mod depot;
mod policy;
mod registry;
mod word;

pub(crate) use cache::{AtExit, BATCH, Cache, Home, MOST_GRANULES, Refusal};
pub(crate) use registry::{delete_key, forget_other_threads, lock_for_fork, unlock_after_fork};

use crate::threads::lock::{Backoff, Guard};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// The gate's value while no cache serves.
const CLOSED: usize = usize::MAX;
/// Pauses until a busy cache is left alone: a tenth of a second, unless the system is slow to wake the thread. An owner
/// is busy for some nanoseconds, unless a signal handler that does not return has interrupted it.
const MOST_PAUSES: usize = 1000;
/// Bytes that each cache may hold, whatever is in use.
const LEAST_BUDGET: usize = 128 << 10;
/// Bytes that a cache may hold at most.
const MOST_BUDGET: usize = 512 << 10;
/// All caches together may hold a quarter of the bytes in use, if that is more than their least.
const SHARE: usize = 4;

/// The last number given to a heap, or to a request to empty its caches.
static LAST_NUMBER: AtomicUsize = AtomicUsize::new(0);

fn next_number() -> usize {
    LAST_NUMBER.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
}

/// A reason for which every call must reach the heap.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum Bypass {
    Recording = 1,
    Measurement = 2,
}

/// The caches of one heap.
pub(crate) struct Caches {
    /// `pass` of the caches that serve their owners, or `CLOSED`. Read by every hit, written seldom.
    gate: AtomicUsize,
    /// The number of the heap, which no other heap of the process has had; 0 before its first cache.
    heap: AtomicUsize,
    /// The gate's value while it is open. A new one asks all threads to empty their caches.
    pass: AtomicUsize,
    /// Bits of the reasons for which every call must reach the heap. Written with the registry locked.
    bypassed: AtomicU8,
    /// Hits of threads that have ended.
    past_hits: AtomicU64,
    /// The secret from which the marks of cached payloads are made; 0 before the first cache.
    secret: AtomicU64,
    /// Whether the current fork has found all caches idle.
    idle_in_fork: AtomicBool,
}

impl Caches {
    pub(crate) const fn new() -> Self {
        Self {
            gate: AtomicUsize::new(CLOSED),
            heap: AtomicUsize::new(0),
            pass: AtomicUsize::new(0),
            bypassed: AtomicU8::new(0),
            past_hits: AtomicU64::new(0),
            secret: AtomicU64::new(0),
            idle_in_fork: AtomicBool::new(false),
        }
    }

    #[inline(always)]
    pub(crate) fn gate(&self) -> &AtomicUsize {
        &self.gate
    }

    /// The calling thread's cache, whichever heap it belongs to.
    #[inline(always)]
    pub(crate) fn of_thread() -> &'static Cache {
        word::get()
    }

    fn heap(&self) -> usize {
        self.heap.load(Ordering::Relaxed)
    }

    /// The calling thread's cache, if it is this heap's. It serves if its pass is that of the gate.
    pub(crate) fn own(&self) -> Option<&'static Cache> {
        let (cache, heap) = (word::get(), self.heap());
        (heap != 0 && cache.heap.load(Ordering::Relaxed) == heap).then_some(cache)
    }

    /// Whether a cache serves its owner now.
    pub(crate) fn admits(&self, cache: &Cache) -> bool {
        cache.passes(self.gate.load(Ordering::Relaxed))
    }

    /// Whether its owner has been asked to empty a cache.
    pub(crate) fn is_asked(&self, cache: &Cache) -> bool {
        !cache.passes(self.pass.load(Ordering::Relaxed)) && !cache.is_busy()
    }

    /// Lets a cache serve again whose owner has emptied it.
    pub(crate) fn answer(&self, cache: &Cache) {
        cache.admit(self.pass.load(Ordering::Relaxed));
    }

    /// Takes a depot whose threads have been asked to empty their caches. No thread enters it until it is
    /// [answered](Self::answer).
    pub(crate) fn seize_asked(&self, depot: &Cache) -> bool {
        depot.seize(Some(self.pass.load(Ordering::Relaxed)))
    }

    /// Takes the depot of a cache whose thread ends, if at most one other thread has the same home. No thread enters it
    /// until another one has. The registry is locked.
    pub(crate) fn seize_last(&self, cache: &Cache) -> Option<&'static Cache> {
        let depot = cache.depot()?;
        if !registry::has_at_most(2, self.heap(), cache.region()) {
            return None;
        }
        let (mut backoff, sleepers) = (Backoff::new(), AtomicU32::new(0));
        for _ in 0..MOST_PAUSES {
            if depot.seize(None) {
                return Some(depot);
            }
            if depot.passes(0) {
                return None;
            }
            backoff.pause(&sleepers);
        }
        None
    }

    // ---- taking a cache ----------------------------------------------------------------------------------------

    /// Whether the thread has no cache, and may have one of this heap.
    pub(crate) fn may_attach(&self) -> bool {
        self.bypassed.load(Ordering::Relaxed) == 0 && registry::may_take(word::get())
    }

    /// Takes a cache for this thread. `home` says whose payloads it holds, given the number of the heap.
    pub(crate) fn attach(&self, region: usize, home: impl FnOnce(usize) -> Home) -> Option<&'static Cache> {
        if self.heap() == 0 {
            let _registry = registry::lock();
            if self.heap() == 0 {
                let number = next_number();
                self.pass.store(number, Ordering::Relaxed);
                self.heap.store(number, Ordering::Relaxed);
                self.reopen();
            }
        }
        let cache = registry::take(self.heap(), region)?;
        let (home, pass) = (home(self.heap()), || self.pass.load(Ordering::Relaxed));
        cache.open(&home, pass(), LEAST_BUDGET);
        registry::share(self.heap(), region, |depot| depot.open(&home, pass(), 0));
        word::set(cache);
        Some(cache)
    }

    /// The heap's secret, which is `new` if it has none yet.
    pub(crate) fn secret(&self, new: u64) -> u64 {
        match self.secret.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => new,
            Err(known) => known,
        }
    }

    /// Adjusts a cache's budget to the bytes in use and the number of caches.
    pub(crate) fn adjust(&self, cache: &Cache, used: usize) {
        let caches = registry::of_heap(self.heap()).count().max(1);
        cache.resize((used / SHARE / caches).clamp(LEAST_BUDGET, MOST_BUDGET));
    }

    // ---- stopping others ---------------------------------------------------------------------------------------

    /// Closes the gate and waits until nobody has entered a cache. `None` if there are no caches, this thread has
    /// entered its own (and a signal handler has interrupted it), or the process may not stop its threads; in the last
    /// case they are asked to empty their caches in their next calls.
    pub(crate) fn stop(&self) -> Option<Stopped<'_>> {
        if self.heap() == 0 || self.own().is_some_and(Cache::is_busy) {
            return None;
        }
        self.stop_with(registry::lock())
    }

    /// [`stop`](Self::stop), unless the registry is locked.
    pub(crate) fn try_stop(&self) -> Option<Stopped<'_>> {
        if self.heap() == 0 { None } else { self.stop_with(registry::try_lock()?) }
    }

    fn stop_with(&self, registry: Guard<'static, ()>) -> Option<Stopped<'_>> {
        let stopped = Stopped { caches: self, _registry: registry };
        if self.close() {
            return Some(stopped);
        }
        self.pass.store(next_number(), Ordering::Relaxed);
        None
    }

    /// Closes the gate and waits. False if the process may not stop its threads.
    fn close(&self) -> bool {
        self.gate.store(CLOSED, Ordering::SeqCst);
        if !barrier::pass_barrier() {
            return false;
        }
        let (mut backoff, sleepers) = (Backoff::new(), AtomicU32::new(0));
        let is_busy = || registry::of_heap(self.heap()).any(Cache::is_busy);
        for _ in 0..MOST_PAUSES {
            if !is_busy() {
                break;
            }
            backoff.pause(&sleepers);
        }
        true
    }

    /// Opens the gate, unless every call must reach the heap.
    fn reopen(&self) {
        let open = self.heap() != 0 && self.bypassed.load(Ordering::Relaxed) == 0;
        let gate = if open { self.pass.load(Ordering::Relaxed) } else { CLOSED };
        self.gate.store(gate, Ordering::Release);
    }

    /// Sends every call to the heap while `reason` holds, which is asked now. Returns whether it does; then the caller
    /// empties the caches.
    pub(crate) fn bypass(&self, reason: Bypass, holds: impl FnOnce() -> bool) -> bool {
        let _registry = registry::lock();
        let holds = holds();
        let others = self.bypassed.load(Ordering::Relaxed) & !(reason as u8);
        self.bypassed.store(if holds { others | reason as u8 } else { others }, Ordering::Relaxed);
        self.reopen();
        holds
    }

    /// Runs `work`, in which this thread uses no cache.
    pub(crate) fn without<R>(work: impl FnOnce() -> R) -> R {
        struct Restore(&'static Cache);
        impl Drop for Restore {
            fn drop(&mut self) {
                word::set(self.0);
            }
        }
        let _restore = Restore(word::get());
        word::set(&word::REFUSED);
        work()
    }

    /// Gives up all caches: the heap is being dropped, so no other thread uses it.
    pub(crate) fn detach(&self) {
        if self.heap() != 0 {
            let _registry = registry::lock();
            self.gate.store(CLOSED, Ordering::Relaxed);
            self.forget_all();
        }
    }

    /// Takes all caches from their threads, with their payloads. The registry is locked, and the gate is closed.
    fn forget_all(&self) {
        for cache in registry::of_heap(self.heap()) {
            cache.admit(0);
            cache.forget();
            cache.heap.store(0, Ordering::Relaxed);
            if cache.shared.swap(false, Ordering::Relaxed) {
                cache.taken.store(false, Ordering::Relaxed);
            }
        }
        // The pass of a cache that is busy, and is not its thread's any more, shall never be that of the gate.
        self.pass.store(next_number(), Ordering::Relaxed);
    }

    // ---- fork --------------------------------------------------------------------------------------------------

    /// Closes the gate before a fork, so that the child finds all caches idle. Leaves it to a thread that holds the
    /// registry, and may be changing caches.
    pub(crate) fn before_fork(&self) {
        let idle = self.heap() != 0 && registry::is_locked_for_fork() && self.close();
        self.idle_in_fork.store(idle, Ordering::Relaxed);
    }

    /// Opens the gate after a fork. In the child, nobody holds the registry but this thread.
    pub(crate) fn after_fork(&self) {
        if registry::is_locked_for_fork() {
            self.reopen();
        }
    }

    /// In the child of a fork, empties the caches of threads that it does not have, by `empty`. Caches that may have
    /// been changed during the fork are left alone; their payloads stay in use.
    pub(crate) fn take_over(&self, mut empty: impl FnMut(&Cache)) {
        if !self.idle_in_fork.swap(false, Ordering::Relaxed) {
            return;
        }
        let own = registry::of_thread();
        for cache in registry::of_heap(self.heap()) {
            if !core::ptr::eq(cache, own) && !cache.is_busy() {
                self.keep_hits(cache);
                empty(cache);
                if cache.is_depot() {
                    cache.retire();
                } else {
                    registry::release(cache);
                }
            }
        }
    }

    // ---- for everybody -----------------------------------------------------------------------------------------

    /// Bytes of all cached payloads, and the allocations that caches have served.
    pub(crate) fn totals(&self) -> (usize, u64) {
        let heap = self.heap();
        if heap == 0 {
            return (0, 0);
        }
        let add = |sum: (usize, u64), cache: &Cache| {
            (sum.0.saturating_add(cache.bytes()), sum.1.wrapping_add(cache.hits()))
        };
        registry::of_heap(heap).fold((0, self.past_hits.load(Ordering::Relaxed)), add)
    }

    /// Adds the hits of a cache whose owner ends to those of the heap.
    pub(crate) fn keep_hits(&self, cache: &Cache) {
        self.past_hits.fetch_add(cache.take_hits(), Ordering::Relaxed);
    }

    /// Whether a cache may hold payloads.
    pub(crate) fn may_hold(&self) -> bool {
        self.heap() != 0 && self.bypassed.load(Ordering::Relaxed) == 0
    }

    /// Whether a payload of `n` granules at granule `at` of a region is in a cache.
    pub(crate) fn contains(&self, region: usize, at: usize, n: usize) -> bool {
        let (heap, Ok(at)) = (self.heap(), u32::try_from(at)) else { return false };
        heap != 0 && registry::of_heap(heap).any(|cache| cache.region() == region && cache.contains(at, n))
    }
}

/// The gate is closed, and nobody is in a cache, until this is dropped.
pub(crate) struct Stopped<'a> {
    caches: &'a Caches,
    _registry: Guard<'static, ()>,
}

impl Stopped<'_> {
    /// The caches that nobody has entered.
    pub(crate) fn caches(&self) -> impl Iterator<Item = &'static Cache> {
        registry::of_heap(self.caches.heap()).filter(|cache| !cache.is_busy())
    }

    /// Takes the caches from their threads: what they knew of the heap's regions is no longer true.
    pub(crate) fn forget(&self) {
        self.caches.forget_all();
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.caches.reopen();
    }
}
