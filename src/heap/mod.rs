//! The heap's policy: search, split, coalesce, grow. It is single-threaded; `SmallocGlobal` puts it behind a lock.
//!
//! ```text
//!  0                                                    top          ready            end
//!  | A | B |  hole  | C |hole| D |        hole       | E |  wilderness |   PROT_NONE  |
//! ```
//!
//! A request takes the lowest free segment that can hold it ([`Heap::place`]); the rest of that segment stays free. A
//! free coalesces with both neighbours at once ([`Tiling::give`]). The wilderness above `top` is the last free segment.
//! A free segment that touches it becomes part of it: `top` is lowered.
//!
//! Most calls take a few instructions, inline: small requests that fit in the first hole looked at, and segments that
//! one 64-bit window of the map shows with their neighbours. The `*_fast` functions handle these and decline everything
//! else; the functions without a suffix handle any size. Both pass the same oracle.

mod check;
mod counters;
mod find;
mod grow;
mod lent;
mod limits;
mod memory;
mod misuse;
mod page_moves;
mod place;
mod purge;
mod purge_policy;
mod quiet;
mod ready;
mod resize;
mod statistics;
mod status;
mod tiling;
mod usage;
mod walk;
mod zeroed;

pub use check::Corruption;
pub(crate) use grow::{largest_region, map_side_by_side};
pub(crate) use page_moves::LEAST_TRANSFER;
pub(crate) use place::Declined;
pub(crate) use purge::Purge;
pub use status::MallocStatus;
#[cfg(feature = "hardened")]
pub(crate) use walk::Run;

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

/// A standalone first-fit heap: one region, used by one thread at a time.
///
/// [`SmallocGlobal`](crate::SmallocGlobal) puts this heap behind a lock. On its own it serves tests, replays, and
/// programs that want an arena. The region is reserved when the heap is created and unmapped when it is dropped.
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
// Fields that every call needs come first, to share cache lines.
#[repr(C)]
pub struct Heap<L: FreeList = Indexed> {
    pub(crate) tiling: Tiling<L>,
    purge_policy: PurgePolicy,
    /// The range that is being purged right now; empty if none is.
    purging: Extent,
    /// The thread that purges it.
    purging_by: usize,
    limit: Granule,
    reservation: Reservation,
    older_peaks: OlderPeaks,
}

/// Granules that a request of `size` bytes takes; at least one.
#[inline(always)]
pub(crate) const fn granules(size: usize) -> usize {
    // A Layout's size is at most isize::MAX, so the sum does not wrap.
    let n = size.wrapping_add(GRANULE - 1) / GRANULE;
    if n == 0 { 1 } else { n }
}

/// [`granules`], except that it returns a number larger than any segment for 0 bytes, which `GlobalAlloc` does not
/// allow. One instruction less.
#[inline(always)]
const fn granules_or_many(size: usize) -> usize {
    size.wrapping_sub(1) / GRANULE + 1
}

/// The segment at `at` that holds `size` bytes.
#[inline(always)]
pub(crate) const fn segment(at: Granule, size: usize) -> Extent {
    Extent::of(at, granules(size))
}

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

    /// The end of the last segment.
    #[inline(always)]
    pub(crate) fn top(&self) -> Granule {
        self.tiling.ground.top
    }

    /// Tells the memory checkers that no payload is live any more.
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
        if let Some(memory) = self.reservation.own_mapping() {
            checkers::unmapped(memory);
        }
        // SAFETY: only this heap refers to its reservation, and it is being dropped.
        unsafe { self.reservation.release() };
    }
}

/// Marks a branch as unlikely, and keeps the compiler from merging it with another.
#[cold]
#[inline]
pub(crate) const fn unlikely() {}

/// Ends the process because the bookkeeping contradicts itself.
#[cold]
fn broken(invariant: &str, what: &str, at: Granule) -> ! {
    fatal(format_args!("heap broken: {invariant}: {what} at offset {:#x}", at.bytes()))
}
