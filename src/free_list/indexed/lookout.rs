//! Looking through the index without learning from it: whoever only looks leaves every later search what it costs.

use super::bounds::FAN_OUT;
use super::group::at_least;
use super::size_code::{EXACT, code};
use super::{Indexed, Query};
use crate::free_list::Ground;
use crate::region::Granule;
use static_assertions::const_assert;

impl Indexed {
    /// The lowest fit that starts below a node of the tree. Bounds that promise too much stay as they are.
    pub(super) fn lowest_below(
        &self,
        ground: &Ground,
        (level, node): (usize, usize),
        query: &Query,
    ) -> Option<Granule> {
        let shift = 6 * level;
        let mut fits = at_least(self.bounds.level(level).node(node), code(query.n));
        while fits != 0 {
            let index = node * FAN_OUT + fits.trailing_zeros() as usize;
            fits &= fits.wrapping_sub(1);
            if index < query.from.chunk() >> shift {
                continue;
            }
            if index > ground.top.chunk() >> shift {
                return None;
            }
            let found = match level.checked_sub(1) {
                Some(below) => self.lowest_below(ground, (below, index), query),
                None => Self::fit_in_chunk(ground, index, query).ok(),
            };
            if found.is_some() {
                return found;
            }
        }
        None
    }

    /// Raises `largest` to the largest free segment below a node, passing over what its bounds exclude.
    pub(super) fn largest_below(&self, ground: &Ground, level: usize, node: usize, largest: &mut usize) {
        for (child, &bound) in self.bounds.level(level).node(node).0.iter().enumerate() {
            let index = node * FAN_OUT + child;
            let too_low = bound < code(*largest) || (bound < EXACT as u8 && usize::from(bound) <= *largest);
            if bound == 0 || too_low || index << (6 * level) > ground.top.chunk() {
                continue;
            }
            match level.checked_sub(1) {
                Some(below) => self.largest_below(ground, below, index, largest),
                None => *largest = (*largest).max(ground.map.longest_hole_in_chunk(index, ground.top)),
            }
        }
    }
}

const_assert!(FAN_OUT == 1 << 6);
