//! `SmallocGlobal`: `GlobalAlloc` over one or more locked heaps.
//!
//! Only bookkeeping is done under a lock. Payloads are zeroed and copied outside of it, by their only owner.

mod caching;
mod cross_region;
mod elsewhere;
mod failures;
mod files;
mod fork;
mod held;
mod idle;
mod idle_regions;
mod limits;
mod low_memory;
mod measure;
mod memory;
mod publish;
mod published;
mod record;
mod remote_free;
mod reporting;
mod reserve;
mod scope;
mod settings;
mod sites;
mod statistics;
mod thread_measure;
mod unload;
mod without_layout;

pub use low_memory::LowMemory;

use crate::calls;
use crate::debugger;
use crate::free_list::{FreeList, Indexed};
use crate::heap::MallocStatus;
use crate::recording::{Call, RecordError, Recorder};
use crate::region::InitError;
use crate::system::{environment, errno};
use crate::threads::caches::Caches;
use crate::threads::fork_table::Registration;
use crate::threads::lock::Lock;
use crate::threads::regions::Regions;
use crate::threads::shared::Guarded;
use crate::watch::Request;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, AtomicUsize};
use cross_region::CrossRegion;
use files::Files;
use idle_regions::IdleRegions;
use low_memory::LowMemoryCallback;
use published::Published;
use reporting::Reporting;

/// A first-fit heap that any thread may use, for `#[global_allocator]`.
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
/// A `SmallocGlobal` in a `static` also survives `fork` in a program with threads: its locks are taken before the fork
/// and released after it, in both processes.
///
/// # Several regions
///
/// One region has one lock, for which threads wait. `SmallocGlobal<Indexed, 4>` has four regions side by side, each a
/// heap with a lock of its own. A thread allocates in its home region, and in the others when that one is full; a
/// payload is freed in the region where it lies. Homes are assigned in the order in which threads first allocate, and
/// the home of a thread that ended is assigned next. In each region, placement is first fit in the order of its calls.
///
/// ```
/// use smalloc::{Indexed, SmallocGlobal};
///
/// static HEAP: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(64 << 20);
/// HEAP.init()?;
/// assert_eq!(HEAP.stats().region_size, 4 * (64 << 20));
/// # Ok::<(), smalloc::InitError>(())
/// ```
// `repr(C)` keeps the first lock at the start, with the fields that every call needs close behind it.
#[repr(C)]
pub struct SmallocGlobal<L: FreeList = Indexed, const REGIONS: usize = 1> {
    regions: Regions<L, REGIONS>,
    registration: Registration,
    cross_region: CrossRegion,
    idle: IdleRegions,
    low_memory: LowMemoryCallback,
    reporting: Reporting,
    /// Locked only while holding a heap's lock, like `recorder`.
    published: Lock<Option<Published<REGIONS>>>,
    /// Threads that are being measured. Written with all locks held.
    measured_threads: AtomicUsize,
    recorder: Lock<Recorder>,
    #[cfg(feature = "sites")]
    sites: sites::CallSites,
    /// Filled only by [`Cached`](crate::Cached).
    pub(crate) caches: Caches,
    files: Files,
    /// This is a forked child whose thread was inside a call; see `fork`.
    forked_inside: AtomicBool,
}

/// Bytes from which a remote free takes the region's lock, if it is free, instead of the queue. Queued blocks stay in a
/// region that no thread uses any more, so they should be small.
const LARGE_FREE: usize = 64 << 10;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Number of regions.
    pub const REGIONS: usize = REGIONS;

    /// A heap with regions of the default size: 32 GiB of address space each, or the value of the environment variable
    /// `SMALLOC_REGION` (bytes, or a number with `K`, `M` or `G`). Memory is committed only as it is used.
    #[must_use]
    pub const fn new() -> Self {
        Self::with_bytes(0)
    }

    /// A heap with regions of `bytes` bytes each, rounded up to whole pages and clamped to 64 KiB..=64 GiB - 2 MiB.
    #[must_use]
    pub const fn with_region_size(bytes: usize) -> Self {
        Self::with_bytes(if bytes == 0 { 1 } else { bytes })
    }

    /// Maps the first region at `address`, a multiple of 2 MiB, so that the same calls return the same addresses in
    /// every run: for simulations, for tests, and for programs that sort or hash by address.
    ///
    /// If that is impossible, because another mapping is in the way, nothing is mapped: [`init`](Self::init) returns
    /// the reason, and the first allocation writes it to standard error and fails. The environment variable
    /// `SMALLOC_BASE` does the same for the first heap of a process, which is then mapped elsewhere after a warning.
    ///
    /// The system places programs, libraries and stacks at random addresses near the ends of the address space. On
    /// x86-64 and on aarch64 with 48-bit addresses, `0x1000_0000_0000` is far from them.
    ///
    /// ```
    /// use smalloc::SmallocGlobal;
    ///
    /// #[global_allocator]
    /// static HEAP: SmallocGlobal = SmallocGlobal::new().at_base(0x1000_0000_0000);
    ///
    /// let number = Box::new(7);
    /// assert_eq!((&raw const *number).addr() >> 32, 0x1000);
    /// ```
    #[must_use]
    pub const fn at_base(mut self, address: usize) -> Self {
        self.regions.set_base(address);
        self
    }

    /// A heap with regions of `bytes` bytes each, 0 for the default size.
    const fn with_bytes(bytes: usize) -> Self {
        Self {
            regions: Regions::unmapped(bytes),
            registration: Registration::not_attempted(),
            cross_region: CrossRegion::new(),
            idle: IdleRegions::new(),
            low_memory: LowMemoryCallback::new(),
            reporting: Reporting::unset(),
            published: Lock::new(None),
            measured_threads: AtomicUsize::new(0),
            recorder: Lock::new(Recorder::OFF),
            #[cfg(feature = "sites")]
            sites: sites::CallSites::off(),
            caches: Caches::new(),
            files: Files::none(),
            forked_inside: AtomicBool::new(false),
        }
    }

    /// Maps the regions now, if they are not mapped yet.
    ///
    /// If the reservation fails, it is retried with half the size until it fits; [`stats`](Self::stats) has the result
    /// as `region_size`.
    ///
    /// # Errors
    /// The system refused even the smallest region. A later call may succeed.
    pub fn init(&self) -> Result<(), InitError> {
        self.map(None)
    }

    /// [`init`](Self::init) with a region size that is known only at run time: regions of `bytes` bytes each, rounded
    /// up to whole pages and clamped as by [`with_region_size`](Self::with_region_size). Regions that are mapped
    /// already keep their size.
    ///
    /// ```
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::new();
    ///
    /// let megabytes: usize = std::env::args().nth(1).map_or(Ok(16), |text| text.parse())?;
    /// HEAP.init_with_size(megabytes << 20)?;
    /// assert_eq!(HEAP.stats().region_size, megabytes << 20);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The system refused even the smallest region. A later call may succeed.
    pub fn init_with_size(&self, bytes: usize) -> Result<(), InitError> {
        self.map(Some(bytes.max(1)))
    }

    fn map(&self, bytes: Option<usize>) -> Result<(), InitError> {
        errno::unchanged(|| {
            if !self.is_registered() {
                self.register();
            }
            environment::warn_unknown();
            self.reporting.read_environment();
            let file = Self::file_from_environment();
            self.regions.init(bytes)?;
            if self.is_registered() {
                for shared in self.regions.all() {
                    debugger::add(ptr::from_ref(shared).addr(), &shared.lock.lock().parts());
                }
            }
            // Another thread may have begun a recording meanwhile; that one continues.
            if let Some(Err(error @ RecordError::System { .. })) = file.map(|file| self.begin_recording(file))
            {
                environment::RECORD.complain(format_args!("cannot record: {error} (make room for the file)"));
            }
            self.open_files();
            self.publish_for_environment();
            Ok(())
        })
    }

    /// Allocates first fit. Returns the payload with its offset and the cost of the search; `None` and a failure status
    /// if nothing fits.
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

    /// Frees a payload of any size and coalesces it with its free neighbours.
    ///
    /// A pointer that is not a payload in use writes one line to standard error and aborts.
    ///
    /// # Safety
    /// Nothing uses the payload any more.
    #[inline]
    pub unsafe fn sfree(&self, payload: NonNull<u8>) {
        let payload = payload.as_ptr();
        // Also in another thread's region: the payload may be large, so its lock is taken if it is free.
        match self.enter(self.regions.number_of(payload)) {
            Some(held) => calls::free(held, payload, None),
            None => self.free_slow(payload, None),
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

// SAFETY: a placed segment has the requested size and alignment, lies in memory that stays mapped until the heap is
// dropped (R1), and overlaps no other segment in use (M1). No method unwinds, because nothing panics.
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
            Some(held) => calls::free(held, payload, Some(layout)),
            None => self.free_slow(payload, Some(layout)),
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
            // SAFETY: guaranteed by the caller.
            Some(held) => unsafe { calls::realloc(held, payload, Some(layout), new_size) },
            // SAFETY: guaranteed by the caller.
            None => unsafe { self.realloc_slow(region, payload, Some(layout), new_size) },
        }
    }
}
