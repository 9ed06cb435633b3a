//! Resizing in place: a segment keeps its head, and its end moves.

use super::Heap;
use crate::free_list::{FreeList, Rest, View};
use crate::region::Granule;

impl<L: FreeList> Heap<L> {
    /// Makes the segment `at..at + old` one of `new` granules without moving it. False, and nothing has changed, when
    /// neither a free segment right behind it nor the wilderness has enough.
    ///
    /// `more` is what the request grew by in bytes, for the counters.
    pub(crate) fn resize_in_place(&mut self, at: Granule, old: usize, new: usize, more: usize) -> bool {
        let (end, to) = (at.up(old), at.up(new));
        if new <= old {
            if new < old {
                self.shrink(at, end, to);
            }
            self.counters.returned = self.counters.returned.wrapping_add(old.wrapping_sub(new) as u64);
            self.counters.requested = self.counters.requested.wrapping_add(more as u64);
        } else if end == self.top {
            if !self.grow_into_wilderness(at, end, to) {
                return false;
            }
            self.counters.grew(more, new.wrapping_sub(old));
        } else {
            if !self.grow_into_hole(at, end, to) {
                return false;
            }
            self.counters.grew(more, new.wrapping_sub(old));
        }
        self.counters.reallocs_in_place = self.counters.reallocs_in_place.wrapping_add(1);
        true
    }

    /// Gives back `to..end`, the tail of the segment at `at`.
    fn shrink(&mut self, at: Granule, end: Granule, to: Granule) {
        if end == self.top {
            self.map.move_end_at_top(at, end, to);
            self.counters.cut();
            self.counters.gave(false, true);
            self.lower_top(to, to);
            return;
        }
        let hole_end = self.hole_end_behind(end);
        self.map.move_end(at, end, to, hole_end);
        self.counters.cut();
        self.counters.gave(false, end < hole_end);
        let view = View { map: &self.map, region: &self.region, top: self.top };
        self.list.gave(view, (to, hole_end), to, end);
    }

    /// Takes `end..to` of the wilderness for the segment at `at`.
    fn grow_into_wilderness(&mut self, at: Granule, end: Granule, to: Granule) -> bool {
        if to > self.ready && !self.make_ready(end, to.above(end)) {
            return false;
        }
        self.map.move_end_at_top(at, end, to);
        self.top = to;
        self.cover(at, to);
        true
    }

    /// Takes `end..to` of the free segment behind the segment at `at`.
    fn grow_into_hole(&mut self, at: Granule, end: Granule, to: Granule) -> bool {
        let hole_end = self.hole_end_behind(end);
        if hole_end < to {
            return false;
        }
        self.map.move_end(at, end, to, hole_end);
        self.counters.grew_into_hole();
        self.counters.took(to < hole_end);
        let view = View { map: &self.map, region: &self.region, top: self.top };
        self.list.took(view, end, end, to, Rest::Exact(hole_end.above(to)));
        self.cover(at, to);
        true
    }

    /// Where the free segment that begins at `end` ends; `end` itself where a segment in use begins.
    fn hole_end_behind(&self, end: Granule) -> Granule {
        if self.map.is_free(end) { self.map.hole_end(end, self.top) } else { end }
    }
}
