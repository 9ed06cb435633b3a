//! Which segment a pointer names: found with its layout or without, and checked.

use super::{Heap, granules, is_aligned};
use crate::free_list::FreeList;
use crate::region::{Extent, Granule};
use crate::segment_map::{HUGE, SHORT, Short};
use core::alloc::Layout;

impl<L: FreeList> Heap<L> {
    /// The segment that a pointer and its layout name. Ends the process if they name none.
    #[inline]
    pub(crate) fn find(&self, payload: *const u8, layout: Layout) -> Extent {
        match self.find_fast(payload, layout) {
            Some(short) => Extent::of(short.at, short.n),
            None => self.find_any(payload, layout),
        }
    }

    /// The same where one window shows the segment. None where that takes a longer look.
    #[inline(always)]
    pub(crate) fn find_fast(&self, payload: *const u8, layout: Layout) -> Option<Short> {
        let at = self.region().granule(payload);
        if at < self.top() && is_aligned(payload, layout) {
            self.find_short(Extent::of(at, granules(layout.size())))
        } else {
            None
        }
    }

    /// A segment in use, if it is as short as one window.
    #[inline(always)]
    pub(crate) fn find_short(&self, segment: Extent) -> Option<Short> {
        let n = segment.len();
        if n <= SHORT { self.tiling.ground.map.short_at(segment.start, n) } else { None }
    }

    /// The same as [`find`](Self::find) where the fast path declined, in the caller's frame.
    #[inline(always)]
    pub(crate) fn find_slow(&self, payload: *const u8, layout: Layout) -> Extent {
        let (at, n) = (self.region().granule(payload), granules(layout.size()));
        // Below top, and not huge, so that its end does not wrap.
        let inside = at < self.top() && n < HUGE && at.up(n) <= self.top();
        if inside && is_aligned(payload, layout) && self.tiling.ground.map.is_segment(at, at.up(n)) {
            return Extent::of(at, n);
        }
        self.find_any(payload, layout)
    }

    /// The same for any segment, and for what names none.
    #[inline(never)]
    fn find_any(&self, payload: *const u8, layout: Layout) -> Extent {
        let segment = self.find_payload(payload, Some(layout));
        if segment.len() != granules(layout.size()) || !is_aligned(payload, layout) {
            self.wrong_layout(payload, layout, segment);
        }
        segment
    }

    /// The segment in use that begins at a pointer. Ends the process if none does; the message names the layout, if there
    /// is one.
    pub(crate) fn find_payload(&self, payload: *const u8, layout: Option<Layout>) -> Extent {
        let at: Granule = self.region().granule(payload);
        if at < self.top() && self.tiling.ground.map.is_head(at) {
            return Extent::new(at, self.tiling.ground.map.used_end(at));
        }
        self.no_segment(payload, layout)
    }

    /// Frees a segment. `moved` says whether a `realloc` has moved from there.
    #[inline]
    pub(crate) fn give_back(&mut self, segment: Extent, moved: bool) {
        let counters = &mut self.tiling.counters;
        counters.reallocs_moved = counters.reallocs_moved.wrapping_add(u64::from(moved));
        let Some(short) = self.find_short(segment) else { return self.tiling.give(segment) };
        match self.tiling.give_fast(short) {
            Some(deferred) => self.tiling.settle(deferred),
            None => self.tiling.give_seen(short.at, short.n, short.below, short.above),
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/heap/find.rs"]
mod tests;
