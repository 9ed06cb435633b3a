//! All segments below top, in ascending order.

use super::Heap;
use crate::free_list::{Broken, FreeList};
use crate::region::Granule;

/// A segment below top.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) start: Granule,
    pub(crate) end: Granule,
    pub(crate) in_use: bool,
}

/// Goes through the segment map. Ends with the first error, if the map makes no sense (M1, M3).
#[derive(Debug)]
pub(crate) struct Runs<'a, L: FreeList> {
    heap: &'a Heap<L>,
    at: Granule,
}

impl<L: FreeList> Heap<L> {
    pub(crate) fn runs(&self) -> Runs<'_, L> {
        Runs { heap: self, at: Granule(0) }
    }
}

impl<L: FreeList> Iterator for Runs<'_, L> {
    type Item = Result<Run, Broken>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Self { heap, at: start } = *self;
        if start >= heap.ground.top {
            return None;
        }
        let in_use = heap.ground.map.is_head(start);
        let broken = |invariant, what| Some(Err(Broken { invariant, at: start, what }));
        self.at = heap.ground.top;
        let end = if in_use {
            heap.ground.map.used_end(start)
        } else if !heap.ground.map.is_free(start) {
            return broken("M1", "no segment begins where the one before it ends");
        } else {
            heap.ground.map.hole_end(start, heap.ground.top)
        };
        if !in_use && end == heap.ground.top {
            return broken("M3", "a free segment touches top");
        }
        if end > heap.ground.top {
            return broken("M1", "a segment reaches above top");
        }
        self.at = end;
        Some(Ok(Run { start, end, in_use }))
    }
}
