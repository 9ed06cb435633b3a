//! `SmallocGlobal`: a `GlobalAlloc` over one or more heaps, each behind a lock.
//!
//! Under a lock only bookkeeping is done: zeroing and copying happen outside of it, on memory that belongs to the caller
//! alone.

mod cross_region;
mod elsewhere;
mod failures;
mod fork;
mod held;
mod limits;
mod low_memory;
mod measure;
mod publish;
mod published;
mod record;
mod remote_free;
mod reporting;
mod statistics;

pub use low_memory::LowMemory;

use crate::calls;
use crate::debugger;
use crate::free_list::{FreeList, Indexed};
use crate::heap::MallocStatus;
use crate::recording::{Call, RecordError, Recorder};
use crate::region::InitError;
use crate::system::{environment, errno};
use crate::threads::fork_table;
use crate::threads::lock::Lock;
use crate::threads::regions::Regions;
use crate::threads::shared::Guarded;
use crate::watch::Request;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicUsize;
use cross_region::CrossRegion;
use low_memory::LowMemoryCallback;
use published::Published;
use reporting::Reporting;

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
    /// The address at which the heap is covered against `fork`, or why there is none: see `fork_table`.
    registered_at: AtomicUsize,
    cross_region: CrossRegion,
    low_memory: LowMemoryCallback,
    reporting: Reporting,
    /// Taken by who holds a heap's lock, as is the next.
    published: Lock<Option<Published<REGIONS>>>,
    recorder: Lock<Recorder>,
}

/// From this size on, in bytes, a free in another region takes the lock if it can: blocks that are handed over to a region
/// that nobody uses any more stay there, and that should not be much memory.
const LARGE: usize = 64 << 10;

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
        Self {
            regions: Regions::unmapped(bytes),
            registered_at: AtomicUsize::new(fork_table::NOT_ATTEMPTED),
            cross_region: CrossRegion::new(),
            low_memory: LowMemoryCallback::new(),
            reporting: Reporting::unset(),
            published: Lock::new(None),
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
            if !self.is_registered() {
                self.register();
            }
            environment::warn_unknown();
            self.reporting.ask_environment();
            let log = Self::log_from_environment();
            self.regions.init()?;
            if self.is_registered() {
                for shared in self.regions.all() {
                    debugger::enter(ptr::from_ref(shared).addr(), &shared.lock.lock().parts());
                }
            }
            // A recording that somebody has begun in the meantime goes on.
            if let Some(Err(error @ RecordError::System { .. })) = log.map(|log| self.begin(log)) {
                environment::RECORD.complain(format_args!("cannot record: {error} (make room for the file)"));
            }
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
        let placed = self.place(Request::new(Call::Smalloc, layout));
        let status = MallocStatus { region: placed.held.region(), ..placed.fit.into() };
        (placed.hand_out(), status)
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
            calls::free_slow(self.enter_slow(region), payload, None);
        }
    }
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
        match self.enter_drained(self.regions.home_number()) {
            Some(held) => calls::alloc::<_, _, false>(held, layout),
            None => self.alloc_slow::<false>(layout),
        }
    }

    #[inline]
    unsafe fn dealloc(&self, payload: *mut u8, layout: Layout) {
        let home = self.regions.home_number();
        if REGIONS > 1 && self.regions.number_of(payload) != home {
            return self.dealloc_elsewhere(payload, layout);
        }
        match self.enter(home) {
            Some(held) => calls::free(held, payload, layout),
            None => self.dealloc_slow(payload, layout),
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match self.enter_drained(self.regions.home_number()) {
            Some(held) => calls::alloc::<_, _, true>(held, layout),
            None => self.alloc_slow::<true>(layout),
        }
    }

    unsafe fn realloc(&self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let region = self.regions.number_of(payload);
        match self.enter_drained(region) {
            // SAFETY: the caller's promise.
            Some(held) => unsafe { calls::realloc(held, payload, layout, new_size) },
            // SAFETY: the caller's promise.
            None => unsafe { self.realloc_slow(region, payload, layout, new_size) },
        }
    }
}
