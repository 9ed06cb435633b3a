//! Read-only queries. They correct no stale bounds, so later searches cost what they would have cost.

use super::Indexed;
use super::lengths::GROUP;
use crate::free_list::{Fit, Ground};
use crate::region::{CHUNK, Extent, Granule, NODE};

impl Indexed {
    /// The lowest free segment of at least a chunk and `n` granules that starts at or above `from`.
    pub(super) fn next_long(&self, ground: &Ground, from: Granule, n: usize) -> Option<Granule> {
        let mut group = from.chunk() / GROUP;
        loop {
            group = self.long.next(0, group, n.max(CHUNK), &mut Fit::NONE.clone())?;
            let fits = |hole: &Extent| hole.start >= from && hole.len() >= n;
            if let Some(hole) = self.long_holes(ground, group).find(fits) {
                return Some(hole.start);
            }
            group = group.wrapping_add(1);
        }
    }

    /// The size of the largest free segment below top, in granules; 0 if there is none.
    pub(super) fn largest_hole(&self, ground: &Ground) -> usize {
        let long = Promises {
            entry: &|level, index| self.long.promise(0, level, index),
            exact: &|group| self.long_holes(ground, group).map(Extent::len).fold(0, usize::max),
        };
        let short = Promises {
            entry: &|level, index| self.bounds.entry(level, index).into(),
            exact: &|chunk| ground.map.longest_hole_in_chunk(chunk, ground.top),
        };
        match long.largest_below(self.long.root(), 0, CHUNK - 1) {
            none if none < CHUNK => short.largest_below(self.bounds.root(), 0, 0),
            largest => largest,
        }
    }
}

/// A tree of sizes in which some entries are too high.
struct Promises<'a> {
    /// The entry of a level.
    entry: &'a dyn Fn(usize, usize) -> usize,
    /// The value that the entry of level 0 should have.
    exact: &'a dyn Fn(usize) -> usize,
}

impl Promises<'_> {
    /// The larger of `best` and the largest size below a node. Visits the highest entries first, so the rest is visited
    /// only where those were too high.
    fn largest_below(&self, level: usize, node: usize, mut best: usize) -> usize {
        let mut visited = 0_u64;
        loop {
            let left = (0..NODE).filter(|entry| visited >> entry & 1 == 0).map(|entry| node * NODE + entry);
            let Some(highest) = left.max_by_key(|&index| (self.entry)(level, index)) else { return best };
            if (self.entry)(level, highest) <= best {
                return best;
            }
            visited |= 1 << (highest % NODE);
            best = match level.checked_sub(1) {
                Some(below) => self.largest_below(below, highest, best),
                None => best.max((self.exact)(highest)),
            };
        }
    }
}
