//! Resizing in place: a segment's end moves, its start stays.

use super::{Heap, granules};
use crate::free_list::FreeList;
use crate::region::Extent;

impl<L: FreeList> Heap<L> {
    /// Resizes a segment in place to hold `new_size` bytes, and counts a `realloc`. False, and the segment is
    /// unchanged, if neither the free segment behind it nor the wilderness has enough room.
    #[inline(always)]
    pub(crate) fn resize(&mut self, segment: Extent, new_size: usize) -> bool {
        self.tiling.counters.reallocs = self.tiling.counters.reallocs.wrapping_add(1);
        let to = segment.start.up(granules(new_size));
        if to < segment.end {
            self.tiling.cut(segment, to);
        } else if to > segment.end {
            let n = to.above(segment.end);
            if segment.end == self.top() && !self.commit_from(segment.end, n) {
                return false;
            }
            if !self.tiling.grow(segment, to) {
                return false;
            }
            // The old size in bytes is unknown; assume that it filled the segment.
            self.tiling.counters.grew(new_size.saturating_sub(segment.bytes()), n);
        }
        self.tiling.counters.resized();
        true
    }
}
