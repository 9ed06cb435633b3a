//! The free list with an index: the lowest fitting free segment in a few probes.
//!
//! The list itself is the order of the map's bits. On top of them stand, per chunk, one byte: a bound on the longest
//! free segment that *starts* in the chunk, as a [`code`]; and a tree over these bytes whose inner entries bound 64
//! entries of the level below, one cache line a node. (Brent 1989 is the origin; Go's page allocator, FreeBSD's blist
//! and PostgreSQL's free space map are relatives.)
//!
//! A bound may be too high, never too low ([`Bounds`]).
//!
//! A search begins at the hint for its size ([`Hints`]) and goes on upward through the tree, not down from the root.

mod bounds;
mod check;
mod group;
mod hints;
mod lookout;
mod size_code;

use super::{Broken, Deferred, Fit, FreeList, Ground, Look, Rest, Search, search_candidates};
use crate::region::{CHUNK, Extent, GRANULE, Granule, Reservation};
use bounds::{Bounds, LEVELS};
use hints::{Hints, NONE};
use size_code::{EXACT, class, class_from, code};

/// Requests up to this many granules whose search leaves a bound that may be too high: by less than this.
const SMALL: usize = 4;

/// A free list in address order whose search takes a few probes. The default.
///
/// The hops that it reports are what it really looked at beyond the first: one step for every chunk that was searched
/// in vain, all its free segments at once, and one probe for every node of the index. Both numbers are in [`MallocStatus`](crate::MallocStatus) separately.
///
/// ```
/// use core::alloc::Layout;
/// use smalloc::{Heap, Indexed};
///
/// let mut heap = Heap::<Indexed>::with_region_size(1 << 20)?;
/// let (first, status) = heap.smalloc(Layout::new::<[u8; 100]>());
/// assert_eq!(status.payload_offset, Some(0));
/// assert_eq!(status.hops, 0);
/// # assert!(first.is_some());
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Debug)]
pub struct Indexed {
    /// Where searches begin.
    hints: Hints,
    /// How large the free segments are that start in each chunk, at most.
    bounds: Bounds,
}

impl FreeList for Indexed {}

impl Indexed {
    /// The code of what is left of the free segment at `start`, or of more.
    #[inline(always)]
    fn rest_code(&self, start: Granule, rest: Rest) -> u8 {
        match rest {
            Rest::Exact(n) => code(n),
            Rest::Long => self.bounds.get(start.chunk()),
        }
    }

    /// What is left of the free segment at `start` begins at `to`, in another chunk.
    #[inline(never)]
    fn rest_moved(&mut self, start: Granule, to: Granule, rest: Rest) {
        self.bounds.raise(to.chunk(), self.rest_code(start, rest));
    }

    /// The lowest fit below top in the chunk, if there is one; or in the next, right at its start. Else the length of the
    /// last free segment that starts in the chunk, which alone can be longer than one; 0 where `n` is not.
    #[inline(always)]
    fn fit_in_chunk(ground: &Ground, chunk: usize, query: &Query) -> Result<Granule, usize> {
        let &Query { n, from, grid } = query;
        if n <= EXACT {
            let bit = if chunk == from.chunk() { from.bit() } else { 0 };
            return ground.map.run_in_chunk(chunk, bit, n, grid).filter(|&start| start < ground.top).ok_or(0);
        }
        let last = ground.map.last_hole_in_chunk(chunk);
        let start = last.filter(|&start| start < ground.top).ok_or(0_usize)?;
        let length = ground.map.hole_end(start, ground.top).above(start);
        if length >= n && start >= from { Ok(start) } else { Err(length) }
    }

    /// A search for any query: most are plain, and have a copy of their own.
    #[inline(never)]
    fn search_any(&mut self, ground: &Ground, query: Query) -> Fit {
        self.search_query(ground, &query)
    }

    /// Begins at the hint for the size, or above.
    #[inline(always)]
    fn search_query(&mut self, ground: &Ground, query: &Query) -> Fit {
        let code = code(query.n);
        let begin = self.hints.begin(query.n, code);
        if begin == NONE {
            return Fit::NONE;
        }
        let first = begin.max(query.from.chunk());
        // A hint is for several sizes, of which the larger ones may not fit there.
        let missed = if self.bounds.get(first) < code {
            None
        } else {
            match Self::fit_in_chunk(ground, first, query) {
                Ok(start) => return Fit::NONE.at(start),
                Err(last) => Some(last),
            }
        };
        self.search_behind(ground, first, missed, code, query)
    }

    /// Looks at chunk after chunk above `first`, as far as their bounds promise a fit below top. Where `first` was looked at in
    /// vain, `missed` is what [`Self::fit_in_chunk`] said.
    #[inline(always)]
    fn search_behind(
        &mut self,
        ground: &Ground,
        first: usize,
        mut missed: Option<usize>,
        code: u8,
        query: &Query,
    ) -> Fit {
        let (mut fit, mut chunk, mut again) = (Fit::NONE, first, false);
        loop {
            if let Some(last) = missed {
                let bound = self.pass(ground, chunk, last, query);
                // Up to so many granules, bounds tell what fits from what does not.
                again |= query.n > EXACT && bound >= code;
                fit.step();
            }
            chunk = self.bounds.next(chunk, ground.top.chunk(), code, &mut fit);
            if chunk == NONE {
                break;
            }
            match Self::fit_in_chunk(ground, chunk, query) {
                Ok(start) => {
                    fit = fit.at(start);
                    break;
                }
                Err(last) => missed = Some(last),
            }
        }
        if query.is_plain() {
            // The hints of what is surely no smaller than n rise to where the search ended.
            self.hints.raise(class_from(query.n), chunk);
            if again {
                self.hints.prove(query.n, code, chunk);
            }
        }
        fit
    }

    /// A chunk was searched in vain for `n` granules: puts its bound right, or nearly so where it cannot be far off, and
    /// returns it. `last` is the length of the last free segment that starts there, if `n` is more than a chunk.
    #[inline(always)]
    fn pass(&mut self, ground: &Ground, chunk: usize, last: usize, query: &Query) -> u8 {
        let n = query.n;
        let bound = if !query.is_plain() {
            code(ground.map.longest_hole_in_chunk(chunk, ground.top))
        } else if n <= SMALL {
            n as u8 - 1
        } else {
            // All but the last are shorter than a chunk.
            code(ground.map.longest_hole_about(chunk).min(CHUNK - 1).max(last).min(n.wrapping_sub(1)))
        };
        self.bounds.lower(chunk, bound);
        bound
    }
}

/// What is searched for.
struct Query {
    n: usize,
    /// Where the search begins: 0, or the end of a free segment.
    from: Granule,
    /// The bits of a chunk where the fit may begin, for at most [`EXACT`] granules.
    grid: u64,
}

impl Query {
    /// Whether any place will do: a search in vain proves that there is none.
    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.from == Granule(0) && self.grid == ANYWHERE
    }
}

/// The grid of a request without an alignment of its own.
const ANYWHERE: u64 = u64::MAX;

/// The multiples of `step`, a power of two up to 64, among the bits of a word.
const fn multiples(step: usize) -> u64 {
    if step >= u64::BITS as usize { 1 } else { u64::MAX / ((1 << step) - 1) }
}

impl Search for Indexed {
    const NAME: &'static str = "indexed";
    const EMPTY: Self = Self { hints: Hints::EMPTY, bounds: Bounds::EMPTY };

    fn bytes(chunks: usize) -> usize {
        Bounds::bytes(chunks)
    }

    fn attach(&mut self, reservation: &Reservation, offset: usize, chunks: usize) {
        self.hints = Hints::EMPTY;
        self.bounds.attach(reservation, offset, chunks);
    }

    fn commit(&mut self, chunks: usize) -> bool {
        self.bounds.commit(chunks)
    }

    fn committed(&self) -> usize {
        self.bounds.committed()
    }

    /// Looks at the chunk that the hint names: at its first free segment, which fits most of the time, then at all.
    #[inline(always)]
    fn look(&self, ground: &Ground, n: usize) -> Look {
        let hint = self.hints.get(n);
        if hint == NONE {
            return Look::Wilderness;
        }
        let mut start = ground.map.first_hole_in_chunk(hint);
        let mut seen = ground.map.free_from(start);
        if seen < n {
            let Some(place) = ground.map.run_in_chunk(hint, 0, n, ANYWHERE) else { return Look::Search };
            start = place;
            seen = ground.map.free_from(start);
        }
        if start < ground.top { Look::Fits(start, seen) } else { Look::Wilderness }
    }

    #[inline(always)]
    fn search(&mut self, ground: &Ground, n: usize) -> Fit {
        self.search_query(ground, &Query { n, from: Granule(0), grid: ANYWHERE })
    }

    /// A copy of the general search, of which half falls away.
    #[inline(always)]
    fn search_on(&mut self, ground: &Ground, n: usize) -> Fit {
        let query = Query { n, from: Granule(0), grid: ANYWHERE };
        self.search_behind(ground, self.hints.get(n), Some(0), code(n), &query)
    }

    fn search_from(&mut self, ground: &Ground, from: Granule, n: usize) -> Fit {
        self.search_any(ground, Query { n, from, grid: ANYWHERE })
    }

    fn next_hole(&self, ground: &Ground, from: Granule, n: usize) -> Option<Granule> {
        self.lowest_below(ground, (LEVELS - 1, 0), &Query { n, from, grid: ANYWHERE })
    }

    /// Alignments up to a chunk are a grid on the chunk's word, so that each chunk is looked at once; but only where the region
    /// begins at such an address, which lent memory need not.
    fn search_aligned(&mut self, ground: &Ground, n: usize, align: usize) -> (Fit, Granule) {
        let step = align / GRANULE;
        if n > EXACT || step > CHUNK || ground.region.base().addr() & (align - 1) != 0 {
            return search_candidates(self, ground, n, align);
        }
        let fit = self.search_any(ground, Query { n, from: Granule(0), grid: multiples(step) });
        match fit.start() {
            Some(place) => (fit.at(ground.map.near_hole_start(place)), place),
            None => (fit, Granule(0)),
        }
    }

    /// What is left starts higher: it lowers no hint, and needs a bound only where it starts in another chunk. What was as
    /// large as a chunk leaves a bound behind that is far too high, and that a look at one word puts right.
    #[inline(always)]
    fn took(&mut self, ground: &Ground, start: Granule, part: Extent, rest: Rest) {
        if !self.is_unmoved(start, part.end, rest) {
            self.rest_moved(start, part.end, rest);
        }
        if part.len() >= CHUNK {
            let left = ground.map.longest_hole_about(start.chunk());
            if left < CHUNK {
                self.bounds.lower(start.chunk(), left as u8);
            }
        }
    }

    #[inline(always)]
    fn is_unmoved(&self, start: Granule, to: Granule, rest: Rest) -> bool {
        to.0 ^ start.0 < CHUNK || self.bounds.get(to.chunk()) >= self.rest_code(start, rest)
    }

    /// Where the chunk's bound already says that such a segment starts there, so do the bounds above it (I2) and the
    /// hints (I4).
    #[inline(always)]
    fn gave(&mut self, _ground: &Ground, hole: Extent, _segment: Extent) -> Deferred {
        let (chunk, n) = (hole.start.chunk(), hole.len());
        if n > EXACT {
            self.hints.refute(n, chunk);
        }
        let code = code(n);
        if self.bounds.get(chunk) < code { Deferred::Raise { chunk, code } } else { Deferred::Nothing }
    }

    /// No free segment starts in what is wilderness now, and no bound may say that one does (I4).
    #[inline(always)]
    fn top_fell(&mut self, _ground: &Ground, from: Granule, to: Granule, _joined: bool) -> Deferred {
        let (first, end) = (to.0.div_ceil(CHUNK), from.chunk() + 1);
        if first < end { Deferred::Clear { from: first, to: end } } else { Deferred::Nothing }
    }

    #[inline(always)]
    fn settle(&mut self, owed: Deferred) {
        match owed {
            Deferred::Nothing => {}
            Deferred::Raise { chunk, code } => {
                self.bounds.raise(chunk, code);
                self.hints.appeared(class(code), chunk);
            }
            Deferred::Clear { from, to } => self.bounds.clear(from..to),
        }
    }

    /// The words inside a huge segment are not kept, so no bound and no hint may send a search there.
    fn covered(&mut self, segment: Extent) {
        let inside = segment.start.chunk() + 1..segment.end.down(1).chunk();
        self.bounds.clear(inside.clone());
        self.hints.skip(inside);
    }

    fn largest(&self, ground: &Ground) -> usize {
        let mut largest = 0;
        if ground.top == Granule(0) {
            // There may be no region yet, and there is no hole.
            return 0;
        }
        self.largest_below(ground, LEVELS - 1, 0, &mut largest);
        largest
    }

    fn check(&self, ground: &Ground, holes: &mut dyn Iterator<Item = Extent>) -> Result<(), Broken> {
        self.check_holes(holes)?;
        self.check_bounds(ground)
    }
}
