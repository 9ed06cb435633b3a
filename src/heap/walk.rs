//! All segments, in ascending order.

use super::{Heap, broken};
use crate::free_list::{Broken, FreeList};
use crate::inspect::{Segment, SegmentBuffer};
use crate::region::{Extent, Granule};

/// A segment below top.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) extent: Extent,
    pub(crate) in_use: bool,
}

/// The segments in ascending order. Ends with the first error if the map is corrupt (M1, M3).
#[derive(Debug)]
pub(crate) struct Runs<'a, L: FreeList> {
    heap: &'a Heap<L>,
    at: Granule,
}

impl<L: FreeList> Heap<L> {
    pub(crate) fn runs(&self) -> Runs<'_, L> {
        Runs { heap: self, at: Granule(0) }
    }

    /// The number of segments, including the wilderness.
    pub(crate) fn segment_count(&self) -> usize {
        let counters = &self.tiling.counters;
        let live = counters.placed_total().wrapping_sub(counters.freed) as usize;
        live.saturating_add(counters.holes()).saturating_add(1)
    }

    /// Copies all segments. False if the buffer is too small.
    pub(crate) fn copy_segments(&self, buffer: &mut SegmentBuffer) -> bool {
        buffer.clear();
        let fitted = self.visit_segments(|segment| buffer.push(segment));
        let offset = self.tiling.ground.top.bytes();
        let size = self.tiling.ground.region.size().saturating_sub(offset);
        fitted && (size == 0 || buffer.push(Segment { offset, size, in_use: false }))
    }

    /// Calls `visit` with each segment below top until it returns false. Returns whether it never did.
    #[inline]
    pub(crate) fn visit_segments(&self, mut visit: impl FnMut(Segment) -> bool) -> bool {
        let mut offset = 0;
        let visited = self.tiling.ground.map.visit_ends(self.tiling.ground.top, |end, in_use| {
            let size = end.bytes().wrapping_sub(offset);
            let segment = Segment { offset, size, in_use };
            offset = end.bytes();
            visit(segment)
        });
        visited.unwrap_or_else(|bad| broken("M1", "a segment in use has no head", bad.0))
    }
}

impl<L: FreeList> Iterator for Runs<'_, L> {
    type Item = Result<Run, Broken>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let Self { heap, at: start } = *self;
        if start >= heap.top() {
            return None;
        }
        let in_use = heap.tiling.ground.map.is_head(start);
        let broken = |invariant, what| Some(Err(Broken { invariant, at: start, what }));
        self.at = heap.top();
        let end = if in_use {
            heap.tiling.ground.map.used_end(start)
        } else if !heap.tiling.ground.map.is_free(start) {
            return broken("M1", "no segment begins where the one before it ends");
        } else {
            heap.tiling.ground.map.hole_end(start, heap.top())
        };
        if !in_use && end == heap.top() {
            return broken("M3", "a free segment touches top");
        }
        if end > heap.top() {
            return broken("M1", "a segment reaches above top");
        }
        self.at = end;
        Some(Ok(Run { extent: Extent::new(start, end), in_use }))
    }
}
