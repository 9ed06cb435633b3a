//! The invariants of the index.

use super::Indexed;
use super::bounds::{FAN_OUT, LEVELS};
use super::size_code::{class, code};
use crate::free_list::{Broken, Ground};
use crate::region::Extent;
use crate::segment_map::chunk_start;

impl Indexed {
    /// What the index says of every free segment below top.
    pub(super) fn check_holes(&self, holes: &mut dyn Iterator<Item = Extent>) -> Result<(), Broken> {
        for hole in holes {
            let (start, n) = (hole.start, hole.len());
            let code = code(n);
            let broken = |invariant, what| Err(Broken { invariant, at: start, what });
            if self.hints.get(class(code)) > start.chunk() {
                return broken("I3", "the hint for this size lies above the segment");
            }
            if self.hints.refuted(n, start.chunk()) {
                return broken("I3", "a search has proven that there is no such segment");
            }
            let mut index = start.chunk();
            for height in 0..LEVELS {
                if self.bounds.level(height).get(index) < code {
                    return if height == 0 {
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

    /// Hints and bounds against each other.
    pub(super) fn check_bounds(&self, ground: &Ground) -> Result<(), Broken> {
        let last = ground.top.chunk();
        for chunk in 0..(last + 1).next_multiple_of(FAN_OUT) {
            let bound = self.bounds.get(chunk);
            let broken = |invariant, what| Err(Broken { invariant, at: chunk_start(chunk), what });
            if bound != 0 && chunk > last {
                return broken("I5", "a bound above top is not zero");
            }
            if bound != 0 && self.hints.get(class(bound)) > chunk {
                return broken("I4", "the hint for the chunk's bound lies above the chunk");
            }
            if self.hints.outbids(bound, chunk) {
                return broken("I4", "the chunk's bound lies above what a search has proven");
            }
        }
        if self.hints.ascend() {
            Ok(())
        } else {
            Err(Broken { invariant: "I3", at: ground.top, what: "the hints do not ascend" })
        }
    }
}

/// What tests of the check break.
#[cfg(test)]
impl Indexed {
    pub(crate) fn set_bound(&mut self, level: usize, index: usize, code: u8) {
        self.bounds.set(level, index, code);
    }

    pub(crate) fn set_proof(&mut self, n: usize, chunk: usize) {
        self.hints.set_proof(n, chunk);
    }

    pub(crate) fn set_hint(&mut self, class: usize, chunk: usize) {
        self.hints.set(class, chunk);
    }
}
