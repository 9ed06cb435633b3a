//! Placing a request: in the lowest free segment that can hold it at its alignment, else in the wilderness.

use super::{Heap, granules, unlikely};
use crate::free_list::{Fit, FreeList, LARGEST_LOOK, Look};
use crate::region::{Extent, GRANULE, Granule};
use crate::segment_map::{SHORT, chunk_start};

/// Why the fast path did not place a request.
#[derive(Clone, Copy)]
pub(crate) enum Declined {
    /// The first look found no fit; the search continues from there.
    Search,
    /// The first look found this place, but taking it needs more than a few instructions.
    At(Granule),
    /// There was no first look, or the wilderness has to be committed.
    Other,
}

impl<L: FreeList> Heap<L> {
    /// Places a request. The result has no start if nothing fits.
    #[inline(always)]
    pub(crate) fn place(&mut self, size: usize, align: usize) -> Fit {
        match self.place_fast(size, align) {
            Ok(at) => Fit::NONE.at(at),
            Err(declined) => self.place_slow(size, align, declined),
        }
    }

    /// Places a request if the first look finds a fit that one window shows, or the committed wilderness.
    #[inline(always)]
    pub(crate) fn place_fast(&mut self, size: usize, align: usize) -> Result<Granule, Declined> {
        let n = granules(size);
        if align > GRANULE || n > LARGEST_LOOK {
            unlikely();
            return Err(Declined::Other);
        }
        let tiling = &mut self.tiling;
        let at = match tiling.list.look(&tiling.ground, n) {
            Look::Fits { chunk, bit, seen } => {
                let at = chunk_start(chunk).up(bit);
                if !tiling.take_fast(chunk, bit, n, seen) {
                    return Err(Declined::At(at));
                }
                at
            }
            Look::Crosses(at) => return Err(Declined::At(at)),
            Look::Wilderness => {
                if n > tiling.ready.above(tiling.ground.top) {
                    return Err(Declined::Other);
                }
                tiling.extend_fast(n)
            }
            Look::Search => return Err(Declined::Search),
        };
        tiling.counters.placed(size, n, 0);
        Ok(at)
    }

    /// Places a request that the fast path declined.
    #[inline(never)]
    pub(crate) fn place_slow(&mut self, size: usize, align: usize, declined: Declined) -> Fit {
        match declined {
            Declined::At(at) => self.place_at(at, size),
            Declined::Search => self.place_by_search(size),
            Declined::Other => self.place_any(size, align),
        }
    }

    /// Places a request where the first look found a fit.
    #[inline(always)]
    pub(crate) fn place_at(&mut self, at: Granule, size: usize) -> Fit {
        let n = granules(size).min(LARGEST_LOOK);
        self.tiling.take_across(at, n);
        self.tiling.counters.placed(size, n, 0);
        Fit::NONE.at(at)
    }

    /// Places a request after the first look missed.
    #[inline(always)]
    pub(crate) fn place_by_search(&mut self, size: usize) -> Fit {
        // Larger requests have no first look. The bound lets the compiler drop code for them.
        let n = granules(size).min(LARGEST_LOOK);
        let fit = self.tiling.list.search_on(&self.tiling.ground, n);
        self.place_found(size, n, fit)
    }

    /// Places a request of any size and alignment.
    #[inline(always)]
    pub(crate) fn place_any(&mut self, size: usize, align: usize) -> Fit {
        if align > GRANULE {
            return self.place_aligned(size, align);
        }
        let n = granules(size);
        let fit = self.tiling.list.search(&self.tiling.ground, n);
        self.place_found(size, n, fit)
    }

    /// Places a request in the segment that a search found, else in the wilderness.
    #[inline(always)]
    fn place_found(&mut self, size: usize, n: usize, fit: Fit) -> Fit {
        let start = match fit.start() {
            Some(start) => {
                self.tiling.take(start, n);
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

    /// Places a request whose alignment exceeds a granule, at the lowest aligned place of the lowest free segment that
    /// can hold it there. The padding in front stays free.
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

    /// Takes `n` granules of the wilderness. None if it is too small or the system refuses memory.
    fn extend(&mut self, n: usize) -> Option<Granule> {
        let from = self.tiling.ground.top;
        if !self.commit_from(from, n) {
            return None;
        }
        if n <= SHORT {
            return Some(self.tiling.extend_fast(n));
        }
        self.tiling.extend(Extent::of(from, n));
        Some(from)
    }

    /// Takes `n` granules of the wilderness at the lowest aligned place. The padding in front becomes a free segment.
    fn extend_aligned(&mut self, n: usize, align: usize) -> Option<Granule> {
        let top = self.tiling.ground.top;
        let place = self.tiling.ground.region.align_up(top, align)?;
        let needed = n.checked_add(place.above(top))?;
        if !self.commit_from(top, needed) {
            return None;
        }
        self.tiling.extend(Extent::of(place, n));
        Some(place)
    }

    /// Counts a request that fits nowhere: its search has also stepped over the wilderness, if there is one.
    #[cold]
    fn fail(&mut self, size: usize, mut fit: Fit) -> Fit {
        let ground = &self.tiling.ground;
        // Before the region is mapped, a request has not failed: the caller maps it and tries again.
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
