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
//! hints    1: chunk 0   2: chunk 0   3..4: chunk 2   5..9: chunk 129   10..: none
//! ```
//!
//! Bounds are lazy: taking memory leaves them as they are, since too high is safe and too low never is. A search that
//! finds less than a bound promises puts it right, and is paid by the call that made the bound wrong.
//!
//! For every code there is a hint: the lowest chunk in which a segment of that code or above may start. A free segment
//! that appears or grows lowers the hints above its chunk, a search that found nothing below a chunk raises them to it.
//! Hints ascend with the code, so both stop at the first that needs no change. A search goes from its hint on upward
//! through the tree, and not from the root.

#[cfg(test)]
use super::group::Node;
use super::group::{at_least, highest};
use super::{Broken, Fit, FreeList, Look, Rest, Search, View};
use crate::region::{CHUNK, Granule, Reservation, SPARE_CHUNKS, Table};
use crate::segment_map::chunk_start;
use static_assertions::const_assert;

/// Entries of a level that one entry of the next level bounds: a cache line of bytes.
const FAN_OUT: usize = 64;
/// Levels of bounds. The top level of the largest region has a few entries.
const LEVELS: usize = 5;
/// The hint that says: no segment of this code or above is free below top.
const NONE: u32 = u32::MAX;
/// Codes up to this one are numbers of granules; those above are eight to a doubling.
const EXACT: usize = 64;

const_assert!(crate::region::MAX_REGION / crate::region::GRANULE / CHUNK <= FAN_OUT.pow(LEVELS as u32));

/// A node with the alignment of those in the tables, for tests.
#[cfg(test)]
#[derive(Debug)]
#[repr(align(64))]
pub(super) struct AlignedNode(pub(super) Node);

/// The size class of a segment of `n` granules: `n` itself up to 64, then eight classes to a doubling, rounded down.
/// What needs `n` granules fits only in segments whose code is `code(n)` or above.
#[inline]
fn code(n: usize) -> u8 {
    if n <= EXACT { n as u8 } else { large_code(n) }
}

fn large_code(n: usize) -> u8 {
    let doubling = n.ilog2() as usize;
    let eighth = n >> (doubling.wrapping_sub(3)) & 7;
    let code = EXACT + 8 * doubling.wrapping_sub(EXACT.ilog2() as usize) + eighth;
    u8::try_from(code).unwrap_or(u8::MAX)
}

/// A free list in address order whose search takes a few probes. The default.
///
/// The hops that it reports are what it really looked at beyond the first: free segments that were tried and stepped
/// over (one for each chunk whose word was searched in vain, and each large segment measured in vain), and nodes of
/// the index. Both numbers are in [`MallocStatus`](crate::MallocStatus) separately.
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
    /// The lowest chunk in which a free segment of that code or above may start.
    hints: [u32; 256],
    /// Bounds per chunk, then per [`FAN_OUT`] entries of the level below.
    levels: [Table<u8>; LEVELS],
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

impl Indexed {
    /// The table of a level. There are [`LEVELS`]; the last stands in for what is not one.
    #[inline]
    fn level(&self, level: usize) -> &Table<u8> {
        let [.., last] = &self.levels;
        self.levels.get(level).unwrap_or(last)
    }

    #[inline]
    fn level_mut(&mut self, level: usize) -> &mut Table<u8> {
        self.levels
            .get_mut(level.min(LEVELS - 1))
            .unwrap_or_else(|| crate::fatal::fatal(format_args!("no level")))
    }

    #[inline]
    fn hint(&self, code: u8) -> u32 {
        self.hints[code as usize]
    }

    /// A free segment of that code starts in the chunk now: no bound may be below it, no hint above.
    #[inline]
    fn appeared(&mut self, chunk: usize, code: u8) {
        if self.levels[0].get(chunk) < code {
            self.raise_bound(chunk, code);
        }
        if self.hint(code) > chunk as u32 {
            self.lower_hints(chunk, code);
        }
    }

    /// Raises the chunk's bound, and those above it that are lower (I1, I2).
    fn raise_bound(&mut self, chunk: usize, code: u8) {
        let mut index = chunk;
        for level in &mut self.levels {
            if level.get(index) >= code {
                return;
            }
            level.set(index, code);
            index /= FAN_OUT;
        }
    }

    /// Lowers the hints of `code` and below to the chunk, as far as they are above it (I3).
    fn lower_hints(&mut self, chunk: usize, code: u8) {
        for hint in self.hints.iter_mut().take(code as usize + 1).rev() {
            if *hint <= chunk as u32 {
                return;
            }
            *hint = chunk as u32;
        }
    }

    /// Raises the hints of `code` and above to the chunk, as far as they are below it: a search has shown that no
    /// free segment of that code starts lower.
    fn raise_hints(&mut self, chunk: u32, code: u8) {
        for hint in self.hints.iter_mut().skip(code as usize) {
            if *hint >= chunk {
                return;
            }
            *hint = chunk;
        }
    }

    /// The lowest chunk above `after` whose bound is `code` or more, none if it lies above `last`. Counts the nodes.
    fn next_chunk(&mut self, after: usize, last: usize, code: u8, probes: &mut usize) -> Option<usize> {
        let mut level = 0;
        let mut index = after;
        loop {
            *probes = probes.wrapping_add(1);
            let node = index / FAN_OUT;
            let above = u64::MAX << (index % FAN_OUT) << 1;
            let fits = at_least(self.level(level).node(node), code) & above;
            if fits != 0 {
                index = node * FAN_OUT + fits.trailing_zeros() as usize;
                match self.descend(level, index, code, probes) {
                    Ok(chunk) => return (chunk <= last).then_some(chunk),
                    Err(stale) => (level, index) = stale,
                }
            } else if (last >> (6 * level)) / FAN_OUT <= node {
                return None;
            } else {
                level = level.wrapping_add(1);
                index = node;
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
        probes: &mut usize,
    ) -> Result<usize, (usize, usize)> {
        let mut level = from;
        let mut index = entry;
        while level > 0 {
            *probes = probes.wrapping_add(1);
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

    /// Raises `largest` to the largest free segment below a node, passing over what its bounds exclude.
    fn largest_below(&self, view: View<'_>, level: usize, node: usize, largest: &mut usize) {
        for (child, &bound) in self.level(level).node(node).iter().enumerate() {
            let index = node * FAN_OUT + child;
            if bound == 0 || bound < code(*largest) || index << (6 * level) > view.top.chunk() {
                continue;
            }
            match level.checked_sub(1) {
                Some(below) => self.largest_below(view, below, index, largest),
                None => *largest = (*largest).max(longest_from(view, index)),
            }
        }
    }

    /// The lowest fit of up to 64 granules, chunk by chunk from `from` on.
    fn search_small(&mut self, view: View<'_>, from: Granule, n: usize) -> Fit {
        let code = n as u8;
        let last = view.top.chunk();
        let mut fit = Fit { start: None, stepped: 0, probes: 0 };
        let hint = self.hint(code) as usize;
        let from_hint = from.0 <= chunk_start(hint).0;
        let mut chunk = if from_hint { hint } else { from.chunk() };
        let mut bit = if from_hint { 0 } else { from.bit() };
        loop {
            if let Some(start) = view.map.run_in_chunk(chunk, bit, n) {
                fit.start = (start < view.top).then_some(start);
                break;
            }
            fit.stepped = fit.stepped.wrapping_add(1);
            if bit == 0 {
                self.tighten(view, chunk);
            }
            let Some(next) = self.next_chunk(chunk, last, code, &mut fit.probes) else { break };
            chunk = next;
            bit = 0;
        }
        if from_hint {
            self.raise_hints(if fit.start.is_some() { chunk as u32 } else { NONE }, code);
        }
        fit
    }

    /// Puts a chunk's bound right.
    fn tighten(&mut self, view: View<'_>, chunk: usize) {
        let longest = longest_from(view, chunk);
        let bound = code(longest);
        if bound < self.levels[0].get(chunk) {
            self.levels[0].set(chunk, bound);
        }
    }

    /// The lowest fit of more than 64 granules: only the last free segment that starts in a chunk can be so large.
    fn search_large(&mut self, view: View<'_>, from: Granule, n: usize) -> Fit {
        let code = code(n);
        let last = view.top.chunk();
        let mut fit = Fit { start: None, stepped: 0, probes: 0 };
        let hint = self.hint(code) as usize;
        let from_hint = from.0 <= chunk_start(hint).0;
        let mut chunk = if from_hint { hint } else { from.chunk() };
        // The first chunk with a segment of the code that is yet too small: the hint goes no further.
        let mut passed = NONE;
        loop {
            let start = view.map.last_hole_in_chunk(chunk).filter(|&start| start >= from);
            if start.is_some_and(|start| start >= view.top) {
                break;
            }
            let size = start.map_or(0, |start| view.map.hole_end(start, view.top).above(start));
            if size >= n {
                fit.start = start;
                break;
            }
            fit.stepped = fit.stepped.wrapping_add(1);
            if self::code(size) >= code {
                passed = passed.min(chunk as u32);
            } else if chunk_start(chunk) >= from {
                self.tighten(view, chunk);
            }
            let Some(next) = self.next_chunk(chunk, last, code, &mut fit.probes) else { break };
            chunk = next;
        }
        if from_hint {
            let found = if fit.start.is_some() { chunk as u32 } else { NONE };
            self.raise_hints(found.min(passed), code);
        }
        fit
    }
}

/// The length of the longest free segment that starts in the chunk.
fn longest_from(view: View<'_>, chunk: usize) -> usize {
    let inside = view.map.longest_run_in_chunk(chunk);
    let Some(last) = view.map.last_hole_in_chunk(chunk).filter(|&last| last < view.top) else {
        return inside;
    };
    inside.max(view.map.hole_end(last, view.top).above(last))
}

impl Search for Indexed {
    const NAME: &'static str = "indexed";
    const EMPTY: Self = Self { hints: [NONE; 256], levels: [const { Table::NONE }; LEVELS] };

    fn bytes(chunks: usize) -> usize {
        entries(chunks).iter().map(|&count| Table::<u8>::bytes(count)).sum()
    }

    fn attach(&mut self, reservation: &Reservation, offset: usize, chunks: usize) {
        self.hints = [NONE; 256];
        let mut offset = offset;
        for (level, count) in self.levels.iter_mut().zip(entries(chunks)) {
            *level = Table::new(reservation, offset, count);
            offset = offset.saturating_add(Table::<u8>::bytes(count));
        }
    }

    fn commit(&mut self, chunks: usize) -> bool {
        self.levels.iter_mut().zip(entries(chunks)).all(|(level, count)| level.commit(count))
    }

    fn committed(&self) -> usize {
        self.levels.iter().map(Table::committed).sum()
    }

    #[inline]
    fn look(&self, view: View<'_>, n: usize) -> Look {
        if n > EXACT {
            return Look::Search;
        }
        let hint = self.hint(n as u8);
        if hint == NONE {
            return Look::Wilderness;
        }
        match view.map.run_in_chunk(hint as usize, 0, n) {
            Some(start) if start < view.top => Look::Fits(start),
            Some(_) => Look::Wilderness,
            None => Look::Search,
        }
    }

    #[cold]
    fn search(&mut self, view: View<'_>, from: Granule, n: usize) -> Fit {
        if self.hint(code(n)) == NONE {
            return Fit { start: None, stepped: 0, probes: 0 };
        }
        if n <= EXACT { self.search_small(view, from, n) } else { self.search_large(view, from, n) }
    }

    /// What is left starts higher: it lowers no hint, and needs a bound only where it starts in another chunk.
    #[inline]
    fn took(&mut self, _view: View<'_>, start: Granule, _from: Granule, to: Granule, rest: Rest) {
        if to.chunk() == start.chunk() {
            return;
        }
        let bound = match rest {
            Rest::Exact(n) => code(n),
            Rest::Long => self.levels[0].get(start.chunk()),
        };
        self.raise_bound(to.chunk(), bound);
    }

    #[inline]
    fn gave(&mut self, _view: View<'_>, hole: (Granule, Granule), _from: Granule, _to: Granule) {
        self.appeared(hole.0.chunk(), code(hole.1.above(hole.0)));
    }

    fn left(&mut self, _view: View<'_>, _start: Granule) {}

    /// The words inside a huge segment are not kept, so no bound and no hint may send a search there.
    fn covered(&mut self, from: Granule, to: Granule) {
        let inside = from.chunk().wrapping_add(1)..to.down(1).chunk();
        for chunk in inside.clone() {
            if self.levels[0].get(chunk) != 0 {
                self.levels[0].set(chunk, 0);
            }
        }
        for hint in &mut self.hints {
            if inside.contains(&(*hint as usize)) {
                *hint = inside.end as u32;
            }
        }
    }

    fn largest(&self, view: View<'_>) -> usize {
        let mut largest = 0;
        self.largest_below(view, LEVELS - 1, 0, &mut largest);
        largest
    }

    fn check(
        &self,
        view: View<'_>,
        holes: &mut dyn Iterator<Item = (Granule, Granule)>,
    ) -> Result<(), Broken> {
        for (start, end) in holes {
            let code = code(end.above(start));
            let broken = |invariant, what| Err(Broken { invariant, at: start, what });
            if self.hint(code) as usize > start.chunk() {
                return broken("I3", "the hint for this size lies above the segment");
            }
            let mut index = start.chunk();
            for (height, level) in self.levels.iter().enumerate() {
                if level.get(index) < code {
                    return if height == 0 {
                        broken("I1", "the chunk's bound is below the segment's size")
                    } else {
                        broken("I2", "a parent's bound is below the segment's size")
                    };
                }
                index /= FAN_OUT;
            }
        }
        let ascend = self.hints.windows(2).all(|pair| pair.first() <= pair.last());
        if ascend {
            Ok(())
        } else {
            Err(Broken { invariant: "I3", at: view.top, what: "the hints do not ascend" })
        }
    }
}
