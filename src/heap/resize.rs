//! Resizing in place: a segment keeps its head, and its end moves.

use super::{Heap, granules};
use crate::free_list::FreeList;
use crate::region::Extent;

impl<L: FreeList> Heap<L> {
    /// Counts a `realloc`, and makes the segment hold `new_size` bytes without moving it. False, and nothing has changed,
    /// when neither a free segment right behind it nor the wilderness has enough.
    #[inline(always)]
    pub(crate) fn resize(&mut self, segment: Extent, new_size: usize) -> bool {
        self.tiling.counters.reallocs = self.tiling.counters.reallocs.wrapping_add(1);
        let to = segment.start.up(granules(new_size));
        if to < segment.end {
            self.tiling.cut(segment, to);
        } else if to > segment.end {
            let n = to.above(segment.end);
            if segment.end == self.top() && !self.make_ready(segment.end, n) {
                return false;
            }
            if !self.tiling.grow(segment, to) {
                return false;
            }
            // The heap does not know by how much the old size fell short of the segment: it takes it for full.
            self.tiling.counters.grew(new_size.saturating_sub(segment.bytes()), n);
        }
        self.tiling.counters.resized();
        true
    }
}
