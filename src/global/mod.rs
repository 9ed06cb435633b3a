//! The door: a layout comes in, a pointer or null goes out.
//!
//! Under the lock only bookkeeping is done: zeroing and copying happen outside of it, on memory that belongs to the
//! caller alone.

mod failures;
mod fork;
mod limits;
mod long_way;
mod low_memory;
mod measure;
mod publish;
mod record;
mod remote_free;
mod resize;
mod statistics;

pub use low_memory::LowMemory;

use crate::checkers;
use crate::debugger;
use crate::free_list::{Fit, FreeList, Indexed};
use crate::heap::{MallocStatus, Missed, Owed};
use crate::recording::{Call, Record, Recorder};
use crate::region::{Granule, InitError};
use crate::system::errno;
use crate::threads::fork_table;
use crate::threads::lock::{Guard, Lock};
use crate::threads::regions::Regions;
use crate::threads::shared::Heap;
use crate::unlocked::{purge_if_due, settled};
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use failures::Reporting;
use low_memory::Relief;
use publish::Published;

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
///
/// # Several regions
///
/// One region has one lock, for which threads wait. `SmallocGlobal<Indexed, 4>` has four regions side by side, each
/// with all that belongs to it. A thread allocates from its home, and from the others when that is full; a payload is
/// freed where it lies. Homes are dealt in the order in which threads first need one, and what a thread had that has
/// ended goes to the next. In each region, placement is first fit and a function of the calls that reached it.
///
/// ```
/// use smalloc::{Indexed, SmallocGlobal};
///
/// static HEAP: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(64 << 20);
/// HEAP.init()?;
/// assert_eq!(HEAP.stats().region_size, 4 * (64 << 20));
/// # Ok::<(), smalloc::InitError>(())
/// ```
// In this order, the first lock is where the value is, and what every call needs lies close behind it.
#[repr(C)]
pub struct SmallocGlobal<L: FreeList = Indexed, const REGIONS: usize = 1> {
    regions: Regions<L, REGIONS>,
    /// The address at which the heap is covered against `fork`, or why there is none: see `fork`.
    covered_at: AtomicUsize,
    between: Between,
    relief: Relief,
    reporting: Reporting,
    /// Taken by who holds a heap's lock, as is the next.
    live: Lock<Option<Published<REGIONS>>>,
    recorder: Lock<Recorder>,
}

/// From this size on, in bytes, a free in another region takes the lock if it can: what is handed over to a region that
/// nobody uses any more stays there, and that should not be much.
const LARGE: usize = 64 << 10;
/// Smaller requests for zeroed memory, in bytes, are cleared without a look at what is zero: they hold no whole page or one.
const CLEARED_WHOLE: usize = 8 << 10;

/// What happens between several regions, which none of them knows.
struct Between {
    /// Requests that no region could place, and the size of the last of them.
    failures: AtomicU64,
    last_failed_size: AtomicUsize,
    /// Calls of `realloc` that moved to another region.
    moved: AtomicU64,
}

/// Where a request was placed, in a region whose lock is held.
struct Found<'a, L: FreeList> {
    region: usize,
    heap: Guard<'a, Heap<L>>,
    placement: Fit,
}

impl<L: FreeList> Found<'_, L> {
    fn status(&self) -> MallocStatus {
        MallocStatus { region: self.region, ..self.placement.into() }
    }
}

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// How many regions there are.
    pub const REGIONS: usize = REGIONS;

    /// A heap that reserves generously: for each region 32 GiB of address space, or what the environment variable
    /// `SMALLOC_REGION` says (bytes, or a number with `K`, `M` or `G`). Memory is taken only as it is used.
    #[must_use]
    pub const fn new() -> Self {
        Self::of(0)
    }

    /// A heap whose region has `bytes` bytes, or each of its regions, rounded up to whole pages: a hard bound. At least
    /// 64 KiB, at most 64 GiB less 2 MiB.
    #[must_use]
    pub const fn with_region_size(bytes: usize) -> Self {
        Self::of(if bytes == 0 { 1 } else { bytes })
    }

    /// A heap of regions that want `bytes` bytes each; 0 asks for as much as is sensible.
    const fn of(bytes: usize) -> Self {
        let between = Between {
            failures: AtomicU64::new(0),
            last_failed_size: AtomicUsize::new(0),
            moved: AtomicU64::new(0),
        };
        Self {
            regions: Regions::unmapped(bytes),
            covered_at: AtomicUsize::new(fork_table::UNTRIED),
            between,
            relief: Relief::new(),
            reporting: Reporting::unsaid(),
            live: Lock::new(None),
            recorder: Lock::new(Recorder::OFF),
        }
    }

    /// Maps the regions now, if they are not mapped.
    ///
    /// If the address space for them is refused, half of it is tried, and so on.
    ///
    /// # Errors
    /// The system refused even the smallest region. A later call may succeed.
    pub fn init(&self) -> Result<(), InitError> {
        errno::unchanged(|| {
            if !self.is_covered() {
                self.cover();
            }
            self.reporting.ask_environment();
            let log = Self::log_from_environment();
            self.regions.init()?;
            if self.is_covered() {
                for shared in self.regions.all() {
                    debugger::enter(ptr::from_ref(shared).addr(), &shared.heap.lock().parts());
                }
            }
            // A recording that somebody has begun in the meantime goes on.
            log.map(|log| self.begin(log));
            self.publish_for_environment();
            Ok(())
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
        let found = self.place(layout, Call::Smalloc);
        let payload = found.placement.start().map(|at| found.heap.region().pointer(at));
        if let Some(payload) = payload {
            checkers::given(payload, layout.size());
        }
        (payload, found.status())
    }

    /// Frees a payload, whose size need not be told, and joins it with its free neighbours.
    ///
    /// Anything but a payload in use writes one line to standard error and aborts.
    ///
    /// # Safety
    /// Nothing uses the payload any more.
    pub unsafe fn sfree(&self, payload: NonNull<u8>) {
        let payload = payload.as_ptr();
        let region = self.regions.number_of(payload);
        if REGIONS == 1 || region == self.regions.home_number() || !self.hand_over(region, payload, None) {
            self.free_locking(region, payload, None);
        }
    }

    /// Places a request at home, else in the other regions; maps them if they are not mapped.
    fn place(&self, layout: Layout, call: Call) -> Found<'_, L> {
        let home = self.regions.home_number();
        let found = self.place_in(home, layout, call);
        if found.placement.start().is_some() { found } else { self.place_elsewhere(found, layout, call) }
    }

    /// Places a request in the region of that number.
    #[inline]
    fn place_in(&self, region: usize, layout: Layout, call: Call) -> Found<'_, L> {
        let mut heap = self.lock(region);
        let placement = if call == Call::AllocZeroed {
            heap.place_zeroed(layout.size(), layout.align())
        } else {
            heap.place(layout.size(), layout.align())
        };
        self.note(region, &mut heap, || Record::request(call, layout, placement));
        self.show(region, &heap);
        if let Some(at) = placement.start() {
            heap = settled(heap, at, layout.size());
        }
        Found { region, heap, placement }
    }

    /// Places a request that found no place at home: because there were no regions yet, or in the others.
    #[cold]
    fn place_elsewhere<'a>(&'a self, found: Found<'a, L>, layout: Layout, call: Call) -> Found<'a, L> {
        let mut found = found;
        if found.heap.base().is_null() {
            let home = found.region;
            drop(found);
            if self.init().is_ok() {
                return self.place(layout, call);
            }
            found = self.place_in(home, layout, call);
        } else if REGIONS > 1 {
            for region in self.regions.numbers_from(found.region).skip(1) {
                // One lock at a time: only in the order of the regions may there be several.
                drop(found);
                found = self.place_in(region, layout, call);
                if found.placement.start().is_some() {
                    return found;
                }
            }
            self.between.failures.fetch_add(1, Ordering::Relaxed);
            self.between.last_failed_size.store(layout.size(), Ordering::Relaxed);
        }
        let (heap, asking) = self.ask_for_room(found.heap, layout);
        if asking.is_some() {
            drop(heap);
            return self.place(layout, call);
        }
        found.heap = if call == Call::Smalloc { heap } else { self.report(heap, layout) };
        found
    }

    /// Frees in another region than the thread's home.
    #[inline(never)]
    fn dealloc_elsewhere(&self, payload: *mut u8, layout: Layout) {
        if layout.size() >= LARGE
            && let Some(heap) = self.regions.get(self.regions.number_of(payload)).heap.try_lock_fast()
        {
            return give_back_any(heap, payload, layout);
        }
        self.dealloc_locking(payload, layout);
    }

    /// Frees where the lock was taken, or in another region than the thread's home.
    #[inline(never)]
    fn dealloc_locking(&self, payload: *mut u8, layout: Layout) {
        let region = self.regions.number_of(payload);
        if REGIONS == 1 || !self.hand_over(region, payload, Some(layout)) {
            self.free_locking(region, payload, Some(layout));
        }
    }

    /// Frees a payload in a region, by the long way.
    fn free_locking(&self, region: usize, payload: *mut u8, layout: Option<Layout>) {
        let mut heap = self.lock(region);
        self.free_in(region, &mut heap, payload, layout);
        purge_if_due(heap);
    }

    /// Frees a payload in a region whose lock is held, and may be watched.
    fn free_in(
        &self,
        region: usize,
        heap: &mut Guard<'_, Heap<L>>,
        payload: *mut u8,
        layout: Option<Layout>,
    ) {
        let Some(layout) = layout else {
            let (at, n) = heap.segment_at(payload, None);
            let bytes = Granule(n).bytes();
            self.note(region, heap, || Record::new(Call::Sfree, bytes, Some(at.bytes())));
            checkers::back(payload, bytes);
            heap.give_back(at, n);
            return self.show(region, heap);
        };
        let (at, n) = heap.segment_of(payload, layout);
        self.note(region, heap, || Record::free(Call::Dealloc, layout, at));
        checkers::back(payload, layout.size());
        heap.give_back(at, n);
        self.show(region, heap);
    }

    /// Takes the lock of the region of that number, and frees what was handed over to it.
    #[inline]
    fn lock(&self, region: usize) -> Guard<'_, Heap<L>> {
        self.cover_first();
        let mut heap = self.regions.get(region).heap.lock();
        self.free_waiting(region, &mut heap);
        heap
    }
}

/// Clears a small payload that was just placed.
#[inline]
fn cleared<L: FreeList>(heap: Guard<'_, Heap<L>>, at: Granule, layout: Layout) -> *mut u8 {
    let payload = heap.region().pointer(at);
    drop(heap);
    checkers::given_zeroed(payload, layout.size());
    // SAFETY: the payload was just allocated, with layout.size() bytes.
    unsafe { payload.write_bytes(0, layout.size()) };
    payload.as_ptr()
}

/// Does what a short way put off, as does the next: each kind has a call of its own, so that the compiler keeps the parts in
/// registers, and puts nothing together that is taken apart again.
#[inline(never)]
fn raise<L: FreeList>(mut heap: Guard<'_, Heap<L>>, chunk: usize, code: u8) {
    heap.settle(Owed::Raise { chunk, code });
}

#[inline(never)]
fn clear<L: FreeList>(mut heap: Guard<'_, Heap<L>>, from: usize, to: usize) {
    heap.settle(Owed::Clear { from, to });
    purge_if_due(heap);
}

/// Frees a segment of which one window does not show a free neighbour whole.
#[inline(never)]
fn give_back_seen<L: FreeList>(mut heap: Guard<'_, Heap<L>>, at: Granule, n: usize, below: u64, above: u64) {
    heap.give_back_seen(at, n, below, above);
    purge_if_due(heap);
}

/// Frees what one window does not show. Takes the guard itself, so that it stays in a register where it comes from.
#[inline(never)]
fn give_back_any<L: FreeList>(mut heap: Guard<'_, Heap<L>>, payload: *mut u8, layout: Layout) {
    let (at, n) = heap.segment_of_long(payload, layout);
    checkers::back(payload, layout.size());
    heap.give_back_here(at, n);
    purge_if_due(heap);
}

impl<L: FreeList, const REGIONS: usize> core::fmt::Debug for SmallocGlobal<L, REGIONS> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SmallocGlobal")
            .field("list", &L::NAME)
            .field("regions", &REGIONS)
            .finish_non_exhaustive()
    }
}

impl<L: FreeList, const REGIONS: usize> Default for SmallocGlobal<L, REGIONS> {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: a placed segment is of the size and alignment asked for, lies in memory that is mapped until the heap is
// dropped (R1), and overlaps no other segment in use (M1). No method unwinds: nothing here panics.
unsafe impl<L: FreeList, const REGIONS: usize> GlobalAlloc for SmallocGlobal<L, REGIONS> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let home = self.regions.home_number();
        let Some(mut heap) = self.regions.get(home).heap.try_lock_fast() else {
            return self.alloc_again(layout);
        };
        self.free_waiting(home, &mut heap);
        match heap.place_at_once(layout.size(), layout.align()) {
            Ok(at) => checkers::given(heap.region().pointer(at), layout.size()),
            Err(Missed::Looked) => self.alloc_searching(heap, layout),
            Err(Missed::Other) => self.alloc_any(heap, layout),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, payload: *mut u8, layout: Layout) {
        let home = self.regions.home_number();
        if REGIONS > 1 && self.regions.number_of(payload) != home {
            return self.dealloc_elsewhere(payload, layout);
        }
        let Some(mut heap) = self.regions.get(home).heap.try_lock_fast() else {
            return self.dealloc_locking(payload, layout);
        };
        let Some(short) = heap.segment_at_once(payload, layout) else {
            return give_back_any(heap, payload, layout);
        };
        checkers::back(payload, layout.size());
        match heap.give_back_at_once(short) {
            Some(Owed::Nothing) => {}
            Some(Owed::Raise { chunk, code }) => raise(heap, chunk, code),
            Some(Owed::Clear { from, to }) => clear(heap, from, to),
            None => give_back_seen(heap, short.at, short.n, short.below, short.above),
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() >= CLEARED_WHOLE {
            return self.alloc_zeroed_again(layout);
        }
        let home = self.regions.home_number();
        let Some(mut heap) = self.regions.get(home).heap.try_lock_fast() else {
            return self.alloc_zeroed_again(layout);
        };
        self.free_waiting(home, &mut heap);
        let place = match heap.place_at_once(layout.size(), layout.align()) {
            Ok(at) => Some(at),
            Err(missed) => heap.place_searching(layout.size(), layout.align(), missed).start(),
        };
        match place {
            Some(at) => cleared(heap, at, layout),
            None => self.alloc_zeroed_elsewhere(heap, layout),
        }
    }

    unsafe fn realloc(&self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let region = self.regions.number_of(payload);
        let Some(mut heap) = self.regions.get(region).heap.try_lock_fast() else {
            return self.realloc_again(region, payload, layout, new_size);
        };
        self.free_waiting(region, &mut heap);
        self.realloc_in::<false>(region, heap, payload, layout, new_size)
    }
}
