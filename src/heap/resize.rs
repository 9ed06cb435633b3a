//! Resizing in place: a segment keeps its head, and its end moves.

use super::{Heap, granules};
use crate::free_list::{FreeList, Rest};
use crate::region::{CHUNK, Granule};
use crate::segment_map::HUGE;

impl<L: FreeList> Heap<L> {
    /// Makes the segment `at..at + old` one that holds `new_size` bytes, without moving it. False, and nothing has
    /// changed, when neither a free segment right behind it nor the wilderness has enough.
    #[inline(always)]
    pub(super) fn resize_in_place(&mut self, at: Granule, old: usize, new_size: usize) -> bool {
        let new = granules(new_size);
        let (end, to) = (at.up(old), at.up(new));
        if new < old {
            self.shrink(at, end, to);
            self.counters.usage.shrank(old.wrapping_sub(new));
        } else if new > old {
            let grown = if end == self.ground.top {
                self.grow_into_wilderness(at, end, to)
            } else {
                self.grow_into_hole(at, end, to)
            };
            if !grown {
                return false;
            }
            // What was asked for before filled the segment, as far as anyone remembers.
            self.counters.grew(new_size.saturating_sub(Granule(old).bytes()), new.wrapping_sub(old));
        }
        self.counters.resized();
        true
    }

    /// Gives back `to..end`, the tail of the segment at `at`.
    #[inline(always)]
    fn shrink(&mut self, at: Granule, end: Granule, to: Granule) {
        if end == self.ground.top {
            self.ground.map.move_end_at_top(at, end, to);
            self.counters.cut();
            self.counters.gave(false, true);
            let owed = self.lower_top(to, to);
            self.settle(owed);
            self.soil_wilderness(to);
            return;
        }
        let hole_end = self.hole_end_behind(end);
        self.ground.map.move_end(at, end, to, hole_end);
        self.counters.cut();
        self.counters.gave(false, end < hole_end);
        let owed = self.list.gave(&self.ground, (to, hole_end), to, end);
        self.settle(owed);
        self.soil(to, end);
    }

    /// Takes `end..to` of the wilderness for the segment at `at`.
    fn grow_into_wilderness(&mut self, at: Granule, end: Granule, to: Granule) -> bool {
        if to > self.ready && !self.make_ready(end, to.above(end)) {
            return false;
        }
        self.ground.map.move_end_at_top(at, end, to);
        self.ground.top = to;
        self.cover_more(at, end, to);
        true
    }

    /// Takes `end..to` of the free segment behind the segment at `at`.
    #[inline(always)]
    fn grow_into_hole(&mut self, at: Granule, end: Granule, to: Granule) -> bool {
        let hole_end = self.hole_end_behind(end);
        if hole_end < to {
            return false;
        }
        self.ground.map.move_end(at, end, to, hole_end);
        self.counters.grew_into_hole();
        self.counters.took(to < hole_end);
        self.list.took(&self.ground, end, end, to, Rest::Exact(hole_end.above(to)));
        self.cover_more(at, end, to);
        true
    }

    /// Tells the list of what a segment has grown by, if the map does not keep the words inside it.
    fn cover_more(&mut self, at: Granule, end: Granule, to: Granule) {
        if to.above(at) >= HUGE {
            // The last chunk of what was huge before has been kept until now.
            let from = if end.above(at) >= HUGE { end.down(CHUNK + 1) } else { at };
            self.list.covered(from, to);
        }
    }

    /// Where the free segment below top that begins at `end` ends; `end` itself where there is none.
    pub(super) fn hole_end_behind(&self, end: Granule) -> Granule {
        if self.ground.map.is_free(end) { self.ground.map.hole_end(end, self.ground.top) } else { end }
    }
}
