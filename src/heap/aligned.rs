//! Requests aligned to more than a granule.

use super::{Heap, granules};
use crate::free_list::{Fit, FreeList};
use crate::region::Granule;

impl<L: FreeList> Heap<L> {
    /// Places a request whose alignment is above a granule: at the lowest aligned place of the lowest free segment that
    /// can hold it there. What lies in front of it in that segment stays free.
    #[inline(never)]
    pub(super) fn place_aligned(&mut self, size: usize, align: usize) -> Fit {
        let n = granules(size);
        let (fit, place) = self.list.search_aligned(&self.ground, n, align);
        let placed = match fit.start() {
            Some(start) => {
                self.take_long(start, place, place.up(n));
                place
            }
            None => match self.extend_aligned(n, align) {
                Some(start) => start,
                None => return self.fail(size, fit),
            },
        };
        self.counters.placed(size, n, fit.hops());
        fit.at(placed)
    }

    /// Takes `n` granules of the wilderness at its lowest aligned place; what lies in front is a free segment.
    fn extend_aligned(&mut self, n: usize, align: usize) -> Option<Granule> {
        let old_top = self.ground.top;
        let place = self.ground.region.align_up(old_top, align)?;
        let padding = place.above(old_top);
        let needed = n.checked_add(padding)?;
        if needed > self.ready.above(old_top) && !self.make_ready(old_top, needed) {
            return None;
        }
        self.ground.map.take_wilderness(place, place.up(n));
        self.counters.extended();
        self.ground.top = place.up(n);
        if padding > 0 {
            self.ground.map.note_hole(old_top, place);
            self.counters.padded();
            let owed = self.list.gave(&self.ground, (old_top, place), old_top, place);
            self.settle(owed);
            self.soil(old_top, place);
        }
        self.cover(place, place.up(n));
        Some(place)
    }
}
