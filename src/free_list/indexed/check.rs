//! The invariants of the index.

use super::Indexed;
use super::bounds::{FAN_OUT, LEVELS, bound_of};
use super::hints::LARGEST;
use super::lengths::GROUP;
use crate::free_list::{Broken, Ground};
use crate::region::{CHUNK, Extent};
use crate::segment_map::chunk_start;

impl Indexed {
    /// Checks what the index says of every free segment below top.
    pub(super) fn check_holes(&self, holes: &mut dyn Iterator<Item = Extent>) -> Result<(), Broken> {
        for hole in holes {
            let (start, n) = (hole.start, hole.len());
            let broken = |invariant, what| Err(Broken { invariant, at: start, what });
            if self.hints.get(n.min(LARGEST)) > start.chunk() {
                return broken("I3", "the hint for this size lies above the segment");
            }
            if n >= CHUNK && !self.long.covers(0, start.chunk() / GROUP, n) {
                return broken("I1", "the length of the group is below the segment's");
            }
            let mut index = start.chunk();
            for level in 0..LEVELS {
                if self.bounds.entry(level, index) < bound_of(n) {
                    return if level == 0 {
                        broken("I1", "the chunk's bound is below the segment's size")
                    } else {
                        broken("I2", "a parent's bound is below the segment's size")
                    };
                }
                index /= FAN_OUT;
            }
        }
        Ok(())
    }

    /// Checks hints, bounds and lengths against each other and against the map.
    pub(super) fn check_bounds(&self, ground: &Ground) -> Result<(), Broken> {
        let last = ground.top.chunk();
        for chunk in 0..(last + 1).next_multiple_of(FAN_OUT) {
            let bound = self.bounds.get(chunk);
            let broken = |invariant, what| Err(Broken { invariant, at: chunk_start(chunk), what });
            if bound != 0 && chunk > last {
                return broken("I5", "a bound above top is not zero");
            }
            if bound != 0 && self.hints.get(usize::from(bound).min(LARGEST)) > chunk {
                return broken("I4", "the hint for the chunk's bound lies above the chunk");
            }
            if self.bounds.is_stale(chunk) {
                if !self.stale.contains(chunk) {
                    return broken("I6", "a stale chunk is not in the ring");
                }
            } else if bound != 0 && bound != bound_of(ground.map.longest_hole_in_chunk(chunk, ground.top)) {
                return broken("I6", "the chunk's bound is too high");
            }
        }
        self.check_groups(ground)?;
        let at = ground.top;
        if !self.bounds.are_maxima() || !self.long.are_maxima(0) {
            return Err(Broken { invariant: "I2", at, what: "a parent is not the maximum of its children" });
        }
        if !self.hints.ascend() {
            return Err(Broken { invariant: "I3", at, what: "the hints do not ascend" });
        }
        self.aligned.check(ground, &self.bounds)
    }

    /// Checks the lengths of all groups without a stale chunk.
    fn check_groups(&self, ground: &Ground) -> Result<(), Broken> {
        for group in 0..=ground.top.chunk() / GROUP {
            let mut chunks = group * GROUP..(group + 1) * GROUP;
            let stale = chunks.any(|chunk| self.bounds.is_stale(chunk));
            let longest = self.long_holes(ground, group).map(Extent::len).fold(0, usize::max);
            if !stale && !self.long.is_exact(0, group, longest) {
                let at = chunk_start(group * GROUP);
                return Err(Broken { invariant: "I6", at, what: "the length of a group is not exact" });
            }
        }
        Ok(())
    }
}

/// Breaks the index, for tests of the checks.
#[cfg(test)]
impl Indexed {
    pub(crate) fn set_bound(&mut self, level: usize, index: usize, bound: u8) {
        self.bounds.set_entry(level, index, bound);
    }

    pub(crate) fn set_hint(&mut self, n: usize, chunk: usize) {
        self.hints.set(n, chunk);
    }
}
