//! The free list with an index, which finds the lowest fitting free segment in a few probes.
//!
//! The list itself is the order of the map's bits. The index says where in it to look:
//!
//! - a [bound](bounds) for each chunk on the free segments that start in it, and a tree of maxima over the bounds;
//! - the [length](lengths) of the longest free segment of a chunk or more, for each group of eight chunks, and a tree
//!   over the lengths;
//! - for each small size, a [hint](hints): the chunk where its search starts.
//!
//! (Brent 1989 is the origin; Go's page allocator, FreeBSD's blist and PostgreSQL's free space map are relatives.)
//!
//! A search for a small size climbs from the hint to the first entry that promises enough, and descends from there. A
//! search for a large size descends from the root of the lengths. Both probe one node a level, and what they arrive at
//! fits, except where a bound is stale: at most [`stale::CAPACITY`] are, whatever the program does. So the hops of a
//! search are at most a constant and a few for each level.
//!
//! A request with a larger alignment may not fit in a segment that is long enough: see [`aligned`].

mod aligned;
mod aligned_search;
mod bounds;
mod check;
mod group;
mod hints;
mod lengths;
mod lookout;
mod stale;

use super::{Broken, Deferred, Fit, FreeList, Ground, Look, Search};
use crate::region::{CHUNK, Extent, Granule, Reservation, same_chunk};
use crate::segment_map::chunk_start;
use aligned::Aligned;
use bounds::{Bounds, STALE, bound_of};
use hints::{Hints, NONE};
use lengths::{GROUP, Lengths};
use stale::Stale;

/// A free list in address order whose search takes a few probes. The default.
///
/// The hops that it reports are what it really looked at beyond the first: one step for every chunk that was searched
/// in vain, all its free segments at once, and one probe for every node of the index. Both numbers are in
/// [`MallocStatus`](crate::MallocStatus) separately.
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
    hints: Hints,
    bounds: Bounds,
    /// The bits of a bound that the fast paths look at.
    trusted: Trusted,
    stale: Stale,
    long: Lengths<1>,
    aligned: Aligned,
}

/// The bits of a bound that the fast paths look at: none while an alignment has an index, which has to be told of every
/// change.
#[derive(Debug)]
struct Trusted {
    by_takes: u8,
    by_frees: u8,
}

impl Trusted {
    const ALL: Self = Self { by_takes: u8::MAX, by_frees: !STALE };
    const NONE: Self = Self { by_takes: 0, by_frees: 0 };
}

/// Below a request of so few granules, a stale bound cannot be far too high.
const SMALL: usize = 4;

impl FreeList for Indexed {}

impl Indexed {
    /// A free segment starts where none did, or is longer than it was.
    #[inline(always)]
    fn raise(&mut self, hole: Extent) {
        let (chunk, n) = (hole.start.chunk(), hole.len());
        self.bounds.raise(chunk, bound_of(n));
        if n >= CHUNK {
            self.long.raise(0, chunk / GROUP, n);
        }
    }

    /// The free segment `hole` is gone or shorter than it was.
    #[inline(always)]
    fn lower(&mut self, hole: Extent) {
        let chunk = hole.start.chunk();
        let bound = self.bounds.marked(chunk);
        if bound <= bound_of(hole.len()) && bound != 0 {
            self.bounds.mark_stale(chunk);
            self.stale.push(chunk);
        }
    }

    /// A long `part` of the free segment `hole` was taken. Corrects the bound at once: few requests are so large, and
    /// the bounds that they leave are far too high.
    fn lower_long(&mut self, ground: &Ground, hole: Extent, part: Extent) {
        let (chunk, group) = (hole.start.chunk(), hole.start.chunk() / GROUP);
        let bound = self.bounds.marked(chunk);
        // A bound of 0 is exact. Elsewhere in a huge segment, the map says nothing.
        if bound != 0 {
            // It was the last that starts there, since it is long.
            let left = ground.map.longest_hole_below(hole.start).max(part.start.above(hole.start));
            self.bounds.set_exact(chunk, bound_of(left));
        }
        let rest = Extent::new(part.end, hole.end);
        if !rest.is_empty() {
            self.raise(rest);
        }
        if bound & STALE != 0 || self.long.is_exact(0, group, hole.len()) {
            self.measure_group(ground, group);
        }
    }

    /// Corrects the chunks whose bounds have been stale for longest, if it is time.
    #[inline(always)]
    fn correct_due(&mut self, ground: &Ground) {
        if self.stale.is_due() {
            self.correct_half(ground);
        }
    }

    #[inline(never)]
    fn correct_half(&mut self, ground: &Ground) {
        for chunk in self.stale.take_due().map(|chunk| chunk as usize) {
            if self.bounds.is_stale(chunk) {
                self.measure(ground, chunk);
            }
        }
    }

    /// Makes the bound of a chunk exact, and the length of its group, which a stale bound may have left too high.
    #[inline(always)]
    fn measure(&mut self, ground: &Ground, chunk: usize) {
        self.bounds.set_exact(chunk, bound_of(ground.map.longest_hole_in_chunk(chunk, ground.top)));
        if !self.long.is_exact(0, chunk / GROUP, 0) {
            self.measure_group(ground, chunk / GROUP);
        }
    }

    /// Makes the length of a group exact.
    #[inline(never)]
    fn measure_group(&mut self, ground: &Ground, group: usize) {
        let longest = self.long_holes(ground, group).map(Extent::len).fold(0, usize::max);
        self.long.set(0, group, longest);
    }

    /// The free segments of a chunk or more that start in a group.
    fn long_holes<'a>(&'a self, ground: &'a Ground, group: usize) -> impl Iterator<Item = Extent> + use<'a> {
        self.bounds.long_in_group(group).filter_map(|chunk| ground.map.long_hole_in_chunk(chunk, ground.top))
    }

    /// The fast paths trust the bounds unless an alignment has an index.
    fn update_trust(&mut self) {
        let active = self.aligned.is_active();
        self.trusted = if active { Trusted::NONE } else { Trusted::ALL };
        self.stale.report_all(active);
    }

    /// The lowest fit below top that starts in the chunk.
    #[inline(always)]
    fn fit_in_chunk(ground: &Ground, chunk: usize, n: usize) -> Option<Granule> {
        ground.map.run_in_chunk(chunk, n).filter(|&start| start < ground.top)
    }

    /// Searches for `n` granules, less than a chunk, above the chunk `hint`, where nothing fits.
    #[inline(always)]
    fn search_above(&mut self, ground: &Ground, n: usize, hint: usize) -> Fit {
        let mut fit = Fit::NONE;
        if self.bounds.get(hint) >= n as u8 {
            self.correct(ground, hint, n);
            fit.step();
        }
        let chunk = loop {
            let chunk = self.bounds.next(hint, n as u8, &mut fit);
            if chunk == NONE {
                break chunk;
            }
            if let Some(start) = Self::fit_in_chunk(ground, chunk, n) {
                fit = fit.at(start);
                break chunk;
            }
            self.correct(ground, chunk, n);
            fit.step();
        };
        // Nothing of that size starts below.
        self.hints.raise(n, chunk);
        fit
    }

    /// Searches for `n` granules, less than a chunk.
    fn search_small(&mut self, ground: &Ground, n: usize) -> Fit {
        let hint = self.hints.get(n);
        if hint == NONE {
            return Fit::NONE;
        }
        let fit = if self.bounds.get(hint) < n as u8 { None } else { Self::fit_in_chunk(ground, hint, n) };
        match fit {
            Some(start) => Fit::NONE.at(start),
            None => self.search_above(ground, n, hint),
        }
    }

    /// Lowers the stale bound of a chunk that promised `n` granules, less than a chunk, and has not that many. It stays
    /// stale: the exact bound takes longer than it saves.
    #[inline(always)]
    fn correct(&mut self, ground: &Ground, chunk: usize, n: usize) {
        let below = n as u8 - 1;
        let bound = if n <= SMALL { below } else { below.min(ground.map.longest_hole_about(chunk) as u8) };
        self.bounds.lower_stale(chunk, bound);
    }

    /// Searches for `n` granules, a chunk or more.
    #[inline(never)]
    fn search_long(&mut self, ground: &Ground, n: usize) -> Fit {
        let mut fit = Fit::NONE;
        while let Some(group) = self.long.first(0, n, &mut fit) {
            for hole in self.long_holes(ground, group) {
                if hole.len() >= n {
                    return fit.at(hole.start);
                }
                fit.step();
            }
            // The length was that of a stale bound.
            self.measure_group(ground, group);
        }
        fit
    }
}

impl Search for Indexed {
    const NAME: &'static str = "indexed";
    const EMPTY: Self = Self {
        hints: Hints::EMPTY,
        bounds: Bounds::EMPTY,
        trusted: Trusted::ALL,
        stale: Stale::EMPTY,
        long: Lengths::EMPTY,
        aligned: Aligned::EMPTY,
    };

    fn bytes(chunks: usize) -> usize {
        let long = Lengths::<1>::bytes(chunks).into_iter().fold(0, usize::saturating_add);
        Bounds::bytes(chunks).saturating_add(long).saturating_add(Aligned::bytes(chunks))
    }

    fn attach(&mut self, reservation: &Reservation, offset: usize, chunks: usize) {
        // The small tables of lengths share a page with those of the bounds.
        let [near, far] = Lengths::<1>::bytes(chunks);
        let bounds_at = offset.saturating_add(near);
        let far_at = bounds_at.saturating_add(Bounds::bytes(chunks));
        *self = Self::EMPTY;
        self.long.attach(reservation, [offset, far_at], chunks);
        self.bounds.attach(reservation, bounds_at, chunks);
        self.aligned.attach(reservation, far_at.saturating_add(far), chunks);
    }

    fn commit(&mut self, chunks: usize) -> bool {
        self.bounds.commit(chunks) && self.long.commit(chunks) && self.aligned.commit(chunks)
    }

    fn committed(&self) -> usize {
        let lengths = self.long.committed().saturating_add(self.aligned.committed());
        self.bounds.committed().saturating_add(lengths)
    }

    /// Looks at the chunk that the hint names: at its first free segment, which fits most of the time, then at all.
    #[inline(always)]
    fn look(&self, ground: &Ground, n: usize) -> Look {
        let hint = self.hints.get(n);
        if hint == NONE {
            return Look::Wilderness;
        }
        let (mut bit, mut seen) = ground.map.first_run(hint);
        if seen < n || bit + n >= CHUNK {
            let Some(start) = ground.map.run_in_chunk(hint, n) else { return Look::Search };
            bit = start.above(chunk_start(hint));
            if bit + n >= CHUNK {
                return if start < ground.top { Look::Crosses(start) } else { Look::Wilderness };
            }
            seen = ground.map.free_in_chunk(hint, bit);
        }
        if chunk_start(hint).up(bit) < ground.top {
            Look::Fits { chunk: hint, bit, seen }
        } else {
            Look::Wilderness
        }
    }

    #[inline(always)]
    fn search(&mut self, ground: &Ground, n: usize) -> Fit {
        match n {
            // There may be no index yet.
            _ if ground.top == Granule(0) => Fit::NONE,
            CHUNK.. => self.search_long(ground, n),
            _ => self.search_small(ground, n),
        }
    }

    #[inline(always)]
    fn search_on(&mut self, ground: &Ground, n: usize) -> Fit {
        self.search_above(ground, n, self.hints.get(n))
    }

    fn next_hole(&self, ground: &Ground, from: Granule, n: usize) -> Option<Granule> {
        self.next_long(ground, from, n)
    }

    fn search_aligned(&mut self, ground: &Ground, n: usize, align: usize) -> (Fit, Granule) {
        // As above.
        if ground.top == Granule(0) {
            (Fit::NONE, ground.top)
        } else {
            self.search_for_place(ground, n, align)
        }
    }

    /// Nothing is to be done if a longer segment starts in the chunk, so that its bound stays what it is, or if the
    /// bound may be too high already. Else it may be from now on. The rest starts higher in the same chunk, which
    /// lowers no hint.
    #[inline(always)]
    fn takes_front(&mut self, chunk: usize, seen: usize) -> bool {
        if self.bounds.marked(chunk) & self.trusted.by_takes > seen as u8 {
            return true;
        }
        self.bounds.mark_stale(chunk);
        !self.stale.push(chunk)
    }

    #[inline(always)]
    fn took(&mut self, ground: &Ground, hole: Extent, part: Extent) {
        let rest = Extent::new(part.end, hole.end);
        if part.len() >= CHUNK {
            self.lower_long(ground, hole, part);
        } else {
            self.lower(hole);
            if !rest.is_empty() {
                self.raise(rest);
            }
            self.correct_due(ground);
        }
        if self.aligned.is_active() {
            self.aligned.changed(ground, &self.bounds, hole, rest);
        }
    }

    /// Nothing is deferred if the bound of the chunk already says that such a segment starts there: then so do the
    /// entries above it (I2) and the hints (I4).
    #[inline(always)]
    fn gave(&mut self, _ground: &Ground, hole: Extent, segment: Extent) -> Deferred {
        if !same_chunk(hole.start, hole.end) {
            // It may be long, and what was free behind the freed segment may have started in another chunk.
            return Deferred::Grow { hole, end: segment.end };
        }
        let (start, chunk, n) = (hole.start, hole.start.chunk(), hole.len());
        if usize::from(self.bounds.marked(chunk) & self.trusted.by_frees) >= n {
            Deferred::Nothing
        } else {
            Deferred::Raise { chunk, n, start }
        }
    }

    /// No bound may say that a free segment starts in what is wilderness now (I5).
    #[inline(always)]
    fn top_fell(&mut self, _ground: &Ground, from: Granule, to: Granule, at: Granule) -> Deferred {
        if to < at || to.0.div_ceil(CHUNK) <= from.chunk() {
            Deferred::TopFell { from, to, at }
        } else {
            Deferred::Nothing
        }
    }

    #[inline(always)]
    fn settle(&mut self, ground: &Ground, deferred: Deferred) {
        match deferred {
            Deferred::Nothing => {}
            Deferred::Raise { chunk, n, start } => {
                self.bounds.raise(chunk, n as u8);
                self.hints.lower(n, chunk);
                if self.aligned.is_active() {
                    self.aligned.changed(ground, &self.bounds, Extent::EMPTY, Extent::of(start, n));
                }
            }
            Deferred::Grow { hole, end } => self.grew(ground, hole, end),
            Deferred::TopFell { from, to, at } => self.fell(ground, from, Extent::new(to, at)),
        }
    }

    fn covered(&mut self, ground: &Ground, segment: Extent) {
        let inside = segment.start.chunk().wrapping_add(1)..segment.end.down(1).chunk();
        self.clear(ground, inside.clone());
        self.aligned.measure(ground, &self.bounds, inside.clone());
        self.hints.skip(inside);
    }

    fn largest(&self, ground: &Ground) -> usize {
        // There may be no region yet, and there is no hole.
        if ground.top == Granule(0) { 0 } else { self.largest_hole(ground) }
    }

    fn check(&self, ground: &Ground, holes: &mut dyn Iterator<Item = Extent>) -> Result<(), Broken> {
        self.check_holes(holes)?;
        self.check_bounds(ground)
    }
}

impl Indexed {
    /// A segment that ends at `end` was freed, which makes all of `hole` one free segment.
    #[inline(always)]
    fn grew(&mut self, ground: &Ground, hole: Extent, end: Granule) {
        let (chunk, n) = (hole.start.chunk(), hole.len());
        // If the bound says so already, so does the hint (I4).
        if self.bounds.get(chunk) < bound_of(n) {
            self.hints.lower(n, chunk);
        }
        self.raise(hole);
        let behind = Extent::new(end, hole.end);
        if !behind.is_empty() && !same_chunk(hole.start, end) {
            self.lower(behind);
            self.correct_due(ground);
        }
        if self.aligned.is_active() {
            self.aligned.changed(ground, &self.bounds, behind, hole);
            if self.aligned.count_free() {
                self.update_trust();
            }
        }
    }

    /// Top fell from `from`, and `hole`, which may be empty, is wilderness now.
    #[inline(always)]
    fn fell(&mut self, ground: &Ground, from: Granule, hole: Extent) {
        if !hole.is_empty() {
            self.lower(hole);
            self.correct_due(ground);
        }
        self.clear(ground, ground.top.0.div_ceil(CHUNK)..from.chunk().wrapping_add(1));
        if self.aligned.is_active() {
            self.aligned.top_fell(ground, &self.bounds, from);
        }
    }

    /// No free segment starts in these chunks any more.
    fn clear(&mut self, ground: &Ground, chunks: core::ops::Range<usize>) {
        if chunks.is_empty() {
            return;
        }
        self.bounds.clear(chunks.clone());
        for group in chunks.start / GROUP..=(chunks.end - 1) / GROUP {
            if !self.long.is_exact(0, group, 0) {
                self.measure_group(ground, group);
            }
        }
    }
}
