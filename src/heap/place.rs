//! Placing a request: the lowest free segment that can hold it at its alignment, else the wilderness, else nothing.

use super::{Heap, granules};
use crate::free_list::{Fit, FreeList, LARGEST_LOOK, Look};
use crate::region::{Extent, GRANULE, Granule};
use crate::segment_map::SHORT;

/// Why a request was not placed by the fast path.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Declined {
    /// The first look was in vain: the search goes on from there.
    Search,
    /// There was no first look, or what it found takes more than a few instructions.
    Other,
}

/// Tells the compiler that the branch it stands in is seldom taken, and not worth joining with another.
#[cold]
#[inline]
const fn cold() {}

impl<L: FreeList> Heap<L> {
    /// Places a request.
    #[inline(always)]
    pub(crate) fn place(&mut self, size: usize, align: usize) -> Fit {
        match self.place_fast(size, align) {
            Ok(start) => Fit::NONE.at(start),
            Err(declined) => self.place_slow(size, align, declined),
        }
    }

    /// Places a request where the first look settles it and one window shows it.
    #[inline(always)]
    pub(crate) fn place_fast(&mut self, size: usize, align: usize) -> Result<Granule, Declined> {
        let n = granules(size);
        if align > GRANULE || n > LARGEST_LOOK {
            cold();
            return Err(Declined::Other);
        }
        let tiling = &mut self.tiling;
        let start = match tiling.list.look(&tiling.ground, n) {
            Look::Fits(start, seen) => {
                if !tiling.take_fast(start, n, seen) {
                    return Err(Declined::Other);
                }
                start
            }
            Look::Wilderness => {
                if n > tiling.ready.above(tiling.ground.top) {
                    return Err(Declined::Other);
                }
                tiling.extend_fast(n)
            }
            Look::Search => return Err(Declined::Search),
        };
        tiling.counters.placed(size, n, 0);
        Ok(start)
    }

    /// Places any request that the fast path declined.
    #[inline(never)]
    pub(crate) fn place_slow(&mut self, size: usize, align: usize, declined: Declined) -> Fit {
        self.place_by_search(size, align, declined)
    }

    /// The same in the caller's frame.
    #[inline(always)]
    pub(crate) fn place_by_search(&mut self, size: usize, align: usize, declined: Declined) -> Fit {
        if align > GRANULE {
            return self.place_aligned(size, align);
        }
        let tiling = &mut self.tiling;
        let (n, fit) = match declined {
            Declined::Search => {
                // There is no look for more. Knowing this, the compiler drops what only larger requests need.
                let n = granules(size).min(LARGEST_LOOK);
                (n, tiling.list.search_on(&tiling.ground, n))
            }
            Declined::Other => {
                let n = granules(size);
                (n, tiling.list.search(&tiling.ground, n))
            }
        };
        let start = match fit.start() {
            Some(start) => {
                tiling.take(start, n);
                start
            }
            None => match self.extend(n) {
                Some(start) => start,
                None => return self.fail(size, fit),
            },
        };
        self.tiling.counters.placed(size, n, fit.hops());
        fit.at(start)
    }

    /// Places a request whose alignment is above a granule: at the lowest aligned place of the lowest free segment that
    /// can hold it there. What lies in front of it in that segment stays free.
    #[inline(never)]
    fn place_aligned(&mut self, size: usize, align: usize) -> Fit {
        let n = granules(size);
        let (fit, place) = self.tiling.list.search_aligned(&self.tiling.ground, n, align);
        let place = match fit.start() {
            Some(start) => {
                self.tiling.take_slow(start, Extent::of(place, n));
                place
            }
            None => match self.extend_aligned(n, align) {
                Some(place) => place,
                None => return self.fail(size, fit),
            },
        };
        self.tiling.counters.placed(size, n, fit.hops());
        fit.at(place)
    }

    /// Takes `n` granules of the wilderness; none if it has not that many or the system has no memory for them.
    fn extend(&mut self, n: usize) -> Option<Granule> {
        let from = self.tiling.ground.top;
        if !self.make_ready(from, n) {
            return None;
        }
        if n <= SHORT {
            return Some(self.tiling.extend_fast(n));
        }
        self.tiling.extend(Extent::of(from, n));
        Some(from)
    }

    /// The same at the lowest aligned place; what lies in front becomes a free segment.
    fn extend_aligned(&mut self, n: usize, align: usize) -> Option<Granule> {
        let top = self.tiling.ground.top;
        let place = self.tiling.ground.region.align_up(top, align)?;
        let needed = n.checked_add(place.above(top))?;
        if !self.make_ready(top, needed) {
            return None;
        }
        self.tiling.extend(Extent::of(place, n));
        Some(place)
    }

    /// A request that nothing fits has stepped over the wilderness too, if there is any.
    #[cold]
    fn fail(&mut self, size: usize, mut fit: Fit) -> Fit {
        let ground = &self.tiling.ground;
        // A request that comes before there is a region has not failed yet: it comes again.
        if ground.region.base().is_null() {
            return fit;
        }
        if ground.top.bytes() < ground.region.size() {
            fit.step();
        }
        self.tiling.counters.failed(size, fit.hops());
        fit
    }
}
