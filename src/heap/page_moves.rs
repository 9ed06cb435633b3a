//! Moving a large payload together with its pages if the new place has no resident pages yet; otherwise it is copied.

use super::Heap;
use crate::free_list::FreeList;
use crate::region::{Extent, GRANULE, Granule, Transfer};

/// The smallest payload, in bytes, that is moved by its pages. Copying 1 MiB into fresh memory takes 0.8 ms, moving it
/// 0.1 ms. Moving smaller payloads would save less and use up [ranges](crate::pages).
pub(crate) const LEAST_TRANSFER: usize = 1 << 20;

impl<L: FreeList> Heap<L> {
    /// Plans the move of the first `size` bytes of the segment at `at` to the segment at `to`, which was just placed
    /// and has not been written. Moves pages only if `may_move`. Both segments stay in use until
    /// [`Self::end_transfer`].
    #[cold]
    pub(crate) fn begin_transfer(
        &mut self,
        at: Granule,
        to: Granule,
        size: usize,
        may_move: bool,
    ) -> Transfer {
        let mut transfer = Transfer::of(self.region(), at, to, size);
        if !may_move || self.reservation.is_lent() || !self.is_fresh(to, size) {
            return transfer;
        }
        let marks = &mut self.tiling.pages;
        let pages = marks.whole(Extent::of(at, size / GRANULE));
        let new_end = self.tiling.ground.map.used_end(to);
        let new_pages = marks.whole(Extent::new(to.up(pages.start.above(at)), new_end));
        let shift = new_pages.start.above(pages.start);
        transfer.set_pages(pages, shift);
        // The last page may not fit, since all move up to a page boundary.
        let mut rest = Extent::new(pages.start, pages.end.min(new_pages.end.down(shift)));
        while !rest.is_empty() {
            let part_end = marks.moved.mapping_end(rest);
            transfer.push(Extent::new(rest.start, part_end));
            rest.start = part_end;
        }
        if !marks.moved.has_room(transfer.parts().count()) {
            transfer.clear();
        }
        transfer.new_parts().for_each(|part| marks.moved.insert(part));
        transfer
    }

    /// Copies all payloads and maps no pages again, from now on.
    pub(crate) fn stop_moving(&mut self) {
        self.tiling.pages.moved.stop();
    }

    /// Whether most of the first `size` bytes at `at`, just placed, lie in pages that are not resident, as far as the
    /// marks tell. The answer affects only speed.
    fn is_fresh(&self, at: Granule, size: usize) -> bool {
        let pages = self.tiling.pages.whole(Extent::of(at, size / GRANULE));
        let (mut rest, mut dirty) = (pages, 0_usize);
        while let Some(run) = self.tiling.pages.dirty_run(rest) {
            dirty = dirty.wrapping_add(run.len());
            rest.start = run.end;
        }
        dirty < pages.len() / 2
    }

    /// Updates the marks after the payload has moved and its old segment was freed, before any of it is allocated
    /// again. `done` is the result of [`Transfer::carry_out`].
    #[cold]
    pub(crate) fn end_transfer(&mut self, transfer: &Transfer, done: bool) {
        if done {
            self.tiling.pages.mark_clean(transfer.pages());
            self.tiling.pages.moved.remove(transfer.pages());
        }
    }
}
