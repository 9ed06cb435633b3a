//! A check of the whole heap: it names the first invariant that does not hold.

use super::Heap;
use crate::free_list::{Broken, FreeList};
use crate::region::{GRANULE, Granule};
use core::fmt;

#[cfg(test)]
#[path = "../../tests/unit/heap/check.rs"]
mod tests;

/// A broken invariant: the heap's bookkeeping contradicts itself.
///
/// A program that writes past its blocks cannot cause this with [`Indexed`](crate::Indexed), whose bookkeeping lies
/// beside the heap. With [`Linked`](crate::Linked), whose links lie in free segments, it can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Corruption {
    /// The invariant's name: M1 to M3 (segment map), L1 to L3 (free list), I1 to I5 (index), H1 (counters and top),
    /// or with the feature `hardened` F1 and F2 (free and quarantined memory).
    pub invariant: &'static str,
    /// The number of the region; 0 if there is only one.
    pub region: usize,
    /// The offset where it is broken, in bytes from the region's base.
    pub offset: usize,
    /// The contradiction at that offset.
    pub what: &'static str,
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at offset {:#x}", self.invariant, self.what, self.offset)
    }
}

impl core::error::Error for Corruption {}

impl From<Broken> for Corruption {
    fn from(broken: Broken) -> Self {
        Self { invariant: broken.invariant, region: 0, offset: broken.at.bytes(), what: broken.what }
    }
}

impl<L: FreeList> Heap<L> {
    /// Walks all segments, the free list and its index, and compares the counters with them.
    ///
    /// # Errors
    /// The first broken invariant and its place.
    ///
    /// ```
    /// let heap = smalloc::Heap::<smalloc::Linked>::with_region_size(1 << 16)?;
    /// assert_eq!(heap.check(), Ok(()));
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub fn check(&self) -> Result<(), Corruption> {
        if self.tiling.ground.region.base().is_null() {
            return Ok(());
        }
        let (mut used, mut live, mut holes, mut after_hole) = (0_u64, 0_u64, 0_usize, false);
        for run in self.runs() {
            let run = run?;
            let broken =
                |invariant, what| Err(Corruption::from(Broken { invariant, at: run.extent.start, what }));
            if run.in_use {
                used = used.wrapping_add(run.extent.len() as u64);
                live = live.wrapping_add(1);
            } else {
                holes = holes.wrapping_add(1);
                if after_hole {
                    return broken("M2", "two neighbours are both free");
                }
                if self.tiling.ground.map.hole_start(run.extent.end) != run.extent.start {
                    return broken("M1", "a free segment looks shorter or longer from its end");
                }
            }
            after_hole = !run.in_use;
        }
        self.check_counters(used, live, holes)?;
        let mut holes = self.runs().filter_map(Result::ok).filter(|run| !run.in_use).map(|run| run.extent);
        Ok(self.tiling.list.check(&self.tiling.ground, &mut holes)?)
    }

    fn check_counters(&self, used: u64, live: u64, holes: usize) -> Result<(), Corruption> {
        let broken =
            |what| Err(Corruption::from(Broken { invariant: "H1", at: self.tiling.ground.top, what }));
        let counters = &self.tiling.counters;
        if used != counters.usage.used() {
            return broken("the bytes in use are not what was counted");
        }
        if live != counters.placed_total().wrapping_sub(counters.freed) {
            return broken("the segments in use are not as many as were counted");
        }
        if holes != counters.holes() {
            return broken("the free segments are not as many as were counted");
        }
        if self.tiling.ground.top > self.tiling.ready
            || self.tiling.ready > Granule(self.tiling.ground.region.size() / GRANULE).min(self.limit)
        {
            return broken("top lies above what is open, or that above the region or the limit");
        }
        if !self.tiling.ground.map.is_clear_from(self.tiling.ground.top) {
            return broken("a granule of the wilderness is in use");
        }
        Ok(())
    }
}
