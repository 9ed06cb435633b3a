//! Purging: returning whole pages of free segments to the system, when [the policy](super::purge_policy) says so.
//!
//! Purging is considered at the end of a free that takes the slow path. A pass goes upward through holes and wilderness
//! in batches. Other threads can use a heap behind a lock meanwhile. The memory that is kept is at the lowest
//! addresses, where requests are placed first.

#[cfg(test)]
#[path = "../../tests/unit/heap/purge.rs"]
mod tests;

use super::purge_policy::{MAX_HOLES, MIN_HOLE, Observed, WORK_PER_FREE};
use super::quiet::Use;
use super::{Heap, broken};
use crate::free_list::FreeList;
use crate::region::{Extent, GRANULE, Granule, Pieces};
use crate::system::clock::monotonic_ns;

/// Refused pieces after which an automatic pass gives up, so that a few locked ranges do not end it.
const MAX_REFUSALS: usize = 8;
/// Granules of a huge page, 2 MiB. Writing one byte may make a whole huge page resident. So pieces are extended to its
/// bounds as far as all is free: that memory may be resident though it was never handed out.
const HUGE_PAGE: usize = (2 << 20) / GRANULE;
/// Granules in a batch, 16 MiB: a request that is placed there waits until the batch has been purged.
const BATCH: usize = (16 << 20) / GRANULE;

/// Dirty pages of one free segment, at most [`BATCH`] granules.
struct DirtyPiece {
    /// From the first dirty page to the last. Clean pages between them are free too; purging them again is cheap.
    pages: Extent,
    /// Granules of the dirty pages.
    dirty: usize,
    /// The free range around `pages` that has no other dirty page.
    around: Extent,
}

type Visitor<'a> = dyn FnMut(DirtyPiece) -> bool + 'a;

/// A pass that purges the dirty pages of free memory, upward.
pub(crate) struct Purge {
    /// The pass has purged, or keeps, all dirty pages below this.
    from: Granule,
    /// The smallest hole to purge, in granules.
    min_hole: usize,
    /// The end of a hole, or 0: all dirty pages above `from` lie behind it.
    cursor: Granule,
    purged: usize,
    /// Pieces that the system has refused, and the most that it may refuse.
    refused: usize,
    max_refusals: usize,
    holes: usize,
}

impl Purge {
    /// A pass that purges everything.
    pub(crate) const ALL: Self = Self { max_refusals: usize::MAX, ..Self::from(Granule(0), 1) };

    const fn from(from: Granule, min_hole: usize) -> Self {
        let max_refusals = MAX_REFUSALS;
        Self { from, min_hole, cursor: Granule(0), purged: 0, refused: 0, max_refusals, holes: 0 }
    }

    pub(crate) fn bytes(&self) -> usize {
        Granule(self.purged).bytes()
    }
}

impl<L: FreeList> Heap<L> {
    #[inline]
    pub(crate) fn is_purge_check_due(&self) -> bool {
        self.purge_policy.is_due(self.tiling.counters.turnover())
    }

    /// Work done so far, a measure of time: granules allocated and freed, and [`WORK_PER_FREE`] for each free.
    fn work(&self) -> u64 {
        let counters = &self.tiling.counters;
        counters.turnover().wrapping_add(counters.freed.wrapping_mul(WORK_PER_FREE))
    }

    /// Allocations and frees so far.
    fn calls(&self) -> u64 {
        let counters = &self.tiling.counters;
        counters.placed_total().wrapping_add(counters.freed)
    }

    /// Counts `calls` calls of the process, in this heap or others side by side, since the last time.
    pub(crate) fn count_calls_elsewhere(&mut self, calls: u64) {
        let own = self.calls();
        self.purge_policy.count_elsewhere(calls, own);
    }

    /// Whether much memory is kept that a [quiet window](super::quiet) would return.
    pub(crate) fn holds_idle(&self) -> bool {
        self.purge_policy.holds_idle(self.tiling.counters.usage.used())
    }

    /// Checks how much was needed since the last check. Returns a pass if more than that is free and dirty.
    pub(crate) fn plan_purge(&mut self) -> Option<Purge> {
        let pass = self.plan();
        self.purge_policy.schedule(self.tiling.counters.usage.used());
        pass
    }

    fn plan(&mut self) -> Option<Purge> {
        let work = self.work();
        let counters = &self.tiling.counters;
        let (frees, used, turnover) = (counters.freed, counters.usage.used(), counters.turnover());
        let calls = self.purge_policy.calls(self.calls());
        let now = self.purge_policy.asks_clock(calls).then(monotonic_ns);
        let mut usage = Use { used, peak: used, turnover, calls, decay: self.purge_policy.decay, now };
        if self.purge_policy.skips(&usage, work) {
            return None;
        }
        usage.peak = self.peaks().take_since_check();
        let dirty_end = self.tiling.pages.end().max(self.tiling.touched).max(self.top());
        let free = (dirty_end.0 as u64).saturating_sub(used);
        let keep = self.purge_policy.learn(&Observed { usage, work, frees, free });
        if self.is_purging() {
            return None;
        }
        self.purge_policy.found(used, free);
        if free <= keep {
            return None;
        }
        let min_hole = MIN_HOLE.max(self.top().0 / MAX_HOLES);
        let mut dirty = 0_u64;
        let (_, holes) = self.visit_dirty(Granule(0), Granule(0), min_hole, &mut |piece| {
            dirty = dirty.saturating_add(piece.dirty as u64);
            true
        });
        self.purge_policy.delay_next(work, holes, dirty.saturating_sub(keep));
        if dirty <= keep {
            if self.purge_policy.holds_idle(used) {
                self.purge_policy.found(used, dirty);
            }
            return None;
        }
        let (mut left, mut start) = (keep as usize, Granule(0));
        self.visit_dirty(Granule(0), Granule(0), min_hole, &mut |DirtyPiece { pages, dirty, .. }| {
            start = pages.start.max(pages.end.down(dirty.saturating_sub(left)));
            left = left.saturating_sub(dirty);
            left > 0
        });
        self.purge_policy.level = used.saturating_add(keep);
        Some(Purge::from(start, min_hole))
    }

    /// The next batch, if any. Its pages must not be touched until [`Self::end_purge`]. `by` identifies the thread.
    pub(crate) fn begin_purge(&mut self, purge: &mut Purge, by: usize) -> Option<Pieces> {
        let mut pieces = Pieces::of(self.region());
        if self.is_purging() || self.region().base().is_null() || self.reservation.is_lent() {
            return None;
        }
        if purge.refused > purge.max_refusals {
            self.purge_policy.gave_up();
            return None;
        }
        // If no segment in use begins at the cursor, a huge one may surround it, where the map is not valid.
        let cursor = if self.tiling.ground.map.is_head(purge.cursor) { purge.cursor } else { Granule(0) };
        let mut next = purge.from;
        let (cursor, holes) = self.visit_dirty(cursor, purge.from, purge.min_hole, &mut |piece| {
            let from = Granule(piece.pages.start.0 / HUGE_PAGE * HUGE_PAGE).max(piece.around.start);
            let to = Granule(piece.pages.end.0.next_multiple_of(HUGE_PAGE)).min(piece.around.end);
            let pushed = pieces.granules() < BATCH && pieces.push(Extent::new(from, to), piece.dirty);
            if pushed {
                next = to;
            }
            pushed
        });
        purge.cursor = cursor;
        purge.from = next;
        purge.holes = purge.holes.saturating_add(holes);
        if pieces.granules() == 0 {
            if purge.min_hole == 1 {
                self.purge_policy.purged_all(self.tiling.counters.usage.used());
            }
            return None;
        }
        let marks = &mut self.tiling.pages;
        pieces.iter().for_each(|pages| marks.mark_clean(pages));
        if pieces.iter().any(|pages| marks.moved.holds_any(pages)) {
            pieces.remap();
        }
        (self.purging, self.purging_by) = (pieces.span(), by);
        Some(pieces)
    }

    /// Records the result of a batch: pieces that the system refused are dirty again.
    pub(crate) fn end_purge(&mut self, purge: &mut Purge, pieces: &Pieces) {
        self.purging = Extent::EMPTY;
        let marks = &mut self.tiling.pages;
        for pages in pieces.refused() {
            marks.mark_dirty(pages);
            purge.refused = purge.refused.saturating_add(1);
        }
        if pieces.are_remapped() {
            pieces.iter().for_each(|pages| marks.moved.remove(pages));
        }
        let n = pieces.purged_granules();
        if n > 0 {
            purge.purged = purge.purged.saturating_add(n);
            self.purge_policy.purged(n, self.work());
        }
    }

    /// Ends, in a forked child, the batch of a thread that the child does not have. Its pages may not have been purged.
    pub(crate) fn forget_purge_of_others(&mut self, me: usize) {
        if self.is_purging() && self.purging_by != me {
            self.tiling.pages.mark_dirty(self.purging);
            self.purging = Extent::EMPTY;
        }
    }

    pub(crate) fn is_purging(&self) -> bool {
        !self.purging.is_empty()
    }

    /// The thread that is purging a part of this range right now, if any.
    pub(crate) fn purged_by(&self, range: Extent) -> Option<usize> {
        self.purging.overlaps(range).then_some(self.purging_by)
    }

    /// Calls `visit` with the dirty pieces of holes of at least `min_hole` granules and of the wilderness, in ascending
    /// order, until it returns false. Skips all below `floor`, and holes below `after`: 0, or the end of a hole where a
    /// segment in use begins. Returns the end of the last hole scanned whole, and the number of holes scanned.
    fn visit_dirty(
        &mut self,
        after: Granule,
        floor: Granule,
        min_hole: usize,
        visit: &mut Visitor<'_>,
    ) -> (Granule, usize) {
        let (mut cursor, mut holes) = (after, 0_usize);
        self.tiling.mark_wilderness(self.top());
        let tiling = &self.tiling;
        // Smaller holes hold no whole page.
        let n = min_hole.max(tiling.pages.granules());
        while let Some(start) = tiling.list.next_hole(&tiling.ground, cursor, n) {
            let end = tiling.ground.map.hole_end(start, self.top());
            if end <= cursor {
                broken("L2", "a search went down", start);
            }
            holes = holes.wrapping_add(1);
            if !self.visit_free(Extent::new(start.up(L::LINKS).max(floor), end), visit) {
                return (cursor, holes);
            }
            cursor = end;
        }
        let end = tiling.pages.end().max(tiling.ready);
        self.visit_free(Extent::new(self.top().max(floor), end), visit);
        (cursor, holes)
    }

    fn visit_free(&self, free: Extent, visit: &mut Visitor<'_>) -> bool {
        let pages = &self.tiling.pages;
        let Extent { start: mut from, end: to } = pages.whole(free);
        while let Some(first) = pages.dirty_run(Extent::new(from, to)) {
            let start = first.start;
            let limit = to.min(start.up(BATCH));
            let mut run = Some(Extent::new(start, first.end.min(limit)));
            let (mut end, mut dirty) = (start, 0_usize);
            while let Some(next) = run {
                dirty = next.len().wrapping_add(dirty);
                end = next.end;
                run = pages.dirty_run(Extent::new(end, limit));
            }
            let clear = pages.dirty_run(Extent::new(end, to)).map_or(to, |next| next.start);
            let piece =
                DirtyPiece { pages: Extent::new(start, end), dirty, around: Extent::new(from, clear) };
            if !visit(piece) {
                return false;
            }
            from = end;
        }
        true
    }
}
