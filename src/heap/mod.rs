//! The heap's policy: search, split, coalesce, grow. Single-threaded; `SmallocGlobal` puts it behind a lock.
//!
//! ```text
//!  0                                                    top          ready            end
//!  | A | B |  hole  | C |hole| D |        hole       | E |  wilderness |   PROT_NONE  |
//! ```
//!
//! A request takes the lowest free segment that can hold it ([`Heap::place`]), what is left of that segment stays free,
//! and freeing joins both neighbours at once ([`Tiling::give`]). The wilderness above `top` is the last free segment; a
//! free segment that touches it becomes part of it by lowering `top`.
//!
//! Most calls take a few instructions, inline: requests of a few granules that fit where a first look points, and
//! segments whose neighbours one 64-bit window of the map shows whole. These are the `*_fast` functions. They decline
//! everything else, and the functions without a suffix do the same for any size. Both are one algorithm, and the tests hold
//! them against the same oracle.

mod check;
mod counters;
mod find;
mod grow;
mod lent;
mod limits;
mod misuse;
mod page_moves;
mod place;
mod purge;
mod purge_policy;
mod resize;
mod statistics;
mod status;
mod tiling;
mod usage;
mod walk;
mod zeroed;

pub use check::Corruption;
pub(crate) use grow::map_side_by_side;
pub(crate) use page_moves::LEAST_TRANSFER;
pub(crate) use place::Declined;
pub(crate) use purge::Purge;
pub use status::MallocStatus;

use crate::checkers;
use crate::free_list::{FreeList, Ground, Indexed};
use crate::pages::Pages;
use crate::region::{Extent, GRANULE, Granule, Region, Reservation};
use crate::segment_map::SegmentMap;
use crate::system::fatal::fatal;
use core::alloc::Layout;
use counters::Counters;
use purge_policy::PurgePolicy;
use tiling::Tiling;
use usage::OlderPeaks;

/// A first-fit heap of its own: one region, one thread at a time.
///
/// It is what [`SmallocGlobal`](crate::SmallocGlobal) guards with a lock, for tests, replays, and programs that want an
/// arena. The region is reserved when the heap is made and unmapped when it is dropped.
///
/// ```
/// use core::alloc::Layout;
/// use smalloc::{Heap, Indexed};
///
/// let mut heap = Heap::<Indexed>::with_region_size(1 << 20)?;
/// let layout = Layout::from_size_align(100, 8).unwrap();
/// let (block, status) = heap.smalloc(layout);
/// assert_eq!(status.payload_offset, Some(0));
/// unsafe { heap.sfree(block.unwrap()) };
/// assert_eq!(heap.stats().free_segments, 1);
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Debug)]
// In this order, what every call needs shares the first cache lines.
#[repr(C)]
pub struct Heap<L: FreeList = Indexed> {
    pub(crate) tiling: Tiling<L>,
    purge_policy: PurgePolicy,
    /// What is being purged right now; empty if nothing is.
    purging: Extent,
    /// The thread that does it.
    purging_by: usize,
    /// Top does not rise above this.
    limit: Granule,
    reservation: Reservation,
    older_peaks: OlderPeaks,
}

/// Granules that a request of `size` bytes takes: at least one.
#[inline(always)]
pub(crate) const fn granules(size: usize) -> usize {
    // A Layout's size is at most isize::MAX, so the sum does not wrap.
    let n = size.wrapping_add(GRANULE - 1) / GRANULE;
    if n == 0 { 1 } else { n }
}

/// The segment at `at` that holds `size` bytes.
#[inline(always)]
pub(crate) const fn segment(at: Granule, size: usize) -> Extent {
    Extent::of(at, granules(size))
}

/// Whether a payload lies where its layout wants it.
#[inline(always)]
pub(crate) fn is_aligned(payload: *const u8, layout: Layout) -> bool {
    payload.addr() & layout.align().wrapping_sub(1) == 0
}

impl<L: FreeList> Heap<L> {
    /// A heap without a region.
    pub(crate) const UNMAPPED: Self = Self {
        tiling: Tiling {
            ground: Ground { map: SegmentMap::NONE, region: Region::NONE, top: Granule(0) },
            list: L::EMPTY,
            ready: Granule(0),
            counters: Counters::ZERO,
            touched: Granule(0),
            pages: Pages::NONE,
        },
        purge_policy: PurgePolicy::NEW,
        purging: Extent::EMPTY,
        purging_by: 0,
        limit: Granule(usize::MAX),
        reservation: Reservation::NONE,
        older_peaks: OlderPeaks::NONE,
    };

    #[inline(always)]
    pub(crate) fn region(&self) -> &Region {
        &self.tiling.ground.region
    }

    /// Where segments end.
    #[inline(always)]
    pub(crate) fn top(&self) -> Granule {
        self.tiling.ground.top
    }

    /// Tells the memory checkers that every live payload is gone.
    fn take_back_all(&self) {
        for run in self.runs().flatten().filter(|run| run.in_use) {
            checkers::back(self.region().pointer(run.extent.start), run.extent.bytes());
        }
    }
}

impl<L: FreeList> Drop for Heap<L> {
    fn drop(&mut self) {
        if checkers::ACTIVE {
            self.take_back_all();
        }
        // SAFETY: the heap is the only one that refers to its reservation, and it is going.
        unsafe { self.reservation.release() };
    }
}

/// Ends the process: the bookkeeping contradicts itself.
#[cold]
fn broken(invariant: &str, what: &str, at: Granule) -> ! {
    fatal(format_args!("heap broken: {invariant}: {what} at offset {:#x}", at.bytes()))
}
