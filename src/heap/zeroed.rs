//! What is known to be zero: pages as the system gave them, or gives them again after they were purged.

use super::{Heap, granules};
use crate::free_list::{Fit, FreeList};
use crate::region::{GRANULE, Granule};
use core::ptr::NonNull;

impl<L: FreeList> Heap<L> {
    /// Granules at the start of a hole that the list writes to.
    pub(super) const LINKS: usize = L::LINK_BYTES.div_ceil(GRANULE);

    /// Places a request for zeroed memory. What of it may not be zero, [`Self::next_unknown`] says.
    pub(crate) fn place_zeroed(&mut self, size: usize, align: usize) -> Fit {
        let before = self.wilderness();
        let placement = self.place(size, align);
        self.soil_placed(before, placement.start(), size);
        placement
    }

    /// Where the wilderness begins, and up to where all of it may hold something.
    pub(crate) fn wilderness(&self) -> (Granule, Granule) {
        (self.ground.top, self.touched.max(self.ground.top))
    }

    /// Marks what a request of `size` bytes took of the part of the wilderness that may hold something. `before` is what
    /// [`Self::wilderness`] said before the request.
    pub(crate) fn soil_placed(&mut self, before: (Granule, Granule), start: Option<Granule>, size: usize) {
        let (top, touched) = before;
        if let Some(at) = start.filter(|&at| at >= top) {
            self.pages.soil(at, at.up(granules(size)).min(touched));
        }
    }

    /// Of the `size` bytes at `at`, which are in use and have not been written to since they were placed, the lowest at or
    /// above `from` that may not be zero, and from where to go on.
    ///
    /// Other threads do not change the answer: marks of pages that lie wholly in a segment in use stay as they are.
    pub(crate) fn next_unknown(
        &self,
        at: Granule,
        size: usize,
        from: Granule,
    ) -> Option<(NonNull<[u8]>, Granule)> {
        let to = at.up(granules(size));
        let (first, end) = self.pages.whole(at.up(Self::LINKS), to);
        let (from, next) = if first >= end {
            (from, to)
        } else if from < first {
            (from, first)
        } else {
            self.pages.dirty_run(from, end).unwrap_or((end.max(from), to))
        };
        let offset = from.above(at).wrapping_mul(GRANULE);
        let bytes = size.min(next.above(at).wrapping_mul(GRANULE)).saturating_sub(offset);
        (from < to && bytes > 0)
            .then(|| (NonNull::slice_from_raw_parts(self.ground.region.pointer(from), bytes), next))
    }

    /// After the segment at `at` grew from `n` granules to `new_size` bytes in place: marks what it took of the part of the
    /// wilderness that may hold something. `before` is as above. Returns what it got and may hold something of the
    /// `old_size` bytes' last granule.
    pub(crate) fn soil_grown(
        &mut self,
        before: (Granule, Granule),
        (at, n): (Granule, usize),
        old_size: usize,
        new_size: usize,
    ) -> NonNull<[u8]> {
        let old_end = Granule(n).bytes();
        if new_size > old_end {
            self.soil_placed(before, Some(at.up(n)), new_size.wrapping_sub(old_end));
        }
        let rest = new_size.min(old_end).saturating_sub(old_size);
        self.ground.region.bytes(at.bytes().wrapping_add(old_size), rest)
    }

    /// Marks what was freed and is part of a hole now.
    pub(super) fn soil(&mut self, from: Granule, to: Granule) {
        // If a hole began at `to`, what the list wrote there lies inside of one now.
        self.pages.soil(from, to.up(Self::LINKS).min(self.ground.top));
    }

    /// After top came down by the long way. Below `at`, where a hole joined the wilderness, pages are marked already.
    pub(super) fn soil_wilderness(&mut self, at: Granule) {
        self.pages.soil(at, self.touched);
        if self.ground.top < at {
            // What the list wrote where that hole began.
            self.pages.soil(self.ground.top, self.ground.top.up(Self::LINKS));
        }
        self.touched = self.ground.top;
    }
}
