//! Moving a large payload together with its pages, where the new place has none yet. Where it has, the payload is copied.

use super::Heap;
use crate::free_list::FreeList;
use crate::region::{Extent, GRANULE, Granule, Transfer};

/// Smaller payloads, in bytes, are copied. Moving pays from far less on, but what it saves of them is less than a
/// millisecond, and there is room for so many [ranges](crate::pages) only.
pub(crate) const LEAST_TRANSFER: usize = 1 << 20;

impl<L: FreeList> Heap<L> {
    /// How the first `size` bytes of the segment at `at` get to the one at `to`, which was just placed and has not been
    /// written to: with their pages, if they `may_move`. Both stay as they are until [`Self::end_transfer`].
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
        transfer.lie_in(pages, shift);
        // The last page may have no place, since all go up to where pages begin.
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

    /// From now on everything is copied, and nothing is mapped anew.
    pub(crate) fn stop_moving(&mut self) {
        self.tiling.pages.moved.stop();
    }

    /// Whether most of the first `size` bytes at `at`, which were just placed, lie in pages that take no memory yet, as far as
    /// the marks know. Nothing depends on that but time.
    fn is_fresh(&self, at: Granule, size: usize) -> bool {
        let pages = self.tiling.pages.whole(Extent::of(at, size / GRANULE));
        let (mut rest, mut dirty) = (pages, 0_usize);
        while let Some(run) = self.tiling.pages.dirty_run(rest) {
            dirty = dirty.wrapping_add(run.len());
            rest.start = run.end;
        }
        dirty < pages.len() / 2
    }

    /// The payload is in its new place, and its old segment was freed just now, so that nobody has been given any of it yet.
    /// `done` is what [`Transfer::carry_out`] said.
    #[cold]
    pub(crate) fn end_transfer(&mut self, transfer: &Transfer, done: bool) {
        if done {
            self.tiling.pages.clean(transfer.pages());
            self.tiling.pages.moved.remove(transfer.pages());
        }
    }
}
