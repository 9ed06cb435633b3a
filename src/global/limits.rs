//! Memory limits: `trim`, `set_limit`, the low-memory callback, huge pages, and zeroed growth.

use super::low_memory::{InCallback, LowMemory};
use super::{Guarded, SmallocGlobal};
use crate::calls;
use crate::free_list::FreeList;
use crate::heap::Purge;
use crate::recording::{Call, Record};
use crate::threads::lock::Guard;
use core::alloc::{GlobalAlloc, Layout};

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

    /// Purges all free memory and returns the bytes given back to the system.
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
            sum.saturating_add(calls::purge(self.enter_slow(region).wait_until_idle(), Purge::ALL))
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
        for (region, heap) in self.lock_all().iter_mut().enumerate() {
            most = heap.set_limit(bytes).max(most);
            self.record(region, heap.lock(), || Record::new(Call::Limit, bytes, None));
        }
        most
    }

    /// Sets a callback for requests that do not fit, or removes it. The requesting thread calls it without the heap's
    /// lock, so it may allocate and free. If it returns true, the request is retried once.
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

    /// Calls the low-memory callback without the lock. With a result, the caller retries and keeps it until it is done.
    #[cold]
    pub(super) fn call_low_memory<'a>(
        &'a self,
        guard: Guard<'a, Guarded<L>>,
        size: usize,
        align: usize,
    ) -> (Guard<'a, Guarded<L>>, Option<InCallback<'a>>) {
        match Layout::from_size_align(size, align) {
            Ok(layout) if self.low_memory.is_set() => guard.unlocked(|| self.low_memory.call(layout)),
            _ => (guard, None),
        }
    }
}
