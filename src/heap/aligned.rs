//! Requests aligned to more than a granule: candidate after candidate, in address order.
//!
//! A free segment that is large enough may still lack an aligned place that is. Each candidate is verified, and the
//! search goes on behind it; a segment of `n + align / 16 - 1` granules always holds the request, so it ends there at
//! the latest. What such a search learns says nothing about requests of other alignments: it raises no hint.

use super::{Heap, Placement, granules};
use crate::free_list::{FreeList, View};
use crate::region::{BASE_ALIGN, GRANULE, Granule};

impl<L: FreeList> Heap<L> {
    /// Places a request whose alignment is above a granule.
    #[inline(never)]
    pub(super) fn place_aligned(&mut self, size: usize, align: usize) -> Placement {
        let n = granules(size);
        let mut from = Granule(0);
        let mut placement = Placement { start: None, stepped: 0, probes: 0 };
        loop {
            let view = View { map: &self.map, region: &self.region, top: self.top };
            let fit = self.list.search_from(view, from, n);
            placement.stepped = placement.stepped.wrapping_add(fit.stepped);
            placement.probes = placement.probes.wrapping_add(fit.probes);
            let Some(start) = fit.start else { break };
            let end = self.map.hole_end(start, self.top);
            let place = self.align_up(start, align);
            if place.is_some_and(|place| place < end && n <= end.above(place)) {
                placement.start = place;
                self.take_long(start, place.unwrap_or(start), place.unwrap_or(start).up(n));
                break;
            }
            placement.stepped = placement.stepped.wrapping_add(1);
            from = end;
        }
        if placement.start.is_none() {
            placement.start = self.extend_aligned(n, align);
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
        if self.region.base().is_null() {
            return None;
        }
        let place = self.align_up(old_top, align)?;
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

    /// The lowest granule at or above `from` whose address is a multiple of `align`; none beyond the address space.
    fn align_up(&self, from: Granule, align: usize) -> Option<Granule> {
        // The base is aligned to BASE_ALIGN, so most alignments are those of the offset.
        if align <= BASE_ALIGN {
            return from.0.checked_next_multiple_of(align / GRANULE).map(Granule);
        }
        let base = self.region.base().addr() / GRANULE;
        let address = base.checked_add(from.0)?.checked_next_multiple_of(align / GRANULE)?;
        Some(Granule(address.wrapping_sub(base)))
    }
}
