//! How much memory the heap takes: giving back, a limit, asking the program for room, zeros that need not be written.

use super::low_memory::{InCallback, LowMemory};
use super::{Guarded, SmallocGlobal};
use crate::calls;
use crate::free_list::FreeList;
use crate::heap::Purge;
use crate::recording::{Call, Record};
use crate::threads::lock::Guard;
use core::alloc::{GlobalAlloc, Layout};

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// As [`realloc`](GlobalAlloc::realloc), and what the payload grows by is zero. Pages that are known to be zero are
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
        // Whoever watches is told call by call, of calls that every heap has.
        if held.guard.lock().is_slow() {
            drop(held);
        } else if calls::resize_zeroed(held, payload, layout, new_size) {
            return payload;
        }
        // SAFETY: what grows is not empty.
        let alloc = |heap: &mut &Self, layout| unsafe { heap.alloc_zeroed(layout) };
        // SAFETY: the caller's promise.
        let free = |heap: &mut &Self, payload, layout| unsafe { heap.dealloc(payload, layout) };
        // SAFETY: the caller's promise; what is allocated has the layout that it was asked for.
        unsafe { calls::move_by(self, payload, layout, new_size, alloc, free) }
    }

    /// Gives everything back to the system that is free, and says how many bytes.
    ///
    /// These are all whole pages of free segments that have been in use since they were last given back. They are zero
    /// then. Other threads may go on meanwhile; one whose request is placed where memory is on its way waits for that.
    /// What the system refuses, because the program has locked it, stays. Without this call the heap does the same by itself,
    /// later and with less zeal.
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
        (0..REGIONS).fold(0, |sum: usize, region| {
            sum.saturating_add(calls::purge(self.enter_slow(region).idle(), Purge::ALL))
        })
    }

    /// Keeps everything that is placed from now on within the first `bytes` bytes of the region, or of each: [`top`](crate::Stats::top) does
    /// not rise above them, whichever thread asks. More than the region has lifts the limit.
    ///
    /// Nothing moves: where top lies above `bytes` now, it is the limit. Returns the limit in bytes, a multiple of 16;
    /// of several regions, the highest of theirs.
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
            self.note(region, heap.lock(), || Record::new(Call::Limit, bytes, None));
        }
        most
    }

    /// Has a function called when a request finds no room, or none. It is called by the thread that asks, without the
    /// heap's lock: it may free, and allocate. If it returns true, the request is tried once more.
    ///
    /// The function must not panic: no allocator may, and it ends the process with one line. A request that fails inside of it
    /// fails at once. Several threads may be in it at the same time, and
    /// the program may hold any lock of its own when it allocates: take such locks by `try_lock`.
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

    /// Asks the system to back the region with huge pages (`MADV_HUGEPAGE`), or not to (`MADV_NOHUGEPAGE`). False where it
    /// refuses: it may be built without them, or the region cannot be mapped. Without this call it does as it does for all memory.
    ///
    /// Huge pages save page faults and translations of addresses in large heaps. They cost memory: of 2 MiB in which one
    /// byte is used, all are taken, and what was given back in small pieces may be taken again.
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

    /// Asks the program for room, without the lock. With a result, it is worth another try, as long as that lives.
    #[cold]
    pub(super) fn ask_for_room<'a>(
        &'a self,
        guard: Guard<'a, Guarded<L>>,
        size: usize,
        align: usize,
    ) -> (Guard<'a, Guarded<L>>, Option<InCallback<'a>>) {
        match Layout::from_size_align(size, align) {
            Ok(layout) if self.low_memory.is_set() => guard.unlocked(|| self.low_memory.ask(layout)),
            _ => (guard, None),
        }
    }
}
