//! Which free segment a request gets: the free list, in two forms that give the same answer.
//!
//! Both hold every free segment below top in ascending address order; the wilderness follows as the last one and is
//! the last resort. [`Linked`] is the textbook list, with its links in the free segments. [`Indexed`] keeps no links:
//! the list is the order of the map's bits, and on top lies an index that finds the lowest fitting segment in a few
//! probes.
//!
//! - **L1** the list holds every free segment below top once; **L2** addresses ascend; **L3** `next(prev(s)) == s`;
//! - **I1** no bound is too low; **I2** a parent is no lower than any of its children; **I3** no free segment of class
//!   `k` or above starts below hint `k`; **I4** nor does a bound below hint `k` say that one may.

mod group;
mod hints;
mod indexed;
mod linked;

pub use indexed::Indexed;
pub use linked::Linked;

use crate::region::{Granule, Region, Reservation};
use crate::segment_map::SegmentMap;

/// A free list: [`Linked`] or [`Indexed`]. Sealed; the two types are all there are.
pub trait FreeList: Search {}

/// What a first, short look at the list says.
pub enum Look {
    /// The lowest fitting free segment begins there, and one window shows so many granules of it. No hop is counted.
    Fits(Granule, usize),
    /// No free segment below top fits. No hop is counted.
    Wilderness,
    /// It takes a search.
    Search,
}

/// The result of a search.
#[derive(Clone, Copy)]
pub struct Fit {
    /// Where the lowest segment begins that fits; none where only the wilderness is left.
    pub(crate) start: Option<Granule>,
    /// Free segments that were stepped over.
    pub(crate) stepped: usize,
    /// Index nodes that were looked at.
    pub(crate) probes: usize,
}

/// What is left of a free segment behind the part that was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// So many granules; none if 0.
    Exact(usize),
    /// Some, more than one window showed.
    Long,
}

/// Where to look, shared by all calls of a list: the map, the region, and where segments end.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(crate) map: &'a SegmentMap,
    pub(crate) region: &'a Region,
    pub(crate) top: Granule,
}

/// What the heap asks of a list. The heap changes the segment map; the list is told, before or after, as each says.
pub trait Search: Send + Sized + 'static {
    /// The list's name, for people.
    const NAME: &'static str;
    /// Bytes at the start of a free segment that the list writes to.
    const LINK_BYTES: usize = 0;
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

    /// The first look for `n` granules.
    fn look(&self, view: View<'_>, n: usize) -> Look;

    /// The lowest free segment below top that has `n` granules, after the first look has said that it takes a search.
    fn search(&mut self, view: View<'_>, n: usize) -> Fit;

    /// The lowest free segment below top that has `n` granules and starts at or above `from`, which is 0 or the end of
    /// a free segment.
    fn search_from(&mut self, view: View<'_>, from: Granule, n: usize) -> Fit;

    /// The lowest place below top with `n` free granules from a multiple of `align` bytes on, and the free segment that
    /// it lies in.
    fn search_aligned(&mut self, view: View<'_>, n: usize, align: usize) -> (Fit, Granule) {
        search_candidates(self, view, n, align)
    }

    /// After a request took `from..to` of the free segment at `start`. What is left in front of it and behind it are
    /// free segments of their own.
    fn took(&mut self, view: View<'_>, start: Granule, from: Granule, to: Granule, rest: Rest);

    /// After `from..to` became free: with what was free around it, it is the free segment `hole.0..hole.1`.
    fn gave(&mut self, view: View<'_>, hole: (Granule, Granule), from: Granule, to: Granule);

    /// After top came down from `from` to `to`. If `joined`, a free segment that began at `to` is wilderness now.
    fn top_fell(&mut self, view: View<'_>, from: Granule, to: Granule, joined: bool);

    /// After a huge segment `from..to` came into use.
    fn covered(&mut self, from: Granule, to: Granule);

    /// Granules of the largest free segment below top; 0 when there is none.
    fn largest(&self, view: View<'_>) -> usize;

    /// Checks the list's invariants; `holes` are all free segments below top, in ascending order.
    fn check(
        &self,
        view: View<'_>,
        holes: &mut dyn Iterator<Item = (Granule, Granule)>,
    ) -> Result<(), Broken>;
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
fn search_candidates<L: Search>(list: &mut L, view: View<'_>, n: usize, align: usize) -> (Fit, Granule) {
    let mut all = Fit { start: None, stepped: 0, probes: 0 };
    let mut from = Granule(0);
    loop {
        let fit = list.search_from(view, from, n);
        all.stepped = all.stepped.wrapping_add(fit.stepped);
        all.probes = all.probes.wrapping_add(fit.probes);
        let Some(start) = fit.start else { return (all, from) };
        let end = view.map.hole_end(start, view.top);
        let place = view.region.align_up(start, align);
        if let Some(place) = place.filter(|&place| place < end && n <= end.above(place)) {
            return (Fit { start: Some(start), ..all }, place);
        }
        all.stepped = all.stepped.wrapping_add(1);
        from = end;
    }
}
