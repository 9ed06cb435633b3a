//! The tree of bounds: a byte per chunk, and inner entries that bound 64 entries of the level below, one cache line a node.
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

use super::group::{at_least, highest};
use super::hints::NONE;
use crate::free_list::Fit;
use crate::region::{CHUNK, GRANULE, NEAR, Reservation, SPARE_CHUNKS, Span, Table};
use core::ops::Range;
use static_assertions::const_assert;

/// Entries of a level that one entry of the next level bounds: a cache line of bytes.
pub(super) const FAN_OUT: usize = 64;
/// Levels of bounds. The top level of the largest region has a few entries.
pub(super) const LEVELS: usize = 5;
const_assert!(crate::region::MAX_REGION / crate::region::GRANULE / CHUNK <= FAN_OUT.pow(LEVELS as u32));

/// A bound per chunk, and the tree over them.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Bounds per chunk, then per [`FAN_OUT`] entries of the level below.
    levels: [Table<u8>; LEVELS],
    /// Where each level moves when it grows.
    far: [Span; LEVELS],
}

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

impl Bounds {
    pub(super) const EMPTY: Self =
        Self { levels: [const { Table::NONE }; LEVELS], far: [const { Span::NONE }; LEVELS] };

    /// Bytes of the reservation that the tree takes for so many chunks.
    pub(super) fn bytes(chunks: usize) -> usize {
        sizes(chunks)
            .map(|(count, near)| Table::<u8>::near_bytes(count, near) + Table::<u8>::far_bytes(count, near))
            .sum()
    }

    /// Takes its part of the reservation, for so many chunks.
    pub(super) fn attach(&mut self, reservation: &Reservation, offset: usize, chunks: usize) {
        let all_near: usize = sizes(chunks).map(|(count, near)| Table::<u8>::near_bytes(count, near)).sum();
        let (mut at, mut far_at) = (offset, offset.saturating_add(all_near));
        let places = self.levels.iter_mut().rev().zip(self.far.iter_mut().rev());
        for ((level, far), (count, near)) in places.zip(sizes(chunks)) {
            (*level, *far) = Table::small(reservation, (at, near), (far_at, count));
            at = at.saturating_add(Table::<u8>::near_bytes(count, near));
            far_at = far_at.saturating_add(Table::<u8>::far_bytes(count, near));
        }
    }

    /// Opens the tree for so many chunks (R2). False when the system refuses.
    pub(super) fn commit(&mut self, chunks: usize) -> bool {
        let places = self.levels.iter_mut().zip(&mut self.far);
        places.zip(entries(chunks)).all(|((level, far), count)| level.commit_small(far, count))
    }

    /// Bytes of the tree that are open.
    pub(super) fn committed(&self) -> usize {
        self.levels.iter().map(Table::committed).sum()
    }

    /// The bound of a chunk.
    #[inline(always)]
    pub(super) fn get(&self, chunk: usize) -> u8 {
        self.levels[0].get(chunk)
    }

    /// The table of a level. There are [`LEVELS`]; the last stands in for what is not one.
    #[inline(always)]
    pub(super) fn level(&self, level: usize) -> &Table<u8> {
        let [.., last] = &self.levels;
        self.levels.get(level).unwrap_or(last)
    }

    #[inline(always)]
    fn level_mut(&mut self, level: usize) -> &mut Table<u8> {
        let [lower @ .., last] = &mut self.levels;
        lower.get_mut(level).unwrap_or(last)
    }

    /// Raises the chunk's bound and those above it that are lower.
    #[inline(always)]
    pub(super) fn raise(&mut self, chunk: usize, code: u8) {
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
    pub(super) fn clear(&mut self, chunks: Range<usize>) {
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
    pub(super) fn next(&mut self, after: usize, last: usize, code: u8, fit: &mut Fit) -> usize {
        if let Some(chunk) = next_in_node(&self.levels[0], after, code) {
            fit.probe(1);
            return chunk;
        }
        let (chunk, nodes) = self.next_far(after, last, code);
        fit.probe(nodes);
        chunk
    }

    /// The same, where the first node has none: how many nodes were looked at comes second.
    #[inline(never)]
    fn next_far(&mut self, after: usize, last: usize, code: u8) -> (usize, usize) {
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

    /// No free segment larger than the code says starts in the chunk.
    #[inline(always)]
    pub(super) fn lower(&mut self, chunk: usize, code: u8) {
        self.levels[0].set(chunk, code.min(self.levels[0].get(chunk)));
    }

    /// For tests of what is checked.
    #[cfg(test)]
    pub(super) fn set(&mut self, level: usize, index: usize, code: u8) {
        self.levels[level].set(index, code);
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
