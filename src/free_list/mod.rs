//! Which free segment a request gets: the free list, in two forms that give the same answer.
//!
//! Both hold every free segment below top in ascending address order; the wilderness follows as the last one and is
//! the last resort. [`Linked`] is the textbook list, with its links in the free segments. [`Indexed`] keeps no links:
//! the list is the order of the map's bits, and on top lies an index that finds the lowest fitting segment in a few
//! probes.
//!
//! - **L1** the list holds every free segment below top once; **L2** addresses ascend; **L3** `next(prev(s)) == s`;
//! - **I1** no bound is too low; **I2** a parent is no lower than any of its children; **I3** no free segment of class
//!   `k` or above starts below hint `k`, nor one that is as large as a proof's below the proof's chunk; **I4** no bound below
//!   hint `k` is of class `k` or above, and none below the proof's chunk is above the code of the proof's size; **I5** bounds of
//!   chunks above top's say that no segment starts there.

mod indexed;
mod linked;

pub use indexed::Indexed;
pub use linked::Linked;

use crate::region::{Extent, GRANULE, Granule, Region, Reservation};
use crate::segment_map::SegmentMap;
use static_assertions::const_assert;

/// A free list: [`Linked`] or [`Indexed`]. Sealed; the two types are all there are.
///
/// ```
/// use core::alloc::Layout;
/// use smalloc::{FreeList, Heap, Indexed, InitError, Linked};
///
/// /// Where the third of three blocks lies, whichever list finds the place.
/// fn third<L: FreeList>() -> Result<Option<usize>, InitError> {
///     let mut heap = Heap::<L>::with_region_size(1 << 16)?;
///     Ok((0..3).map(|_| heap.smalloc(Layout::new::<[u8; 100]>()).1.payload_offset).last().flatten())
/// }
///
/// assert_eq!((third::<Linked>()?, third::<Indexed>()?), (Some(224), Some(224)));
/// # Ok::<(), InitError>(())
/// ```
pub trait FreeList: Search {}

/// The largest request, in granules, for which there is a first look: 752 bytes. Larger ones are a few in a hundred, and
/// with 47 sizes of their own the hints of [`Indexed`] fit in four cache lines.
pub(crate) const LARGEST_LOOK: usize = 47;

/// What a first, short look at the list says.
pub enum Look {
    /// The lowest fitting free segment begins there, and one window shows so many granules of it. No hop is counted.
    Fits(Granule, usize),
    /// No free segment below top fits. No hop is counted.
    Wilderness,
    /// It takes a search.
    Search,
}

/// The result of a search. Two words, so that it is returned in registers.
#[derive(Clone, Copy)]
pub struct Fit {
    /// The granule where the lowest segment begins that fits, `NO_START` where only the wilderness is left.
    start: u64,
    /// Free segments that were stepped over, and from [`PROBE`](Self::PROBE) on index nodes that were looked at.
    cost: u64,
}

impl Fit {
    const NO_START: u64 = u64::MAX;
    /// What a step adds to the cost.
    const STEP: u64 = 1;
    /// What a probe adds to the cost. There are fewer free segments than that.
    const PROBE: u64 = 1 << 32;

    /// Nothing fits, and nothing has been looked at yet.
    pub(crate) const NONE: Self = Self { start: Self::NO_START, cost: 0 };

    /// The same search, which has found a fit.
    #[inline(always)]
    pub(crate) fn at(self, start: Granule) -> Self {
        Self { start: start.0 as u64, ..self }
    }

    /// Where the lowest segment begins that fits; none where only the wilderness is left.
    #[inline(always)]
    pub(crate) fn start(self) -> Option<Granule> {
        (self.start != Self::NO_START).then_some(Granule(self.start as usize))
    }

    /// Free segments that were stepped over.
    #[inline(always)]
    pub(crate) fn stepped(self) -> usize {
        (self.cost % Self::PROBE) as usize
    }

    /// Index nodes that were looked at.
    #[inline(always)]
    pub(crate) fn probes(self) -> usize {
        (self.cost / Self::PROBE) as usize
    }

    /// What the search looked at beyond the first.
    #[inline(always)]
    pub(crate) fn hops(self) -> usize {
        self.stepped().wrapping_add(self.probes())
    }

    /// One more free segment was stepped over.
    #[inline(always)]
    pub(crate) fn step(&mut self) {
        self.cost = self.cost.wrapping_add(Self::STEP);
    }

    /// So many more nodes were looked at.
    #[inline(always)]
    fn probe(&mut self, nodes: usize) {
        self.cost = self.cost.wrapping_add(Self::PROBE.wrapping_mul(nodes as u64));
    }

    /// What another search looked at was looked at too.
    fn join(&mut self, other: Self) {
        self.cost = self.cost.wrapping_add(other.cost);
    }
}

// A region has fewer free segments than a probe costs.
const_assert!(((crate::region::MAX_REGION / crate::region::GRANULE) as u64) < Fit::PROBE);

/// What is left of a free segment behind the part that was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// So many granules; none if 0.
    Exact(usize),
    /// Some, more than one window showed.
    Long,
}

/// Work that a list has put off to keep the fast path short: [`Search::settle`] does it, before the lock is released.
#[derive(Clone, Copy)]
#[must_use = "the index is wrong until it is settled"]
pub enum Deferred {
    /// There is nothing to be done.
    Nothing,
    /// A chunk's bound rises to a size code.
    Raise { chunk: usize, code: u8 },
    /// No free segment starts in the chunks `from..to` any more.
    Clear { from: usize, to: usize },
}

/// What a list stands on: the heap's segment map, its region, and where segments end and the wilderness begins.
#[derive(Debug)]
pub struct Ground {
    pub(crate) map: SegmentMap,
    pub(crate) region: Region,
    pub(crate) top: Granule,
}

/// What the heap asks of a list. The heap changes the segment map; the list is told, before or after, as each says.
pub trait Search: Send + Sized + 'static {
    /// The list's name, for people.
    const NAME: &'static str;
    /// Bytes at the start of a free segment that the list writes to.
    const LINK_BYTES: usize = 0;
    /// Granules that they take.
    const LINKS: usize = Self::LINK_BYTES.div_ceil(GRANULE);
    /// The list of a heap that is not mapped yet.
    const EMPTY: Self;

    /// Bytes of the reservation that the list takes for so many chunks.
    fn bytes(chunks: usize) -> usize;

    /// Takes its part of the reservation, for so many chunks.
    fn attach(&mut self, reservation: &Reservation, offset: usize, chunks: usize);

    /// Opens its part for so many chunks (R2). False when the system refuses.
    fn commit(&mut self, chunks: usize) -> bool;

    /// Bytes of its part that are open.
    fn committed(&self) -> usize;

    /// The first look for `n` granules, at most [`LARGEST_LOOK`].
    fn look(&self, ground: &Ground, n: usize) -> Look;

    /// The lowest free segment below top that has `n` granules.
    fn search(&mut self, ground: &Ground, n: usize) -> Fit;

    /// The same for at most [`LARGEST_LOOK`] granules, after a first look that said [`Look::Search`].
    fn search_on(&mut self, ground: &Ground, n: usize) -> Fit {
        self.search(ground, n)
    }

    /// The lowest free segment below top that has `n` granules and starts at or above `from`, which is 0 or the head
    /// of a segment in use.
    fn search_from(&mut self, ground: &Ground, from: Granule, n: usize) -> Fit;

    /// The same for somebody who only looks: no later search costs more or less for it.
    fn next_hole(&self, ground: &Ground, from: Granule, n: usize) -> Option<Granule>;

    /// The lowest place below top with `n` free granules from a multiple of `align` bytes on, and the free segment that
    /// it lies in.
    fn search_aligned(&mut self, ground: &Ground, n: usize, align: usize) -> (Fit, Granule) {
        search_candidates(self, ground, n, align)
    }

    /// Whether the list need not be told when a request takes `start..to`, the front of a free segment.
    fn is_unmoved(&self, start: Granule, to: Granule, rest: Rest) -> bool;

    /// After a request took a part of the free segment at `start`. What is left in front of it and behind it are free
    /// segments of their own.
    fn took(&mut self, ground: &Ground, start: Granule, part: Extent, rest: Rest);

    /// After a segment became free: with what was free around it, it is the free segment `hole`.
    fn gave(&mut self, ground: &Ground, hole: Extent, segment: Extent) -> Deferred;

    /// After top came down from `from` to `to`. If `joined`, a free segment that began at `to` is wilderness now.
    fn top_fell(&mut self, ground: &Ground, from: Granule, to: Granule, joined: bool) -> Deferred;

    /// Does what was put off.
    fn settle(&mut self, owed: Deferred);

    /// After a huge segment came into use.
    fn covered(&mut self, segment: Extent);

    /// Granules of the largest free segment below top; 0 when there is none.
    fn largest(&self, ground: &Ground) -> usize;

    /// Checks the list's invariants; `holes` are all free segments below top, in ascending order.
    fn check(&self, ground: &Ground, holes: &mut dyn Iterator<Item = Extent>) -> Result<(), Broken>;
}

/// A broken invariant: its name, where, and what.
#[derive(Debug)]
pub struct Broken {
    pub(crate) invariant: &'static str,
    pub(crate) at: Granule,
    pub(crate) what: &'static str,
}

/// The lowest aligned place, candidate after candidate in address order: a free segment that is large enough may lack
/// an aligned place that is. One of `n + align / 16 - 1` granules never does, so the search ends there at the latest.
fn search_candidates<L: Search>(list: &mut L, ground: &Ground, n: usize, align: usize) -> (Fit, Granule) {
    let mut all = Fit::NONE;
    let mut from = Granule(0);
    loop {
        let fit = list.search_from(ground, from, n);
        all.join(fit);
        let Some(start) = fit.start() else { return (all, from) };
        let end = ground.map.hole_end(start, ground.top);
        let place = ground.region.align_up(start, align);
        if let Some(place) = place.filter(|&place| place < end && n <= end.above(place)) {
            return (all.at(start), place);
        }
        all.step();
        from = end;
    }
}
