//! Memory that is known to be zero: pages that are fresh from the system or have been purged.

use super::{Heap, granules};
use crate::free_list::{Fit, FreeList};
use crate::region::{Extent, GRANULE, Granule};
use core::ptr::NonNull;

/// The part of the wilderness that may be dirty though unmarked.
#[derive(Clone, Copy)]
pub(crate) struct DirtyWilderness(Extent);

impl<L: FreeList> Heap<L> {
    /// Places a request for zeroed memory. [`Self::next_unknown`] then finds the bytes that may not be zero.
    pub(crate) fn place_zeroed(&mut self, size: usize, align: usize) -> Fit {
        let before = self.used_before();
        let fit = self.place(size, align);
        if let Some(at) = fit.start() {
            self.mark_placed(before, Extent::of(at, granules(size)));
        }
        fit
    }

    pub(crate) fn used_before(&self) -> DirtyWilderness {
        DirtyWilderness(Extent::new(self.top(), self.tiling.touched.max(self.top())))
    }

    /// Marks the part of a placed segment that came from the dirty wilderness. `before` was taken before the request.
    fn mark_placed(&mut self, before: DirtyWilderness, taken: Extent) {
        let DirtyWilderness(Extent { start: top, end: touched }) = before;
        if taken.start >= top {
            self.tiling.pages.mark_dirty(Extent::new(taken.start, taken.end.min(touched)));
        }
    }

    /// The lowest bytes at or above `from` that may not be zero, and the granule to continue from. None if there are no
    /// more. They are among the `size` bytes at `at`, which must be in use and not written since they were placed.
    ///
    /// Other threads cannot change the result: marks of pages that lie wholly in a segment in use do not change.
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

    /// After a segment grew in place to `new_size` bytes: marks what came from the dirty wilderness, as it was
    /// `before`. Returns the bytes behind the first `old_size` up to the old segment's end, which may be dirty.
    pub(crate) fn soil_grown(
        &mut self,
        before: DirtyWilderness,
        segment: Extent,
        old_size: usize,
        new_size: usize,
    ) -> NonNull<[u8]> {
        let new_end = segment.start.up(granules(new_size));
        if new_end > segment.end {
            self.mark_placed(before, Extent::new(segment.end, new_end));
        }
        let rest = new_size.min(segment.bytes()).saturating_sub(old_size);
        self.region().bytes(segment.start.bytes().wrapping_add(old_size), rest)
    }
}
