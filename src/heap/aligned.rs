//! Requests aligned to more than a granule.

use super::{Heap, Placement, granules};
use crate::free_list::{FreeList, View};
use crate::region::Granule;

impl<L: FreeList> Heap<L> {
    /// Places a request whose alignment is above a granule: at the lowest aligned place of the lowest free segment that
    /// can hold it there. What lies in front of it in that segment stays free.
    #[inline(never)]
    pub(super) fn place_aligned(&mut self, size: usize, align: usize) -> Placement {
        let n = granules(size);
        let view = View { map: &self.map, region: &self.region, top: self.top };
        let (fit, place) = self.list.search_aligned(view, n, align);
        let mut placement = Placement { start: fit.start, stepped: fit.stepped, probes: fit.probes };
        match fit.start {
            Some(start) => {
                self.take_long(start, place, place.up(n));
                placement.start = Some(place);
            }
            None => placement.start = self.extend_aligned(n, align),
        }
        if placement.start.is_none() {
            return self.fail(size, placement);
        }
        self.counters.placed(size, n, placement.hops());
        placement
    }

    /// Takes `n` granules of the wilderness at its lowest aligned place; what lies in front is a free segment.
    fn extend_aligned(&mut self, n: usize, align: usize) -> Option<Granule> {
        let old_top = self.top;
        let place = self.region.align_up(old_top, align)?;
        let padding = place.above(old_top);
        let needed = n.checked_add(padding)?;
        if needed > self.ready.above(old_top) && !self.make_ready(old_top, needed) {
            return None;
        }
        self.map.take_wilderness(place, place.up(n));
        self.counters.extended();
        self.top = place.up(n);
        if padding > 0 {
            self.map.note_hole(old_top, place);
            self.counters.padded();
            let view = View { map: &self.map, region: &self.region, top: self.top };
            self.list.gave(view, (old_top, place), old_top, place);
        }
        self.cover(place, place.up(n));
        Some(place)
    }
}
