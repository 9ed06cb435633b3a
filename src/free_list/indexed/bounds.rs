//! A bound per chunk on the free segments that start in it, and the tree over the bounds.
//!
//! ```text
//! level 2                          [ 9 ...                     ]
//! level 1              [ 4  0  9 ...  ]    [ 3 ...             ]
//! level 0  bounds  [ 2 0 4 ... ] [ 0 ... ] [ 0 9 1 ... ]
//! map       words    ^chunk 0                  ^chunk 129
//! ```
//!
//! A bound is a byte: the size in granules of the longest free segment that starts in the chunk. [`LONG`] stands for a
//! chunk or more; [`Lengths`](super::lengths::Lengths) has the sizes of those. Each inner entry is the maximum of the
//! 64 entries below it, which share a cache line.
//!
//! Bounds are exact, unless they are marked [`STALE`]: see [`stale`](super::stale).

use super::group::{Entry, PART, VALUE, first_from, highest, root_of};
use super::hints::NONE;
use super::lengths::GROUP;
use crate::free_list::Fit;
use crate::region::{CHUNK, GRANULE, NEAR, NODE, Reservation, SPARE_CHUNKS, Span, Table};
use core::ops::Range;
use static_assertions::const_assert;

/// Entries of a level that one entry of the next level bounds: a cache line of bytes.
pub(super) const FAN_OUT: usize = NODE;
/// Levels of bounds. The top level of the largest region has a few entries.
pub(super) const LEVELS: usize = 5;
/// The bound of a chunk in which a free segment of a chunk or more starts. No lower bound has this bit.
pub(super) const LONG: u8 = CHUNK as u8;
/// Marks a bound that may be too high. Comparisons leave it out.
pub(super) const STALE: u8 = !VALUE;

const_assert!(crate::region::MAX_REGION / crate::region::GRANULE / CHUNK <= FAN_OUT.pow(LEVELS as u32));

/// The bound of a free segment of `n` granules.
#[inline(always)]
pub(super) fn bound_of(n: usize) -> u8 {
    if n < CHUNK { n as u8 } else { LONG }
}

/// A bound per chunk, and the tree over them.
#[derive(Debug)]
pub(super) struct Bounds {
    /// Bounds per chunk, then per [`FAN_OUT`] entries of the level below.
    levels: [Table<u8>; LEVELS],
    /// The second place of each level, to which it moves when it grows.
    far: [Span; LEVELS],
    /// The level whose first node bounds everything that is committed.
    root: usize,
}

/// Entries of each level for so many chunks; none of those above the root.
fn entries(chunks: usize) -> [usize; LEVELS] {
    let mut entries = [0; LEVELS];
    let mut count = chunks.saturating_add(SPARE_CHUNKS);
    for level in &mut entries {
        *level = count.next_multiple_of(FAN_OUT).saturating_add(FAN_OUT);
        count = count.div_ceil(FAN_OUT);
    }
    entries
}

/// Entries of each level for so many chunks, and how many of them may lie in its first place: all of the lowest, and of
/// the others what [`NEAR`] bytes need. From the top down: so the small ones share a page with the beginning of the
/// large one.
fn sizes(chunks: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut near = entries(NEAR / GRANULE / CHUNK);
    near[0] = usize::MAX;
    entries(chunks).into_iter().rev().zip(near.into_iter().rev())
}

impl Bounds {
    pub(super) const EMPTY: Self =
        Self { levels: [const { Table::NONE }; LEVELS], far: [const { Span::NONE }; LEVELS], root: 0 };

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
        let done = places.zip(entries(chunks)).all(|((level, far), count)| level.commit_small(far, count));
        if done {
            self.root = root_of(chunks.saturating_add(SPARE_CHUNKS)).max(self.root);
        }
        done
    }

    /// Bytes of the tree that are open.
    pub(super) fn committed(&self) -> usize {
        self.levels.iter().map(Table::committed).sum()
    }

    /// The level whose first node has the maximum of everything.
    pub(super) fn root(&self) -> usize {
        self.root
    }

    #[inline(always)]
    pub(super) fn get(&self, chunk: usize) -> u8 {
        self.marked(chunk) & !STALE
    }

    /// The bound of a chunk, with [`STALE`] if it may be too high.
    #[inline(always)]
    pub(super) fn marked(&self, chunk: usize) -> u8 {
        self.levels[0].get(chunk)
    }

    #[inline(always)]
    pub(super) fn is_stale(&self, chunk: usize) -> bool {
        self.marked(chunk) & STALE != 0
    }

    #[inline(always)]
    pub(super) fn mark_stale(&mut self, chunk: usize) {
        self.levels[0].set(chunk, self.marked(chunk) | STALE);
    }

    /// The chunks of a group in which a long free segment starts.
    #[inline(always)]
    pub(super) fn long_in_group(&self, group: usize) -> impl Iterator<Item = usize> + use<> {
        let first = group.wrapping_mul(GROUP);
        let bytes: [u8; GROUP] = self.levels[0].run(first);
        let mut long = u64::from_le_bytes(bytes) & u64::from_le_bytes([LONG; GROUP]);
        core::iter::from_fn(move || {
            let place = long.trailing_zeros() as usize / 8;
            long &= long.wrapping_sub(1);
            (place < GROUP).then_some(first.wrapping_add(place))
        })
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

    /// A free segment with this bound starts in the chunk now.
    #[inline(always)]
    pub(super) fn raise(&mut self, chunk: usize, bound: u8) {
        let old = self.marked(chunk);
        if old & !STALE < bound {
            self.levels[0].set(chunk, bound | old & STALE);
            let mut index = chunk;
            for level in self.levels.iter_mut().skip(1) {
                index /= FAN_OUT;
                if level.get(index) >= bound {
                    return;
                }
                level.set(index, bound);
            }
        }
    }

    /// Lowers the bound of a chunk, which stays stale.
    #[inline(always)]
    pub(super) fn lower_stale(&mut self, chunk: usize, bound: u8) {
        self.lower(chunk, bound | STALE);
    }

    /// Sets the bound of a chunk to what is exact, and no higher than before.
    #[inline(always)]
    pub(super) fn set_exact(&mut self, chunk: usize, bound: u8) {
        if self.get(chunk) == bound {
            self.levels[0].set(chunk, bound);
        } else {
            self.lower(chunk, bound);
        }
    }

    #[inline(always)]
    fn lower(&mut self, chunk: usize, marked: u8) {
        let old = self.get(chunk);
        self.levels[0].set(chunk, marked);
        if self.levels[1].get(chunk / FAN_OUT) == old {
            self.lower_above(chunk, old);
        }
    }

    /// Sets the entries above a chunk, as far as they are `old`, to the maxima of the entries below them.
    #[inline(never)]
    fn lower_above(&mut self, chunk: usize, old: u8) {
        let mut index = chunk;
        for level in 1..LEVELS {
            index /= FAN_OUT;
            if self.level(level).get(index) != old {
                return;
            }
            let highest = self.highest(level.wrapping_sub(1), index);
            self.level_mut(level).set(index, highest);
            if highest == old {
                return;
            }
        }
    }

    /// No free segment begins in these chunks any more.
    #[inline(never)]
    pub(super) fn clear(&mut self, chunks: Range<usize>) {
        let mut chunk = chunks.start;
        while chunk < chunks.end {
            let node = chunk / FAN_OUT;
            let end = ((node + 1) * FAN_OUT).min(chunks.end);
            if (chunk..end).fold(0, |any, chunk| any | self.marked(chunk)) != 0 {
                (chunk..end).for_each(|chunk| self.levels[0].set(chunk, 0));
                self.lower_above(chunk, self.levels[1].get(node));
            }
            chunk = end;
        }
    }

    /// The lowest chunk above `after` whose bound is `bound` or more; [`NONE`] if there is none. Counts the nodes.
    #[inline(always)]
    pub(super) fn next(&self, after: usize, bound: u8, fit: &mut Fit) -> usize {
        // It is near most of the time. There are spare chunks behind the last one.
        let near = after.wrapping_add(1);
        let fits = u8::at_least(&self.levels[0].run(near), bound);
        if fits != 0 {
            fit.probe(1);
            return near.wrapping_add(fits.trailing_zeros() as usize);
        }
        let (chunk, nodes) = self.next_far(near.wrapping_add(PART), bound);
        fit.probe(nodes);
        chunk
    }

    /// The lowest chunk from `from` on, and how many nodes were looked at.
    #[inline(never)]
    fn next_far(&self, from: usize, bound: u8) -> (usize, usize) {
        let (mut level, mut node, mut from) = (0_usize, from / FAN_OUT, from % FAN_OUT);
        let mut nodes = 0_usize;
        loop {
            // An entry that promises less spares its node a look.
            let above = level.wrapping_add(1);
            if level == self.root || self.level(above).get(node) >= bound {
                nodes = nodes.wrapping_add(1);
                let found = first_from(self.level(level).node(node), from, bound);
                if found < FAN_OUT {
                    let chunk = self.descend(level, node * FAN_OUT + found, bound);
                    return (chunk, nodes.wrapping_add(level));
                }
            }
            if level == self.root {
                return (NONE, nodes);
            }
            (level, node, from) = (above, node / FAN_OUT, node % FAN_OUT + 1);
        }
    }

    /// The lowest chunk below an entry of a level, which promises `bound`.
    #[inline]
    fn descend(&self, mut level: usize, mut index: usize, bound: u8) -> usize {
        while level > 0 {
            level = level.wrapping_sub(1);
            let found = first_from(self.level(level).node(index), 0, bound);
            index = index.wrapping_mul(FAN_OUT).wrapping_add(found % FAN_OUT);
        }
        index
    }

    /// An entry of a level.
    pub(super) fn entry(&self, level: usize, index: usize) -> u8 {
        self.level(level).get(index) & !STALE
    }

    /// The highest entry of a node.
    fn highest(&self, level: usize, node: usize) -> u8 {
        highest(self.level(level).node(node))
    }

    /// Whether every entry above the chunks is the maximum of those below it.
    pub(super) fn are_maxima(&self) -> bool {
        (1..LEVELS).all(|level| {
            let nodes = self.level(level - 1).committed() / FAN_OUT;
            (0..nodes.min(self.level(level).committed()))
                .all(|node| self.level(level).get(node) == self.highest(level - 1, node))
        })
    }

    /// Breaks an entry, for tests of the checks.
    #[cfg(test)]
    pub(super) fn set_entry(&mut self, level: usize, index: usize, bound: u8) {
        self.levels[level].set(index, bound);
    }
}
