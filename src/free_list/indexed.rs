//! The free list with an index: the lowest fitting free segment in a few probes.
//!
//! The list itself is the order of the map's bits. On top of them stand, per chunk, one byte: a bound on the longest
//! free segment that *starts* in the chunk, as a [`code`]; and a tree over these bytes whose inner entries bound 64
//! entries of the level below, one cache line a node. (Brent 1989 is the origin; Go's page allocator, FreeBSD's blist
//! and PostgreSQL's free space map are relatives.)
//!
//! ```text
//! level 2                          [ 9 ...                     ]
//! level 1              [ 4  0  9 ...  ]    [ 3 ...             ]
//! level 0  bounds  [ 2 0 4 ... ] [ 0 ... ] [ 0 9 1 ... ]
//! map       words    ^chunk 0                  ^chunk 129
//! ```
//!
//! Bounds are lazy: taking memory leaves them as they are, since too high is safe and too low never is. A search that
//! finds less than a bound promises puts it right, and is paid by the call that made the bound wrong.
//!
//! A search begins at the hint for its size ([`Hints`]) and goes on upward through the tree, not down from the root.

mod check;
mod lookout;

use super::group::{at_least, highest};
use super::hints::{Hints, NONE, class, class_from};
use super::{Broken, Fit, FreeList, Ground, Look, Owed, Rest, Search, search_candidates};
use crate::region::{CHUNK, GRANULE, Granule, NEAR, Reservation, SPARE_CHUNKS, Span, Table};
use core::ops::Range;
use static_assertions::const_assert;

/// Entries of a level that one entry of the next level bounds: a cache line of bytes.
const FAN_OUT: usize = 64;
/// Levels of bounds. The top level of the largest region has a few entries.
const LEVELS: usize = 5;
/// Codes up to this one are numbers of granules.
const EXACT: usize = 64;

/// Requests up to this many granules whose search leaves a bound that may be too high: by less than this.
const SMALL: usize = 4;

const_assert!(crate::region::MAX_REGION / crate::region::GRANULE / CHUNK <= FAN_OUT.pow(LEVELS as u32));

/// The size class of a segment of `n` granules: `n` itself up to 64, then sixteen classes to a doubling, rounded down. The
/// last has all from 3.875 MiB on: larger requests look at each of these.
/// What needs `n` granules fits only in segments whose code is `code(n)` or above.
#[inline(always)]
pub(super) fn code(n: usize) -> u8 {
    if n <= EXACT {
        return n as u8;
    }
    // The five highest bits of n are 16 to 31, and there are sixteen codes to a doubling.
    let doubling = (usize::BITS - 1 - n.leading_zeros()) as usize;
    let code = (n >> (doubling - 4)) + 16 * (doubling - 3);
    if code > u8::MAX as usize { u8::MAX } else { code as u8 }
}

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
    /// Bounds per chunk, then per [`FAN_OUT`] entries of the level below.
    levels: [Table<u8>; LEVELS],
    /// Where each level moves when it grows.
    far: [Span; LEVELS],
}

impl FreeList for Indexed {}

/// Entries of each level for so many chunks.
fn entries(chunks: usize) -> [usize; LEVELS] {
    let mut entries = [0; LEVELS];
    let mut count = chunks.saturating_add(SPARE_CHUNKS);
    for level in &mut entries {
        *level = count.next_multiple_of(FAN_OUT).saturating_add(FAN_OUT);
        count = count.div_ceil(FAN_OUT);
    }
    entries
}

/// Entries of each level for so many chunks, and how many of them may lie in its first place: all of the lowest, and of the
/// others what [`NEAR`] bytes need. From the top down: so the small ones share a page with the beginning of the large one.
fn sizes(chunks: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut near = entries(NEAR / GRANULE / CHUNK);
    near[0] = usize::MAX;
    entries(chunks).into_iter().rev().zip(near.into_iter().rev())
}

impl Indexed {
    /// The table of a level. There are [`LEVELS`]; the last stands in for what is not one.
    #[inline(always)]
    fn level(&self, level: usize) -> &Table<u8> {
        let [.., last] = &self.levels;
        self.levels.get(level).unwrap_or(last)
    }

    #[inline(always)]
    fn level_mut(&mut self, level: usize) -> &mut Table<u8> {
        let [lower @ .., last] = &mut self.levels;
        lower.get_mut(level).unwrap_or(last)
    }

    /// The code of what is left of the free segment at `start`, or of more.
    #[inline(always)]
    fn rest_code(&self, start: Granule, rest: Rest) -> u8 {
        match rest {
            Rest::Exact(n) => code(n),
            Rest::Long => self.levels[0].get(start.chunk()),
        }
    }

    /// What is left of the free segment at `start` begins at `to`, in another chunk.
    #[inline(never)]
    fn rest_moved(&mut self, start: Granule, to: Granule, rest: Rest) {
        self.raise_bounds(to.chunk(), self.rest_code(start, rest));
    }

    /// Raises the chunk's bound and those above it that are lower.
    #[inline(always)]
    fn raise_bounds(&mut self, chunk: usize, code: u8) {
        let mut index = chunk;
        for level in &mut self.levels {
            if level.get(index) >= code {
                return;
            }
            level.set(index, code);
            index /= FAN_OUT;
        }
    }

    /// No free segment starts in these chunks any more. Whole nodes of which the parent says so are passed over.
    #[inline(never)]
    fn clear_bounds(&mut self, chunks: Range<usize>) {
        let mut chunk = chunks.start;
        while chunk < chunks.end {
            let node = chunk / FAN_OUT;
            let end = ((node + 1) * FAN_OUT).min(chunks.end);
            if self.levels[1].get(node) != 0 {
                let whole = end - chunk == FAN_OUT;
                (chunk..end).for_each(|chunk| self.levels[0].set(chunk, 0));
                if whole {
                    self.levels[1].set(node, 0);
                }
            }
            chunk = end;
        }
    }

    /// The lowest chunk above `after` whose bound is `code` or more; [`NONE`] if there is none. Counts the nodes.
    #[inline(always)]
    fn next_chunk(&mut self, after: usize, last: usize, code: u8, fit: &mut Fit) -> usize {
        if let Some(chunk) = next_in_node(&self.levels[0], after, code) {
            fit.probe(1);
            return chunk;
        }
        let (chunk, nodes) = self.next_chunk_far(after, last, code);
        fit.probe(nodes);
        chunk
    }

    /// The same, where the first node has none: how many nodes were looked at comes second.
    #[inline(never)]
    fn next_chunk_far(&mut self, after: usize, last: usize, code: u8) -> (usize, usize) {
        let mut nodes = 1_usize;
        let mut level = 0_usize;
        let mut index = after;
        loop {
            if (last >> (6 * level)) / FAN_OUT <= index / FAN_OUT {
                return (NONE, nodes);
            }
            level = level.wrapping_add(1);
            index /= FAN_OUT;
            // An entry that promised too much is put right, and the search goes on behind it.
            nodes = nodes.wrapping_add(1);
            while let Some(next) = next_in_node(self.level(level), index, code) {
                match self.descend(level, next, code, &mut nodes) {
                    Ok(chunk) => return (chunk, nodes),
                    Err(stale) => (level, index) = stale,
                }
                nodes = nodes.wrapping_add(1);
            }
        }
    }

    /// The lowest chunk below an entry of the tree whose bound is `code` or more; or, where the entry or one below it
    /// promised too much, that entry, put right.
    fn descend(
        &mut self,
        from: usize,
        entry: usize,
        code: u8,
        nodes: &mut usize,
    ) -> Result<usize, (usize, usize)> {
        let mut level = from;
        let mut index = entry;
        while level > 0 {
            *nodes = nodes.wrapping_add(1);
            let children = self.level(level.wrapping_sub(1)).node(index);
            let fits = at_least(children, code);
            if fits == 0 {
                let exact = highest(children);
                self.level_mut(level).set(index, exact);
                return Err((level, index));
            }
            level = level.wrapping_sub(1);
            index = index * FAN_OUT + fits.trailing_zeros() as usize;
        }
        Ok(index)
    }

    /// The lowest fit below top in the chunk, if there is one; or in the next, right at its start. Else the length of the
    /// last free segment that starts in the chunk, which alone can be longer than one; 0 where `n` is not.
    #[inline(always)]
    fn fit_in_chunk(ground: &Ground, chunk: usize, request: &Request) -> Result<Granule, usize> {
        let &Request { n, from, grid } = request;
        if n <= EXACT {
            let bit = if chunk == from.chunk() { from.bit() } else { 0 };
            return ground.map.run_in_chunk(chunk, bit, n, grid).filter(|&start| start < ground.top).ok_or(0);
        }
        let last = ground.map.last_hole_in_chunk(chunk);
        let start = last.filter(|&start| start < ground.top).ok_or(0_usize)?;
        let length = ground.map.hole_end(start, ground.top).above(start);
        if length >= n && start >= from { Ok(start) } else { Err(length) }
    }

    /// A search for any request: most are plain, and have a copy of their own.
    #[inline(never)]
    fn search_any(&mut self, ground: &Ground, request: Request) -> Fit {
        self.search_request(ground, &request)
    }

    /// Begins at the hint for the size, or above.
    #[inline(always)]
    fn search_request(&mut self, ground: &Ground, request: &Request) -> Fit {
        let code = code(request.n);
        let hint = self.hints.get(class(code));
        if hint == NONE {
            return Fit::NONE;
        }
        let first = hint.max(request.from.chunk());
        // A hint is for several sizes, of which the larger ones may not fit there.
        let missed = if self.levels[0].get(first) < code {
            None
        } else {
            match Self::fit_in_chunk(ground, first, request) {
                Ok(start) => return Fit::NONE.at(start),
                Err(last) => Some(last),
            }
        };
        self.search_behind(ground, first, missed, code, request)
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
        request: &Request,
    ) -> Fit {
        let (mut fit, mut chunk) = (Fit::NONE, first);
        loop {
            if let Some(last) = missed {
                self.pass(ground, chunk, last, request);
                fit.step();
            }
            chunk = self.next_chunk(chunk, ground.top.chunk(), code, &mut fit);
            if chunk == NONE {
                break;
            }
            match Self::fit_in_chunk(ground, chunk, request) {
                Ok(start) => {
                    fit = fit.at(start);
                    break;
                }
                Err(last) => missed = Some(last),
            }
        }
        if request.is_plain() {
            // The hints of what is surely no smaller than n rise to where the search ended.
            self.hints.raise(class_from(request.n), chunk);
        }
        fit
    }

    /// A chunk was searched in vain for `n` granules: puts its bound right, or nearly so where it cannot be far off. `last` is
    /// the length of the last free segment that starts there, if `n` is more than a chunk.
    #[inline(always)]
    fn pass(&mut self, ground: &Ground, chunk: usize, last: usize, request: &Request) {
        let n = request.n;
        let bound = if !request.is_plain() {
            code(ground.map.longest_hole_in_chunk(chunk, ground.top))
        } else if n <= SMALL {
            n as u8 - 1
        } else {
            code(ground.map.longest_hole_about(chunk).max(last).min(n.wrapping_sub(1)))
        };
        self.lower_bound(chunk, bound);
    }

    /// No free segment larger than the code says starts in the chunk.
    #[inline(always)]
    fn lower_bound(&mut self, chunk: usize, code: u8) {
        self.levels[0].set(chunk, code.min(self.levels[0].get(chunk)));
    }
}

/// The next entry of the same node behind `index` that is `code` or more.
#[inline(always)]
fn next_in_node(level: &Table<u8>, index: usize, code: u8) -> Option<usize> {
    let node = index / FAN_OUT;
    let above = u64::MAX << (index % FAN_OUT) << 1;
    let fits = at_least(level.node(node), code) & above;
    (fits != 0).then(|| node * FAN_OUT + fits.trailing_zeros() as usize)
}

/// What is searched for.
struct Request {
    n: usize,
    /// Where the search begins: 0, or the end of a free segment.
    from: Granule,
    /// The bits of a chunk where the fit may begin, for at most [`EXACT`] granules.
    grid: u64,
}

impl Request {
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
    const EMPTY: Self = Self {
        hints: Hints::EMPTY,
        levels: [const { Table::NONE }; LEVELS],
        far: [const { Span::NONE }; LEVELS],
    };

    fn bytes(chunks: usize) -> usize {
        sizes(chunks)
            .map(|(count, near)| Table::<u8>::near_bytes(count, near) + Table::<u8>::far_bytes(count, near))
            .sum()
    }

    fn attach(&mut self, reservation: &Reservation, offset: usize, chunks: usize) {
        self.hints = Hints::EMPTY;
        let all_near: usize = sizes(chunks).map(|(count, near)| Table::<u8>::near_bytes(count, near)).sum();
        let (mut at, mut far_at) = (offset, offset.saturating_add(all_near));
        let places = self.levels.iter_mut().rev().zip(self.far.iter_mut().rev());
        for ((level, far), (count, near)) in places.zip(sizes(chunks)) {
            (*level, *far) = Table::small(reservation, (at, near), (far_at, count));
            at = at.saturating_add(Table::<u8>::near_bytes(count, near));
            far_at = far_at.saturating_add(Table::<u8>::far_bytes(count, near));
        }
    }

    fn commit(&mut self, chunks: usize) -> bool {
        let places = self.levels.iter_mut().zip(&mut self.far);
        places.zip(entries(chunks)).all(|((level, far), count)| level.commit_small(far, count))
    }

    fn committed(&self) -> usize {
        self.levels.iter().map(Table::committed).sum()
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
        self.search_request(ground, &Request { n, from: Granule(0), grid: ANYWHERE })
    }

    /// A copy of the general search, of which half falls away.
    #[inline(always)]
    fn search_on(&mut self, ground: &Ground, n: usize) -> Fit {
        let request = Request { n, from: Granule(0), grid: ANYWHERE };
        self.search_behind(ground, self.hints.get(n), Some(0), n as u8, &request)
    }

    fn search_from(&mut self, ground: &Ground, from: Granule, n: usize) -> Fit {
        self.search_any(ground, Request { n, from, grid: ANYWHERE })
    }

    fn next_hole(&self, ground: &Ground, from: Granule, n: usize) -> Option<Granule> {
        self.lowest_below(ground, (LEVELS - 1, 0), &Request { n, from, grid: ANYWHERE })
    }

    /// Alignments up to a chunk are a grid on the chunk's word, so that each chunk is looked at once.
    fn search_aligned(&mut self, ground: &Ground, n: usize, align: usize) -> (Fit, Granule) {
        let step = align / GRANULE;
        if n > EXACT || step > CHUNK {
            return search_candidates(self, ground, n, align);
        }
        let fit = self.search_any(ground, Request { n, from: Granule(0), grid: multiples(step) });
        match fit.start() {
            Some(place) => (fit.at(ground.map.near_hole_start(place)), place),
            None => (fit, Granule(0)),
        }
    }

    /// What is left starts higher: it lowers no hint, and needs a bound only where it starts in another chunk. What was as
    /// large as a chunk leaves a bound behind that is far too high, and that a look at one word puts right.
    #[inline(always)]
    fn took(&mut self, ground: &Ground, start: Granule, from: Granule, to: Granule, rest: Rest) {
        if !self.is_unmoved(start, to, rest) {
            self.rest_moved(start, to, rest);
        }
        if to.above(from) >= CHUNK {
            let left = ground.map.longest_hole_about(start.chunk());
            if left < CHUNK {
                self.lower_bound(start.chunk(), left as u8);
            }
        }
    }

    #[inline(always)]
    fn is_unmoved(&self, start: Granule, to: Granule, rest: Rest) -> bool {
        to.0 ^ start.0 < CHUNK || self.levels[0].get(to.chunk()) >= self.rest_code(start, rest)
    }

    /// Where the chunk's bound already says that such a segment starts there, so do the bounds above it (I2) and the
    /// hints (I4).
    #[inline(always)]
    fn gave(&mut self, _ground: &Ground, hole: (Granule, Granule), _from: Granule, _to: Granule) -> Owed {
        let (chunk, code) = (hole.0.chunk(), code(hole.1.above(hole.0)));
        if self.levels[0].get(chunk) < code { Owed::Raise { chunk, code } } else { Owed::Nothing }
    }

    /// No free segment starts in what is wilderness now, and no bound may say that one does (I4).
    #[inline(always)]
    fn top_fell(&mut self, _ground: &Ground, from: Granule, to: Granule, _joined: bool) -> Owed {
        let (first, end) = (to.0.div_ceil(CHUNK), from.chunk() + 1);
        if first < end { Owed::Clear { from: first, to: end } } else { Owed::Nothing }
    }

    #[inline(always)]
    fn settle(&mut self, owed: Owed) {
        match owed {
            Owed::Nothing => {}
            Owed::Raise { chunk, code } => {
                self.raise_bounds(chunk, code);
                self.hints.appeared(class(code), chunk);
            }
            Owed::Clear { from, to } => self.clear_bounds(from..to),
        }
    }

    /// The words inside a huge segment are not kept, so no bound and no hint may send a search there.
    fn covered(&mut self, from: Granule, to: Granule) {
        let inside = from.chunk() + 1..to.down(1).chunk();
        self.clear_bounds(inside.clone());
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

    fn check(
        &self,
        ground: &Ground,
        holes: &mut dyn Iterator<Item = (Granule, Granule)>,
    ) -> Result<(), Broken> {
        self.check_holes(holes)?;
        self.check_bounds(ground)
    }
}
