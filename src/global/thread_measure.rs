//! Measuring what a piece of code does on its own thread.
//!
//! A measured thread has a slot in a table of the process, which only this thread writes. While a measurement runs, the
//! heap's locks are slow, so that every call looks for a slot of its thread; at other times no call does.

use super::{Guarded, SmallocGlobal};
use crate::free_list::{Fit, FreeList};
use crate::heap::{Heap, granules};
use crate::inspect::ThreadMeasured;
use crate::recording::Call;
use crate::region::{Extent, GRANULE};
use crate::system::clock::sleep_ns;
use crate::threads::caches::Bypass;
use crate::threads::lock::{Lock, SlowReason, thread_token};
use crate::watch::{Free, Named, Request, Resize, Watch};
use core::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};

/// Threads that can be measured at a time. Further ones wait.
const SLOTS: usize = 256;
/// Pause between attempts to get a slot.
const WAIT_NS: u32 = 1_000_000;

/// The numbers of a measured thread on one heap. Only the thread itself writes them.
struct Slot {
    /// The thread's token; 0 if the slot is free.
    thread: AtomicUsize,
    /// The heap's address.
    heap: AtomicUsize,
    allocs: AtomicU64,
    frees: AtomicU64,
    reallocs: AtomicU64,
    requested: AtomicU64,
    /// Bytes allocated less bytes freed, and the most of them since the innermost measurement began.
    used: AtomicI64,
    peak: AtomicI64,
}

static TABLE: [Slot; SLOTS] = [const { Slot::free() }; SLOTS];

fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

impl Slot {
    const fn free() -> Self {
        Self {
            thread: AtomicUsize::new(0),
            heap: AtomicUsize::new(0),
            allocs: AtomicU64::new(0),
            frees: AtomicU64::new(0),
            reallocs: AtomicU64::new(0),
            requested: AtomicU64::new(0),
            used: AtomicI64::new(0),
            peak: AtomicI64::new(0),
        }
    }

    /// The calling thread's slot for a heap, if it is being measured there.
    fn own(heap: usize) -> Option<&'static Self> {
        let me = thread_token();
        let mine = |slot: &&Self| {
            slot.thread.load(Ordering::Relaxed) == me && slot.heap.load(Ordering::Relaxed) == heap
        };
        TABLE.iter().find(mine)
    }

    /// Takes a slot for the calling thread; waits while there is none.
    fn take(heap: usize) -> &'static Self {
        loop {
            let taken = |slot: &&Self| {
                slot.thread.compare_exchange(0, thread_token(), Ordering::Acquire, Ordering::Relaxed).is_ok()
            };
            if let Some(slot) = TABLE.iter().find(taken) {
                slot.used.store(0, Ordering::Relaxed);
                slot.heap.store(heap, Ordering::Relaxed);
                return slot;
            }
            sleep_ns(WAIT_NS);
        }
    }

    fn release(&self) {
        self.heap.store(0, Ordering::Relaxed);
        self.thread.store(0, Ordering::Release);
    }

    fn grew(&self, from: usize, to: usize) {
        let change = (to as i64).wrapping_sub(from as i64);
        let used = self.used.load(Ordering::Relaxed).wrapping_add(change);
        self.used.store(used, Ordering::Relaxed);
        self.peak.store(self.peak.load(Ordering::Relaxed).max(used), Ordering::Relaxed);
    }

    fn placed(&self, request: &Request) {
        let is_realloc = matches!(request.call, Call::Realloc);
        add(if is_realloc { &self.reallocs } else { &self.allocs }, 1);
        add(&self.requested, request.size as u64);
        self.grew(0, granules(request.size).wrapping_mul(GRANULE));
    }

    fn freed(&self, segment: Extent, named: Named) {
        // The call that moved a payload out has been counted.
        add(&self.frees, u64::from(!matches!(named, Named::MovedFrom(_))));
        self.grew(segment.bytes(), 0);
    }

    fn resized(&self, resize: &Resize) {
        add(&self.reallocs, 1);
        add(&self.requested, resize.new_size.saturating_sub(resize.layout.size()) as u64);
        self.grew(resize.segment.bytes(), granules(resize.new_size).wrapping_mul(GRANULE));
    }
}

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Runs `work` and returns its result with the calls that this thread made meanwhile. Calls of other threads do not
    /// count, also those that free what this thread allocated.
    ///
    /// Measurements may be nested and may overlap. While one runs, calls of all threads on this heap are slower. At
    /// most 256 threads of a process are measured at a time; further ones wait for these.
    ///
    /// ```
    /// # use smalloc::SmallocGlobal;
    /// #[global_allocator]
    /// static HEAP: SmallocGlobal = SmallocGlobal::new();
    ///
    /// let busy = std::thread::spawn(|| (0..1000).map(|n| n.to_string()).collect::<Vec<_>>());
    /// let (sum, measured) = HEAP.measure_thread(|| {
    ///     let squares: Vec<u64> = (0..100).map(|n| n * n).collect();
    ///     squares.iter().sum::<u64>()
    /// });
    /// assert_eq!((sum, measured.allocs, measured.frees), (328_350, 1, 1));
    /// assert_eq!((measured.used_bytes, measured.peak_growth), (0, 800));
    /// # busy.join().unwrap();
    /// ```
    pub fn measure_thread<R>(&self, work: impl FnOnce() -> R) -> (R, ThreadMeasured) {
        let mut measuring = Measuring::begin(self);
        let result = work();
        (result, measuring.end())
    }

    /// Whether the calling thread is being measured on this heap.
    pub(super) fn is_measuring_thread(&self) -> bool {
        self.measured_threads.load(Ordering::Relaxed) > 0 && Slot::own(self.address()).is_some()
    }

    /// Runs `work`, whose calls do not count: they belong to another thread.
    pub(super) fn unmeasured(&self, work: impl FnOnce()) {
        let own = self.measured_threads.load(Ordering::Relaxed) > 0;
        match own.then(|| Slot::own(self.address())).flatten() {
            Some(slot) => {
                slot.heap.store(0, Ordering::Relaxed);
                work();
                slot.heap.store(self.address(), Ordering::Relaxed);
            }
            None => work(),
        }
    }

    fn address(&self) -> usize {
        core::ptr::from_ref(self).addr()
    }

    /// Counts one thread more or less that is being measured. The first one makes the locks slow, the last one fast.
    fn count_measured(&self, more: bool) {
        let mut heaps = self.lock_all();
        let before = self.measured_threads.load(Ordering::Relaxed);
        let now = if more { before.saturating_add(1) } else { before.saturating_sub(1) };
        self.measured_threads.store(now, Ordering::Relaxed);
        heaps.iter_mut().for_each(|heap| heap.set_slow(SlowReason::Measurement, now > 0));
        drop(heaps);
        self.bypass_caches(Bypass::Measurement, || self.measured_threads.load(Ordering::Relaxed) > 0);
    }
}

/// A running measurement. Dropping it ends it, so that a panic leaves none behind.
struct Measuring<'a, L: FreeList, const REGIONS: usize> {
    global: &'a SmallocGlobal<L, REGIONS>,
    slot: &'static Slot,
    /// Whether another measurement of this thread surrounds this one.
    nested: bool,
    ended: bool,
    /// Bytes in use at the beginning, and the peak of the surrounding measurement.
    used: i64,
    outer_peak: i64,
    /// The counts at the beginning.
    counts: [u64; 4],
}

impl<'a, L: FreeList, const REGIONS: usize> Measuring<'a, L, REGIONS> {
    fn begin(global: &'a SmallocGlobal<L, REGIONS>) -> Self {
        let own = Slot::own(global.address());
        let slot = own.unwrap_or_else(|| Slot::take(global.address()));
        if own.is_none() {
            global.count_measured(true);
        }
        let used = slot.used.load(Ordering::Relaxed);
        let outer_peak = slot.peak.load(Ordering::Relaxed);
        slot.peak.store(used, Ordering::Relaxed);
        let counts = counts(slot);
        Self { global, slot, nested: own.is_some(), ended: false, used, outer_peak, counts }
    }

    fn end(&mut self) -> ThreadMeasured {
        self.ended = true;
        let slot = self.slot;
        let (used, peak) = (slot.used.load(Ordering::Relaxed), slot.peak.load(Ordering::Relaxed));
        let [allocs, frees, reallocs, requested] = counts(slot);
        let [allocs_before, frees_before, reallocs_before, requested_before] = self.counts;
        if self.nested {
            slot.peak.store(peak.max(self.outer_peak), Ordering::Relaxed);
        } else {
            slot.release();
            self.global.count_measured(false);
        }
        ThreadMeasured {
            allocs: allocs.wrapping_sub(allocs_before),
            frees: frees.wrapping_sub(frees_before),
            reallocs: reallocs.wrapping_sub(reallocs_before),
            requested: requested.wrapping_sub(requested_before),
            used_bytes: used.wrapping_sub(self.used) as isize,
            peak_growth: peak.saturating_sub(self.used) as usize,
        }
    }
}

impl<L: FreeList, const REGIONS: usize> Drop for Measuring<'_, L, REGIONS> {
    fn drop(&mut self) {
        if !self.ended {
            self.end();
        }
    }
}

fn counts(slot: &Slot) -> [u64; 4] {
    [&slot.allocs, &slot.frees, &slot.reallocs, &slot.requested].map(|count| count.load(Ordering::Relaxed))
}

/// Watches a region's calls for the measurement of the calling thread.
pub(super) struct MeasureWatch<'a, L: FreeList, const REGIONS: usize, const SLOW: bool> {
    pub(super) global: &'a SmallocGlobal<L, REGIONS>,
    pub(super) lock: &'a Lock<Guarded<L>>,
}

impl<L: FreeList, const REGIONS: usize, const SLOW: bool> MeasureWatch<'_, L, REGIONS, SLOW> {
    #[inline(always)]
    fn count(&self, count: impl FnOnce(&Slot)) {
        if SLOW
            && self.lock.is_slow()
            && self.global.measured_threads.load(Ordering::Relaxed) > 0
            && let Some(slot) = Slot::own(self.global.address())
        {
            count(slot);
        }
    }
}

impl<L: FreeList, const REGIONS: usize, const SLOW: bool> Watch<L> for MeasureWatch<'_, L, REGIONS, SLOW> {
    #[inline(always)]
    fn placed(&mut self, _heap: &Heap<L>, request: &Request, fit: Fit) {
        if fit.start().is_some() {
            self.count(|slot| slot.placed(request));
        }
    }

    #[inline(always)]
    fn freeing(&mut self, _heap: &mut Heap<L>, segment: Extent, named: Named) -> Free {
        self.count(|slot| slot.freed(segment, named));
        Free::Now
    }

    #[inline(always)]
    fn resized(&mut self, _heap: &Heap<L>, resize: &Resize) {
        self.count(|slot| slot.resized(resize));
    }
}
