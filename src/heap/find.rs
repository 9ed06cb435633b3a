//! Finding the segment that a pointer names, with or without its layout, and checking both.

use super::{Heap, granules, granules_or_many, is_aligned};
use crate::free_list::FreeList;
use crate::region::{Extent, Granule};
use crate::segment_map::{HUGE, SHORT, Short};
use core::alloc::Layout;
use core::ptr::NonNull;

impl<L: FreeList> Heap<L> {
    /// The segment of a payload and its layout. Ends the process if there is none.
    #[inline]
    pub(crate) fn find(&self, payload: *const u8, layout: Layout) -> Extent {
        match self.find_fast(payload, layout) {
            Some(short) => Extent::of(short.at, short.n),
            None => self.find_any(payload, layout),
        }
    }

    /// The segment of a payload and its layout if one window shows it. None if the slow path must look.
    #[inline(always)]
    pub(crate) fn find_fast(&self, payload: *const u8, layout: Layout) -> Option<Short> {
        let n = granules_or_many(layout.size());
        if n > SHORT {
            return None;
        }
        let at = self.region().granule(payload);
        let found = if at < self.top() { self.tiling.ground.map.short_at(at, n) } else { None };
        found.filter(|_| is_aligned(payload, layout))
    }

    /// The segment in use that begins at a payload if one window shows it. None if the slow path must look.
    #[inline(always)]
    pub(crate) fn find_fast_by_pointer(&self, payload: *const u8) -> Option<Short> {
        let at = self.region().granule(payload);
        if at < self.top() { self.tiling.ground.map.short_from(at) } else { None }
    }

    /// The segment, if it is in use and one window shows all of it.
    #[inline(always)]
    pub(crate) fn find_short(&self, segment: Extent) -> Option<Short> {
        let n = segment.len();
        if n <= SHORT { self.tiling.ground.map.short_at(segment.start, n) } else { None }
    }

    /// The segment of a payload and its layout after the fast path declined, in the caller's frame.
    #[inline(always)]
    pub(crate) fn find_slow(&self, payload: *const u8, layout: Layout) -> Extent {
        let (at, n) = (self.region().granule(payload), granules(layout.size()));
        // Below top, and not huge, so that the sum does not wrap.
        let inside = at < self.top() && n < HUGE && at.up(n) <= self.top();
        if inside && is_aligned(payload, layout) && self.tiling.ground.map.is_segment(at, at.up(n)) {
            return Extent::of(at, n);
        }
        self.find_any(payload, layout)
    }

    /// The segment of a payload and its layout, of any size. Ends the process if there is none.
    #[inline(never)]
    fn find_any(&self, payload: *const u8, layout: Layout) -> Extent {
        let segment = self.find_payload(payload, Some(layout));
        if segment.len() != granules(layout.size()) || !is_aligned(payload, layout) {
            self.wrong_layout(payload, layout, segment);
        }
        segment
    }

    /// The segment in use that begins at a payload. If none does, ends the process with a line that names the layout.
    pub(crate) fn find_payload(&self, payload: *const u8, layout: Option<Layout>) -> Extent {
        match self.segment_at(payload) {
            Some(segment) => segment,
            None => self.no_segment(payload, layout),
        }
    }

    /// The segment in use that begins at an address; None if none does.
    pub(crate) fn segment_at(&self, payload: *const u8) -> Option<Extent> {
        let at: Granule = self.region().granule(payload);
        let begins = at < self.top() && self.tiling.ground.map.is_head(at);
        begins.then(|| Extent::new(at, self.tiling.ground.map.used_end(at)))
    }

    /// The bytes that a payload may use: those of its segment, the requested size rounded up to 16. `None` if no
    /// payload in use begins there.
    #[must_use]
    pub fn usable_size(&self, payload: NonNull<u8>) -> Option<usize> {
        self.segment_at(payload.as_ptr()).map(Extent::bytes)
    }

    /// Whether an address lies in the region, in use or free.
    #[must_use]
    pub fn contains(&self, address: *const u8) -> bool {
        address.addr().wrapping_sub(self.base().addr()) < self.region_size()
    }

    /// The length in granules of the segment in use that begins at `at`, below top; None if there is none.
    pub(crate) fn length_in_use(&self, at: Granule) -> Option<usize> {
        let map = &self.tiling.ground.map;
        map.is_head(at).then(|| map.used_end(at).above(at))
    }

    /// Frees a segment. `moved` counts it as one that a `realloc` has moved from.
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
