//! Moving a large payload together with its pages, where those of the new place would have to be taken from the system
//! else. Where they are there already, it is copied.

use super::Heap;
use crate::checkers::ACTIVE;
use crate::free_list::FreeList;
use crate::region::{GRANULE, Granule, Transfer};

/// Smaller payloads, in bytes, are copied. Moving pays from far less on, but what it saves of them is less than a
/// millisecond, and there is room for so many [ranges](crate::pages) only.
pub(crate) const LEAST_TRANSFER: usize = 1 << 20;

impl<L: FreeList> Heap<L> {
    /// How the first `size` bytes of the segment at `at` get to the one at `to`, which was just placed and has not been written
    /// to. Both stay as they are until [`Self::end_transfer`].
    #[cold]
    pub(crate) fn begin_transfer(&mut self, at: Granule, to: Granule, size: usize) -> Transfer {
        let mut transfer = Transfer::of(&self.ground.region, at, to, size);
        if ACTIVE || self.reservation.is_lent() || !self.is_fresh(to, size) {
            return transfer;
        }
        let (first, end) = self.pages.whole(at, at.up(size / GRANULE));
        let (new_first, new_end) = self.pages.whole(to.up(first.above(at)), self.ground.map.used_end(to));
        let shift = new_first.above(first);
        transfer.lie_in((first, end), shift);
        // The last page may have no place, since all go up to where pages begin.
        let (mut from, end) = (first, end.min(new_end.down(shift)));
        while from < end {
            let part_end = self.pages.moved.mapping_end(from, end);
            transfer.push(from, part_end);
            from = part_end;
        }
        if !self.pages.moved.has_room(transfer.parts().count()) {
            transfer.clear();
        }
        for (from, to) in transfer.new_parts() {
            self.pages.moved.insert(from, to);
        }
        transfer
    }

    /// From now on everything is copied, and nothing is mapped anew.
    pub(crate) fn stop_moving(&mut self) {
        self.pages.moved.stop();
    }

    /// Whether most of the first `size` bytes at `at`, which were just placed, lie in pages that take no memory yet, as far as
    /// the marks know. Nothing depends on that but time.
    fn is_fresh(&self, at: Granule, size: usize) -> bool {
        let (first, end) = self.pages.whole(at, at.up(size / GRANULE));
        let (mut next, mut dirty) = (first, 0_usize);
        while let Some((start, run_end)) = self.pages.dirty_run(next, end) {
            dirty = dirty.wrapping_add(run_end.above(start));
            next = run_end;
        }
        dirty < end.above(first) / 2
    }

    /// The payload is in its new place, and its old segment was freed just now, so that nobody has been given any of it yet.
    /// `done` is what [`Transfer::carry_out`] said.
    #[cold]
    pub(crate) fn end_transfer(&mut self, transfer: &Transfer, done: bool) {
        if done {
            let (from, to) = transfer.pages();
            self.pages.clean(from, to);
            self.pages.moved.remove(from, to);
        }
    }
}
