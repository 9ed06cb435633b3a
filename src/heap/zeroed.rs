//! Memory that is known to be zero: pages as the system gave them, or gives them again after they were purged.

use super::{Heap, granules};
use crate::free_list::{Fit, FreeList};
use crate::region::{Extent, GRANULE, Granule};
use core::ptr::NonNull;

/// The part of the wilderness that may hold something: what a request takes of it is marked.
#[derive(Clone, Copy)]
pub(crate) struct UsedBefore(Extent);

impl<L: FreeList> Heap<L> {
    /// Places a request for zeroed memory. What of it may not be zero, [`Self::next_unknown`] says.
    pub(crate) fn place_zeroed(&mut self, size: usize, align: usize) -> Fit {
        let before = self.used_before();
        let fit = self.place(size, align);
        if let Some(at) = fit.start() {
            self.soil_placed(before, Extent::of(at, granules(size)));
        }
        fit
    }

    /// The part of the wilderness that may hold something now.
    pub(crate) fn used_before(&self) -> UsedBefore {
        UsedBefore(Extent::new(self.top(), self.tiling.touched.max(self.top())))
    }

    /// Marks what a request took of the part of the wilderness that may hold something. `before` is from before the request.
    fn soil_placed(&mut self, before: UsedBefore, taken: Extent) {
        let UsedBefore(Extent { start: top, end: touched }) = before;
        if taken.start >= top {
            self.tiling.pages.soil(Extent::new(taken.start, taken.end.min(touched)));
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
        let pages = self.tiling.pages.whole(Extent::new(at.up(L::LINKS), to));
        let Extent { start: from, end: next } = if pages.is_empty() {
            Extent::new(from, to)
        } else if from < pages.start {
            Extent::new(from, pages.start)
        } else {
            let rest = Extent::new(from, pages.end);
            self.tiling.pages.dirty_run(rest).unwrap_or(Extent::new(pages.end.max(from), to))
        };
        let offset = from.above(at).wrapping_mul(GRANULE);
        let bytes = size.min(next.above(at).wrapping_mul(GRANULE)).saturating_sub(offset);
        (from < to && bytes > 0)
            .then(|| (NonNull::slice_from_raw_parts(self.region().pointer(from), bytes), next))
    }

    /// After a segment grew in place to `new_size` bytes: marks what it took of the part of the wilderness that may hold
    /// something. `before` is from before that. Returns the bytes behind the `old_size` bytes up to the old segment's end:
    /// they may hold something.
    pub(crate) fn soil_grown(
        &mut self,
        before: UsedBefore,
        segment: Extent,
        old_size: usize,
        new_size: usize,
    ) -> NonNull<[u8]> {
        let new_end = segment.start.up(granules(new_size));
        if new_end > segment.end {
            self.soil_placed(before, Extent::new(segment.end, new_end));
        }
        let rest = new_size.min(segment.bytes()).saturating_sub(old_size);
        self.region().bytes(segment.start.bytes().wrapping_add(old_size), rest)
    }
}
