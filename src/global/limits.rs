//! Memory limits: `trim`, `set_limit`, the low-memory callback, huge pages, and zeroed growth.

use super::SmallocGlobal;
use super::low_memory::LowMemory;
use crate::calls::{self, Held};
use crate::free_list::FreeList;
use crate::heap::Purge;
use core::alloc::{GlobalAlloc, Layout};
use core::time::Duration;

/// Calls of the low-memory callback for one request: a bound for callbacks that free memory and take it again.
const MAX_CALLS: usize = 1 << 16;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// [`realloc`](GlobalAlloc::realloc) that zeroes the bytes by which the payload grows. Pages known to be zero are
    /// not touched. A payload that moves counts as allocated and freed.
    ///
    /// # Safety
    /// As for [`realloc`](GlobalAlloc::realloc).
    ///
    /// ```
    /// # use core::alloc::{GlobalAlloc, Layout};
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::with_region_size(1 << 24);
    /// let block = unsafe { HEAP.alloc_zeroed(Layout::new::<[u8; 1000]>()) };
    /// let block = unsafe { HEAP.realloc_zeroed(block, Layout::new::<[u8; 1000]>(), 1 << 20) };
    /// assert!(unsafe { core::slice::from_raw_parts(block, 1 << 20) }.iter().all(|&byte| byte == 0));
    /// ```
    pub unsafe fn realloc_zeroed(&self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let held = self.enter_slow(self.regions.number_of(payload));
        // Recordings have no such call, so watchers see the calls it consists of.
        if held.guard.lock().is_slow() {
            drop(held);
        } else if calls::resize_zeroed(held, payload, layout, new_size) {
            return payload;
        }
        // SAFETY: the payload grows, so its size is not 0.
        let alloc = |heap: &mut &Self, layout| unsafe { heap.alloc_zeroed(layout) };
        // SAFETY: guaranteed by the caller.
        let free = |heap: &mut &Self, payload, layout| unsafe { heap.dealloc(payload, layout) };
        // SAFETY: guaranteed by the caller; `alloc` returns a payload of the layout that it was given.
        unsafe { calls::move_by(self, payload, layout, new_size, alloc, free) }
    }

    /// Purges all free memory and returns the number of those bytes.
    ///
    /// These are the whole pages of free segments that have been in use since they were last purged; they read as zero
    /// afterwards. Other threads may use the heap meanwhile; a request placed in a range that is being purged waits for
    /// it. Pages that the system refuses, because the program has locked them, stay. Without this call the heap purges
    /// on its own, later and less aggressively.
    ///
    /// ```
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::with_region_size(1 << 24);
    /// # use core::alloc::{GlobalAlloc, Layout};
    /// let layout = Layout::new::<[u8; 1 << 20]>();
    /// let block = unsafe { HEAP.alloc_zeroed(layout) };
    /// unsafe { HEAP.dealloc(block, layout) };
    /// let given_back = HEAP.trim();
    /// assert_eq!(given_back, if cfg!(feature = "hardened") { 0 } else { 1 << 20 });
    /// assert_eq!(HEAP.trim(), 0);
    /// ```
    pub fn trim(&self) -> usize {
        drop(self.empty_caches());
        (0..REGIONS).fold(0, |sum: usize, region| {
            let (held, purged) = calls::purge(self.enter_slow(region).wait_until_idle(), Purge::ALL);
            held.leave_checked();
            sum.saturating_add(purged)
        })
    }

    /// Limits placement to the first `bytes` bytes of each region: [`top`](crate::Stats::top) does not rise above them,
    /// whichever thread allocates. A value above the region size removes the limit.
    ///
    /// Nothing moves: if top is above `bytes` now, top becomes the limit. Returns the limit in bytes, a multiple of 16;
    /// with several regions, the highest of their limits.
    ///
    /// ```
    /// # use core::alloc::{GlobalAlloc, Layout};
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::with_region_size(1 << 24);
    /// HEAP.set_limit(1 << 20);
    /// let block = unsafe { HEAP.alloc(Layout::new::<[u8; 1 << 21]>()) };
    /// assert!(block.is_null());
    /// ```
    pub fn set_limit(&self, bytes: usize) -> usize {
        let mut most = 0;
        for (region, heap) in self.lock_all().iter_mut().enumerate().take(self.regions.count()) {
            most = self.set_limit_of(region, heap, bytes).max(most);
        }
        most
    }

    /// Sets a callback for requests that do not fit, or removes it. The requesting thread calls it without the heap's
    /// lock, so it may allocate and free. If it returns true, the request is retried; if the request still does not
    /// fit, the callback is called again, so it may free a little at a time.
    ///
    /// The request fails when the callback returns false, when it returns true but nothing was freed, when no region
    /// could hold the request even if it were empty, and after 65,536 calls.
    ///
    /// The callback must not panic: a panic ends the process with one line, because it must not unwind through an
    /// allocator. A request that fails inside it fails at once. Several threads may be in it at the same time, and the
    /// program may hold any of its own locks when it allocates, so take such locks by `try_lock`.
    ///
    /// ```
    /// # use core::alloc::{GlobalAlloc, Layout};
    /// use core::sync::atomic::{AtomicPtr, Ordering};
    ///
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::with_region_size(1 << 20);
    /// static CACHE: AtomicPtr<u8> = AtomicPtr::new(core::ptr::null_mut());
    /// const LARGE: Layout = Layout::new::<[u8; 700 << 10]>();
    ///
    /// fn drop_cache(_: Layout) -> bool {
    ///     let cache = CACHE.swap(core::ptr::null_mut(), Ordering::Relaxed);
    ///     if !cache.is_null() {
    ///         unsafe { HEAP.dealloc(cache, LARGE) };
    ///     }
    ///     !cache.is_null()
    /// }
    ///
    /// HEAP.on_low_memory(Some(drop_cache));
    /// CACHE.store(unsafe { HEAP.alloc(LARGE) }, Ordering::Relaxed);
    /// let block = unsafe { HEAP.alloc(LARGE) };
    /// assert!(!block.is_null() && CACHE.load(Ordering::Relaxed).is_null());
    /// ```
    pub fn on_low_memory(&self, function: Option<LowMemory>) {
        self.low_memory.set(function);
    }

    /// Asks the system to back the regions with huge pages (`MADV_HUGEPAGE`), or not to (`MADV_NOHUGEPAGE`). False if
    /// the system refuses, because it has no huge pages or the region cannot be mapped. Without this call the system's
    /// default applies.
    ///
    /// Huge pages save page faults and TLB misses in large heaps, but cost memory: one byte in use commits a whole 2
    /// MiB page, and memory purged in smaller pieces may be committed again.
    ///
    /// ```
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::new();
    /// if !HEAP.huge_pages(true) {
    ///     println!("the system has no huge pages");
    /// }
    /// ```
    pub fn huge_pages(&self, wanted: bool) -> bool {
        self.init().is_ok() && self.lock_all().iter_mut().all(|heap| heap.huge_pages(wanted))
    }

    /// Keeps memory that is idle, since use has fallen to a fraction, for `time`; [`Duration::ZERO`] restores the
    /// default, some thousand calls. A clock is then asked, at most once every 256 calls of a region.
    /// About 10 MiB of idle memory stay at either setting, also after `time`; [`trim`](Self::trim) returns it.
    ///
    /// While memory is idle all calls take the slow path, so a long time costs all calls some nanoseconds. Without
    /// calls nothing is returned.
    ///
    /// ```
    /// use core::time::Duration;
    ///
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::new();
    /// HEAP.decay(Duration::from_secs(10));
    /// ```
    pub fn decay(&self, time: Duration) {
        self.lock_all().iter_mut().for_each(|heap| heap.decay(time));
    }

    /// Commits memory for requests of `bytes` bytes in each region, rounding and alignment included, and keeps it: none
    /// of them makes a system call, unless it has to wait for another thread. For programs that enter a sandbox, and
    /// for real-time threads. False if a region or its limit is too small, or the system refuses.
    ///
    /// The bytes are those behind [`top`](crate::Stats::top); holes below come in addition. From now on, automatic
    /// purges leave at least `bytes` bytes of free memory in each region, and `realloc` copies large payloads instead
    /// of moving their pages. [`trim`](Self::trim) still returns the memory, and a request for more may still grow the
    /// heap.
    ///
    /// ```
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::new();
    /// assert!(HEAP.make_ready(64 << 20), "the sandbox needs 64 MiB");
    /// // Here the program would forbid itself `mprotect`.
    /// ```
    pub fn make_ready(&self, bytes: usize) -> bool {
        self.init().is_ok() && self.lock_all().iter_mut().all(|heap| heap.make_ready(bytes))
    }

    /// [`make_ready`](Self::make_ready) that also brings the memory into RAM, so that later requests cause no page
    /// faults in it. The bookkeeping, a fiftieth, is still faulted in as it is used.
    ///
    /// ```
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::new();
    /// assert!(HEAP.make_resident(16 << 20));
    /// ```
    pub fn make_resident(&self, bytes: usize) -> bool {
        self.init().is_ok() && self.lock_all().iter_mut().all(|heap| heap.make_resident(bytes))
    }

    /// Asks the callback for memory and retries, as long as it frees some. `None` if the request still does not fit.
    /// The caller holds no lock.
    #[cold]
    pub(super) fn ask_for_memory<R>(
        &self,
        size: usize,
        align: usize,
        mut retry: impl FnMut() -> Option<R>,
    ) -> Option<R> {
        let layout = Layout::from_size_align(size, align).ok()?;
        let callback = self.low_memory.enter()?;
        let mut before = self.freed_and_used();
        for _ in 0..MAX_CALLS {
            if !callback.call(layout) {
                return None;
            }
            let placed = callback.retry(&mut retry);
            if placed.is_some() {
                return placed;
            }
            let now = self.freed_and_used();
            let freed = now.0 != before.0 || now.1 < before.1;
            if !freed || !self.can_hold(size) {
                return None;
            }
            before = now;
        }
        None
    }

    /// Segments freed so far and bytes in use, in all regions. Frees that were queued are done first.
    fn freed_and_used(&self) -> (u64, usize) {
        (0..REGIONS).fold((0, 0), |(freed, used): (u64, usize), region| {
            let heap = self.enter_slow(region).guard;
            (freed.wrapping_add(heap.freed()), used.wrapping_add(heap.used_and_top().0))
        })
    }

    /// Whether a region could hold `size` bytes if it were empty.
    fn can_hold(&self, size: usize) -> bool {
        (0..REGIONS).any(|region| size <= self.enter_slow(region).guard.most_bytes())
    }
}
