//! The free list, which decides the free segment that a request gets: two implementations with the same answer.
//!
//! Both hold every free segment below top in ascending address order. The wilderness comes last and is the last resort.
//! [`Linked`] is the textbook list, with its links in the free segments. [`Indexed`] keeps no links: its list is the
//! order of the map's bits, and an index above it finds the lowest fitting segment in a few probes. Invariants:
//!
//! - **L1** the list holds every free segment below top once; **L2** addresses ascend; **L3** `next(prev(s)) == s`;
//! - **I1** no bound is below the longest free segment that starts in the chunk, and no length below the longest that
//!   starts in the group; **I2** a parent is the maximum of its children; **I3** no free segment of `n` granules or
//!   more starts below hint `n`; **I4** no bound below hint `n` is `n` or more; **I5** the bounds of chunks above top's
//!   are 0; **I6** a bound that is not marked stale is exact, and so is a length unless a bound of its group is stale;
//!   the stale chunks are in the ring; **I7** the index of an alignment is exact.

mod indexed;
mod linked;

pub use indexed::Indexed;
pub use linked::Linked;

use crate::region::{Extent, GRANULE, Granule, Region, Reservation};
use crate::segment_map::{NO_END, SegmentMap};
use static_assertions::const_assert;

/// A free list: [`Linked`] or [`Indexed`]. The trait is sealed.
///
/// ```
/// use core::alloc::Layout;
/// use smalloc::{FreeList, Heap, Indexed, InitError, Linked};
///
/// /// The offset of the third of three blocks, which does not depend on the list.
/// fn third<L: FreeList>() -> Result<Option<usize>, InitError> {
///     let mut heap = Heap::<L>::with_region_size(1 << 16)?;
///     Ok((0..3).map(|_| heap.smalloc(Layout::new::<[u8; 100]>()).1.payload_offset).last().flatten())
/// }
///
/// assert_eq!((third::<Linked>()?, third::<Indexed>()?), (Some(224), Some(224)));
/// # Ok::<(), InitError>(())
/// ```
pub trait FreeList: Search {}

/// The largest request, in granules, that gets a first look: 752 bytes. Larger ones are a few in a hundred, and the
/// hints of [`Indexed`] for 47 exact sizes fit in four cache lines.
pub(crate) const LARGEST_LOOK: usize = 47;

/// The result of a first look at the list, which counts no hop.
pub enum Look {
    /// The lowest place that fits is in the chunk and starts at its granule `bit`. From there on, the chunk has `seen`
    /// free granules, or [`NO_END`] if all of its rest is free.
    Fits {
        chunk: usize,
        bit: usize,
        seen: usize,
    },
    /// The lowest place that fits starts there, and ends at the end of its chunk or above.
    Crosses(Granule),
    /// No free segment below top fits.
    Wilderness,
    Search,
}

/// The result of a search: two words, so that it is returned in registers.
#[derive(Clone, Copy)]
pub struct Fit {
    /// The granule where the lowest fitting segment starts, or `NO_START`.
    start: u64,
    /// Free segments stepped over, plus [`PROBE`](Self::PROBE) for each index node probed.
    cost: u64,
}

impl Fit {
    const NO_START: u64 = u64::MAX;
    /// The cost of a step.
    const STEP: u64 = 1;
    /// The cost of a probe, greater than the number of steps in any search.
    const PROBE: u64 = 1 << 32;

    /// Nothing fits, and nothing was searched.
    pub(crate) const NONE: Self = Self { start: Self::NO_START, cost: 0 };

    /// This cost, with a fit at `start`.
    #[inline(always)]
    pub(crate) fn at(self, start: Granule) -> Self {
        Self { start: start.0 as u64, ..self }
    }

    /// The start of the lowest fitting segment; None if only the wilderness is left.
    #[inline(always)]
    pub(crate) fn start(self) -> Option<Granule> {
        (self.start != Self::NO_START).then_some(Granule(self.start as usize))
    }

    #[inline(always)]
    pub(crate) fn stepped(self) -> usize {
        (self.cost % Self::PROBE) as usize
    }

    #[inline(always)]
    pub(crate) fn probes(self) -> usize {
        (self.cost / Self::PROBE) as usize
    }

    /// Steps beyond the first look.
    #[inline(always)]
    pub(crate) fn hops(self) -> usize {
        self.stepped().wrapping_add(self.probes())
    }

    #[inline(always)]
    pub(crate) fn step(&mut self) {
        self.cost = self.cost.wrapping_add(Self::STEP);
    }

    #[inline(always)]
    fn probe(&mut self, nodes: usize) {
        self.cost = self.cost.wrapping_add(Self::PROBE.wrapping_mul(nodes as u64));
    }
}

// A search steps over fewer free segments than a probe costs.
const_assert!(((crate::region::MAX_REGION / crate::region::GRANULE) as u64) < Fit::PROBE);

/// Work that a list has deferred to keep the fast path short. [`Search::settle`] does it before the lock is released.
#[derive(Clone, Copy)]
#[must_use = "the index is wrong until it is settled"]
pub enum Deferred {
    /// No work.
    Nothing,
    /// A free segment of `n` granules at `start` appeared or grew within its chunk.
    Raise { chunk: usize, n: usize, start: Granule },
    /// The free segment `hole` appeared or grew because a segment in it that ends at `end` was freed.
    Grow { hole: Extent, end: Granule },
    /// Top fell from `from` to `to`. The free segment `to..at`, which may be empty, is wilderness now.
    TopFell { from: Granule, to: Granule, at: Granule },
}

/// The data that a list describes: the segment map, the region, and top.
#[derive(Debug)]
pub struct Ground {
    pub(crate) map: SegmentMap,
    pub(crate) region: Region,
    pub(crate) top: Granule,
}

impl Ground {
    /// The end of the free segment that starts at `start` below top; `start` if none does.
    #[inline(always)]
    pub(crate) fn hole_end(&self, start: Granule) -> Granule {
        match self.map.free_from(start) {
            NO_END => self.map.hole_end(start, self.top),
            seen => start.up(seen),
        }
    }

    /// The lowest place in the free segment `hole` at a multiple of `align` bytes, if `n` granules fit there.
    #[inline(always)]
    fn place_in(&self, hole: Extent, n: usize, align: usize) -> Option<Granule> {
        let place = self.region.align_up(hole.start, align)?;
        (place < hole.end && n <= hole.end.above(place)).then_some(place)
    }
}

/// The operations of a list. The heap changes the segment map and tells the list before or after, as each method says.
pub trait Search: Send + Sized + 'static {
    /// The list's name, for output.
    const NAME: &'static str;
    /// Bytes that the list writes at the start of a free segment.
    const LINK_BYTES: usize = 0;
    /// Granules that [`LINK_BYTES`](Self::LINK_BYTES) take.
    const LINKS: usize = Self::LINK_BYTES.div_ceil(GRANULE);
    /// The list of a heap that is not mapped yet.
    const EMPTY: Self;

    /// Bytes of the reservation that the list takes for `chunks` chunks.
    fn bytes(chunks: usize) -> usize;

    /// Takes the list's part of the reservation, for `chunks` chunks.
    fn attach(&mut self, reservation: &Reservation, offset: usize, chunks: usize);

    /// Commits the list's part for `chunks` chunks (R2). False if the system refuses.
    fn commit(&mut self, chunks: usize) -> bool;

    fn committed(&self) -> usize;

    /// The first look for `n` granules, at most [`LARGEST_LOOK`].
    fn look(&self, ground: &Ground, n: usize) -> Look;

    /// Finds the lowest free segment below top that has `n` granules.
    fn search(&mut self, ground: &Ground, n: usize) -> Fit;

    /// Finds the lowest fitting free segment, after [`look`](Self::look) returned [`Look::Search`].
    fn search_on(&mut self, ground: &Ground, n: usize) -> Fit {
        self.search(ground, n)
    }

    /// Finds the lowest free segment below top that has `n` granules and starts at or above `from`, which is 0 or the
    /// head of a segment in use. Changes nothing, so that later searches cost the same.
    fn next_hole(&self, ground: &Ground, from: Granule, n: usize) -> Option<Granule>;

    /// Finds the lowest place below top at a multiple of `align` bytes, more than a granule, with `n` free granules.
    /// Returns the free segment that contains it, and the place.
    fn search_aligned(&mut self, ground: &Ground, n: usize, align: usize) -> (Fit, Granule);

    /// Called when a request is about to take the front of a free segment whose rest starts in the same chunk. `seen`
    /// is that of [`Look::Fits`]. False if [`took`](Self::took) has to be called afterwards.
    fn takes_front(&mut self, chunk: usize, seen: usize) -> bool;

    /// Called after a request took `part` of the free segment `hole`. The rests in front and behind stay free.
    fn took(&mut self, ground: &Ground, hole: Extent, part: Extent);

    /// Called after a segment was freed, which makes all of `hole` one free segment.
    fn gave(&mut self, ground: &Ground, hole: Extent, segment: Extent) -> Deferred;

    /// Called after top fell from `from` to `to`. The free segment `to..at`, which may be empty, is wilderness now.
    fn top_fell(&mut self, ground: &Ground, from: Granule, to: Granule, at: Granule) -> Deferred;

    /// Does deferred work.
    fn settle(&mut self, ground: &Ground, deferred: Deferred);

    /// Called after a huge segment came into use.
    fn covered(&mut self, ground: &Ground, segment: Extent);

    /// The size of the largest free segment below top, in granules; 0 if there is none.
    fn largest(&self, ground: &Ground) -> usize;

    /// Checks the list's invariants. `holes` are all free segments below top, in ascending order.
    fn check(&self, ground: &Ground, holes: &mut dyn Iterator<Item = Extent>) -> Result<(), Broken>;
}

/// A broken invariant: its name, its place, and what is wrong.
#[derive(Debug)]
pub struct Broken {
    pub(crate) invariant: &'static str,
    pub(crate) at: Granule,
    pub(crate) what: &'static str,
}
