//! The door: a layout comes in, a pointer or null goes out.
//!
//! Under the lock only bookkeeping is done: zeroing and copying happen outside of it, on memory that belongs to the
//! caller alone.

use crate::errno;
use crate::fork;
use crate::free_list::{FreeList, Indexed};
use crate::heap::{Corruption, MallocStatus, Missed, Purge};
use crate::inspect::{SegmentBuffer, Snapshot, SnapshotError, Stats};
use crate::lock::{Guard, Lock};
use crate::region::{Granule, InitError, now_ns};
use crate::relief::{LowMemory, Relief};
use crate::shadow;
use crate::unlocked::{self, Heap, purge_if_due, settled};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};

/// A first-fit heap that any thread may use: the global allocator.
///
/// The region is mapped at first use, or by [`init`](Self::init).
///
/// ```
/// use smalloc::SmallocGlobal;
///
/// #[global_allocator]
/// static HEAP: SmallocGlobal = SmallocGlobal::new();
///
/// let words: Vec<String> = "every box and string lives here now".split(' ').map(str::to_owned).collect();
/// let stats = HEAP.stats();
/// assert!(stats.live_segments > words.len());
/// println!("{stats}");
/// ```
///
/// A `SmallocGlobal` that is a `static` also survives `fork` in a program with threads: the lock is taken before and
/// released after, in both processes.
pub struct SmallocGlobal<L: FreeList = Indexed> {
    heap: Lock<Heap<L>>,
    /// The address at which the heap is covered against `fork`; 0 if it is not.
    covered_at: AtomicUsize,
    relief: Relief,
}

/// Attempts at a snapshot while other threads keep adding segments.
const SNAPSHOT_ATTEMPTS: usize = 8;
/// Smaller requests for zeroed memory, in bytes, are cleared without a look at what is zero: they hold no whole page or one.
const CLEARED_WHOLE: usize = 8 << 10;

impl<L: FreeList> SmallocGlobal<L> {
    /// A heap that reserves generously: 32 GiB of address space, or what the environment variable `SMALLOC_REGION`
    /// says (bytes, or a number with `K`, `M` or `G`). Memory is taken only as it is used.
    #[must_use]
    pub const fn new() -> Self {
        Self::of(0)
    }

    /// A heap whose region has `bytes` bytes, rounded up to whole pages: a hard bound. At least 64 KiB, at most 64 GiB
    /// less 2 MiB.
    #[must_use]
    pub const fn with_region_size(bytes: usize) -> Self {
        Self::of(if bytes == 0 { 1 } else { bytes })
    }

    /// A heap that wants a region of `bytes` bytes; 0 asks for as much as is sensible.
    const fn of(bytes: usize) -> Self {
        let heap = Lock::new(Heap::unmapped(bytes));
        Self { heap, covered_at: AtomicUsize::new(0), relief: Relief::new() }
    }

    /// Maps the region now, if it is not mapped.
    ///
    /// If the address space for it is refused, half of it is tried, and so on.
    ///
    /// # Errors
    /// The system refused even the smallest region. A later call may succeed.
    pub fn init(&self) -> Result<(), InitError> {
        errno::unchanged(|| {
            let address = ptr::from_ref(self).cast::<()>();
            if self.covered_at.load(Ordering::Relaxed) != address.addr()
                && fork::cover(address, Self::before_fork, Self::after_fork)
            {
                self.covered_at.store(address.addr(), Ordering::Relaxed);
            }
            self.heap.lock().init()
        })
    }

    /// Allocates first fit, and says where and at what cost. None, and a status that says so, when nothing fits.
    ///
    /// ```
    /// use core::alloc::Layout;
    /// use smalloc::{Linked, SmallocGlobal};
    ///
    /// static HEAP: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(1 << 16);
    /// HEAP.init()?;
    /// let (block, status) = HEAP.smalloc(Layout::new::<[u8; 128]>());
    /// assert_eq!((status.payload_offset, status.hops), (Some(0), 0));
    /// unsafe { HEAP.sfree(block.unwrap()) };
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub fn smalloc(&self, layout: Layout) -> (Option<NonNull<u8>>, MallocStatus) {
        let mut heap = self.heap.lock();
        let placement = heap.place(layout.size(), layout.align());
        let Some(at) = placement.start() else {
            return self.try_again(heap, layout, (None, placement.into()), || self.smalloc(layout));
        };
        let payload = settled(heap, at, layout.size()).region().pointer(at);
        shadow::given(payload, layout.size());
        (Some(payload), placement.into())
    }

    /// Frees a payload, whose size need not be told, and joins it with its free neighbours.
    ///
    /// Anything but a payload in use writes one line to standard error and aborts.
    ///
    /// # Safety
    /// Nothing uses the payload any more.
    pub unsafe fn sfree(&self, payload: NonNull<u8>) {
        let heap = self.heap.lock();
        let (at, n) = heap.segment_at(payload.as_ptr(), None);
        shadow::back(payload.as_ptr(), Granule(n).bytes());
        give_back(heap, at, n);
    }

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
        let heap = self.heap.lock();
        let segment = heap.segment_of(payload, layout);
        match unlocked::grown_zeroed(heap, segment, (layout.size(), new_size)) {
            Ok(()) => return payload,
            Err(heap) => drop(heap),
        }
        // SAFETY: the caller's promise: the size, rounded up to the alignment, does not exceed isize::MAX.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: what grows is not empty.
        let moved = unsafe { self.alloc_zeroed(new_layout) };
        if !moved.is_null() {
            // SAFETY: both payloads are in use and this thread's, so they do not overlap; the new one is the larger.
            unsafe { moved.copy_from_nonoverlapping(payload, layout.size()) };
            // SAFETY: the caller's promise.
            unsafe { self.dealloc(payload, layout) };
        }
        moved
    }

    /// Gives everything back to the system that is free, and says how many bytes.
    ///
    /// These are all whole pages of free segments that have been in use since they were last given back. They are zero
    /// then. Other threads may go on meanwhile; one whose request is placed where memory is on its way waits for that.
    /// Without this call the heap does the same by itself, later and with less zeal.
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
        unlocked::purge(unlocked::idle(&self.heap), Purge::ALL)
    }

    /// Keeps everything that is placed from now on within the first `bytes` bytes of the region: [`top`](Stats::top) does
    /// not rise above them, whichever thread asks. More than the region has lifts the limit.
    ///
    /// Nothing moves: where top lies above `bytes` now, it is the limit. Returns the limit in bytes, a multiple of 16.
    ///
    /// ```
    /// # use core::alloc::{GlobalAlloc, Layout};
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::with_region_size(1 << 24);
    /// HEAP.set_limit(1 << 20);
    /// let block = unsafe { HEAP.alloc(Layout::new::<[u8; 1 << 21]>()) };
    /// assert!(block.is_null());
    /// ```
    pub fn set_limit(&self, bytes: usize) -> usize {
        self.heap.lock().set_limit(bytes)
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
        self.init().is_ok() && self.heap.lock().huge_pages(wanted)
    }

    /// Has a function called when a request finds no room, or none. It is called by the thread that asks, without the
    /// heap's lock: it may free, and allocate. If it returns true, the request is tried once more.
    ///
    /// A request that fails inside of the function fails at once. Several threads may be in it at the same time, and
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
        self.relief.set(function);
    }

    /// All numbers of this instant. Allocates nothing.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats_of(&self.heap.lock())
    }

    /// The numbers of this instant, or none if another thread holds the lock. Never waits.
    #[must_use]
    pub fn try_stats(&self) -> Option<Stats> {
        self.heap.try_lock().map(|heap| self.stats_of(&heap))
    }

    fn stats_of(&self, heap: &Guard<'_, Heap<L>>) -> Stats {
        Stats { contended: self.heap.contended(), ..heap.stats() }
    }

    /// All segments of this instant, in memory that is not the heap's.
    ///
    /// The lock is held for as long as it takes to copy them, some nanoseconds each.
    ///
    /// # Errors
    /// The system gave no memory to copy them to, or other threads added segments faster than memory was added.
    pub fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        let mut capacity = 0;
        for _ in 0..SNAPSHOT_ATTEMPTS {
            let segments = self.heap.lock().segment_count();
            let room = segments.saturating_add(segments / 4).saturating_add(64);
            let mut buffer = SegmentBuffer::populated(room)
                .map_err(|errno| SnapshotError::NoMemory { segments, errno })?;
            capacity = buffer.capacity();
            let heap = self.heap.lock();
            let start = now_ns();
            if heap.copy_segments(&mut buffer) {
                let stats = self.stats_of(&heap);
                let held = now_ns().saturating_sub(start);
                drop(heap);
                return Ok(Snapshot::new(buffer, stats, held));
            }
        }
        Err(SnapshotError::GrewTooFast { capacity })
    }

    /// Walks all segments, the free list and its index, and compares the counters, with the lock held.
    ///
    /// # Errors
    /// The first invariant that does not hold, by name, and where.
    pub fn check(&self) -> Result<(), Corruption> {
        self.heap.lock().check()
    }

    /// After a request found no place: whether that was because there was no region, and there is one now.
    #[cold]
    fn maps_late(&self, heap: Guard<'_, Heap<L>>) -> bool {
        let unmapped = heap.base().is_null();
        drop(heap);
        unmapped && self.init().is_ok()
    }

    /// What comes of a request that found no place: `failed`, or what comes of it once there may be room, because
    /// there is a region now or the program has freed something.
    #[cold]
    fn try_again<R>(
        &self,
        heap: Guard<'_, Heap<L>>,
        layout: Layout,
        failed: R,
        again: impl FnOnce() -> R,
    ) -> R {
        if self.maps_late(heap) {
            return again();
        }
        let Some(_asking) = self.relief.ask(layout) else { return failed };
        again()
    }

    /// Allocates where the lock was taken, or where there was no region.
    #[cold]
    #[inline(never)]
    fn alloc_again(&self, layout: Layout) -> *mut u8 {
        let mut heap = self.heap.lock();
        match heap.place(layout.size(), layout.align()).start() {
            Some(at) => {
                let heap = settled(heap, at, layout.size());
                shadow::given(heap.region().pointer(at), layout.size())
            }
            None => self.try_again(heap, layout, ptr::null_mut(), || self.alloc_again(layout)),
        }
    }

    /// Allocates where the first look did not settle it.
    #[inline(never)]
    fn alloc_searching(&self, mut heap: Guard<'_, Heap<L>>, layout: Layout, missed: Missed) -> *mut u8 {
        match heap.place_searching(layout.size(), layout.align(), missed).start() {
            Some(at) => shadow::given(heap.region().pointer(at), layout.size()),
            None => self.try_again(heap, layout, ptr::null_mut(), || self.alloc_again(layout)),
        }
    }

    /// Frees where the lock was taken.
    #[cold]
    #[inline(never)]
    fn dealloc_locking(&self, payload: *mut u8, layout: Layout) {
        give_back_any(self.heap.lock(), payload, layout);
    }

    /// Locks the heap at an address for a fork, if it is there.
    ///
    /// # Safety
    /// A `SmallocGlobal<L>` was at that address, in memory that can be read, and this thread is about to fork.
    unsafe fn before_fork(address: *const ()) -> bool {
        // SAFETY: the caller's promise; what was moved away has left its bytes, which are atomics and numbers.
        let global = unsafe { &*address.cast::<Self>() };
        let there = global.covered_at.load(Ordering::Relaxed) == address.addr();
        if there {
            // SAFETY: after_fork is called by the same thread in both processes.
            unsafe { unlocked::lock_for_fork(&global.heap) };
        }
        there
    }

    /// Unlocks the heap at an address after a fork.
    ///
    /// # Safety
    /// `before_fork` has locked it on this thread.
    unsafe fn after_fork(address: *const ()) -> bool {
        // SAFETY: the caller's promise.
        let global = unsafe { &*address.cast::<Self>() };
        // SAFETY: this thread took the lock in before_fork.
        unsafe { global.heap.unlock_after_fork() };
        true
    }
}

impl<L: FreeList> Drop for SmallocGlobal<L> {
    fn drop(&mut self) {
        let address = self.covered_at.swap(0, Ordering::Relaxed);
        if address == ptr::from_ref(self).addr() {
            fork::uncover(ptr::from_ref(self).cast());
        }
    }
}

/// Frees a segment whose free neighbours one window does not show.
#[inline(never)]
fn give_back<L: FreeList>(mut heap: Guard<'_, Heap<L>>, at: Granule, n: usize) {
    heap.give_back(at, n);
    purge_if_due(heap);
}

/// Frees what one window does not show.
#[inline(never)]
fn give_back_any<L: FreeList>(mut heap: Guard<'_, Heap<L>>, payload: *mut u8, layout: Layout) {
    let (at, n) = heap.segment_of(payload, layout);
    shadow::back(payload, layout.size());
    heap.give_back(at, n);
    purge_if_due(heap);
}

impl<L: FreeList> core::fmt::Debug for SmallocGlobal<L> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SmallocGlobal").field("list", &L::NAME).finish_non_exhaustive()
    }
}

impl<L: FreeList> Default for SmallocGlobal<L> {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: a placed segment is of the size and alignment asked for, lies in memory that is mapped until the heap is
// dropped (R1), and overlaps no other segment in use (M1). No method unwinds: nothing here panics.
unsafe impl<L: FreeList> GlobalAlloc for SmallocGlobal<L> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(mut heap) = self.heap.try_lock_unwatched() else { return self.alloc_again(layout) };
        match heap.place_at_once(layout.size(), layout.align()) {
            Ok(at) => shadow::given(heap.region().pointer(at), layout.size()),
            Err(missed) => self.alloc_searching(heap, layout, missed),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, payload: *mut u8, layout: Layout) {
        let Some(mut heap) = self.heap.try_lock_unwatched() else {
            return self.dealloc_locking(payload, layout);
        };
        let Some(short) = heap.segment_at_once(payload, layout) else {
            return give_back_any(heap, payload, layout);
        };
        shadow::back(payload, layout.size());
        if !heap.give_back_at_once(short) {
            give_back(heap, short.at, short.n);
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() < CLEARED_WHOLE {
            // SAFETY: the caller's promise.
            let payload = unsafe { self.alloc(layout) };
            if !payload.is_null() {
                // SAFETY: the payload was just allocated, with layout.size() bytes.
                unsafe { payload.write_bytes(0, layout.size()) };
            }
            return payload;
        }
        let mut heap = self.heap.lock();
        let Some(at) = heap.place_zeroed(layout.size(), layout.align()).start() else {
            // SAFETY: the layout is the caller's.
            let again = || unsafe { self.alloc_zeroed(layout) };
            return self.try_again(heap, layout, ptr::null_mut(), again);
        };
        unlocked::zeroed(heap, at, layout)
    }

    unsafe fn realloc(&self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let mut heap = self.heap.lock();
        let (at, n) = heap.segment_of(payload, layout);
        if heap.resize(at, n, new_size) {
            let heap = settled(heap, at, new_size);
            shadow::resized(payload, layout.size(), new_size);
            purge_if_due(heap);
            return payload;
        }
        let Some(to) = heap.place(new_size, layout.align()).start() else {
            // SAFETY: the caller's promise: the size, rounded up to the alignment, does not exceed isize::MAX.
            let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
            // SAFETY: the payload is as it was.
            let again = || unsafe { self.realloc(payload, layout, new_size) };
            return self.try_again(heap, new_layout, ptr::null_mut(), again);
        };
        let heap = settled(heap, to, new_size);
        let moved = shadow::given(heap.region().pointer(to), new_size);
        drop(heap);
        // SAFETY: both segments are in use and this thread's, so they do not overlap; the new one is the larger.
        unsafe { moved.copy_from_nonoverlapping(payload, layout.size()) };
        let mut heap = self.heap.lock();
        shadow::back(payload, layout.size());
        heap.give_back_moved(at, n);
        purge_if_due(heap);
        moved
    }
}
