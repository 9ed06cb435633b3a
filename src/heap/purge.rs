//! Purging: whole pages of holes and of the wilderness go back to the system, as [the policy](super::purge_policy) says.
//!
//! Purging is considered at the end of a free that takes the slow path. A pass goes upward through the free segments, and
//! purges some pieces at a time: a heap behind a lock lets others have it meanwhile. What is kept is at the lowest
//! addresses, where requests are placed first.

#[cfg(test)]
#[path = "../../tests/unit/heap/purge.rs"]
mod tests;

use super::purge_policy::{MOST_HOLES, PAIR, SMALLEST_HOLE, Seen};
use super::{Heap, broken};
use crate::free_list::FreeList;
use crate::region::{Extent, GRANULE, Granule, Pieces};

/// Pieces that the system refuses before a pass that nobody asked for gives up.
const MOST_REFUSALS: usize = 8;
/// Granules of a huge page. The system may bring one in whole where a byte of it is written, so that around what is dirty
/// there may be memory that nobody was given: it goes along, where it is free.
const HUGE_PAGE: usize = (2 << 20) / GRANULE;
/// Granules that are purged in one go, about: a request that is placed there has to wait.
const MOST_AT_ONCE: usize = (16 << 20) / GRANULE;

/// Dirty pages of one free segment, at most [`MOST_AT_ONCE`] granules.
struct DirtyPiece {
    /// The first and the last page are dirty. What lies in between is free too, and costs the system little.
    pages: Extent,
    /// Granules of the dirty ones.
    dirty: usize,
    /// Nothing else is dirty here, and all is free.
    around: Extent,
}

type Visitor<'a> = dyn FnMut(DirtyPiece) -> bool + 'a;

/// A pass over the free memory, upward from `from`, that purges what is dirty.
pub(crate) struct Purge {
    /// Dirty pages below this stay.
    from: Granule,
    /// Only of holes of so many granules.
    least: usize,
    /// What is dirty above `from` lies behind this: 0, or where a hole ended when the pass was last there.
    cursor: Granule,
    /// Granules purged.
    purged: usize,
    /// Pieces that the system refused, and how many of them it may.
    refused: usize,
    refusals: usize,
    /// Holes gone through.
    holes: usize,
}

impl Purge {
    /// A pass that purges everything.
    pub(crate) const ALL: Self = Self { refusals: usize::MAX, ..Self::from(Granule(0), 1) };

    const fn from(from: Granule, least: usize) -> Self {
        let refusals = MOST_REFUSALS;
        Self { from, least, cursor: Granule(0), purged: 0, refused: 0, refusals, holes: 0 }
    }

    /// Bytes purged so far.
    pub(crate) fn bytes(&self) -> usize {
        Granule(self.purged).bytes()
    }
}

impl<L: FreeList> Heap<L> {
    /// The pass that is due, if one is.
    #[inline]
    pub(crate) fn purge_due(&mut self) -> Option<Purge> {
        if self.purge_policy.is_due(self.tiling.counters.turnover()) { self.look() } else { None }
    }

    /// What stands in for the time that has passed: granules handed out and freed, and [`PAIR`] for each free.
    fn work(&self) -> u64 {
        let counters = &self.tiling.counters;
        counters.turnover().wrapping_add(counters.freed.wrapping_mul(PAIR))
    }

    /// Looks at what was needed since the last time, and at what is free and dirty.
    #[cold]
    fn look(&mut self) -> Option<Purge> {
        let (turnover, work) = (self.tiling.counters.turnover(), self.work());
        if self.purge_policy.is_paused(turnover, work) {
            return None;
        }
        let (peak, used) = (self.peaks().take_look(), self.tiling.counters.usage.used());
        let swing = peak.saturating_sub(used);
        let dirty_end = self.tiling.pages.end().max(self.tiling.touched).max(self.top());
        // Not more than this is free and dirty.
        let most = (dirty_end.0 as u64).saturating_sub(used);
        let spare = most.saturating_sub(swing);
        let keep = self.purge_policy.learn(&Seen { turnover, work, peak, used, spare });
        if self.is_purging() || spare <= keep {
            return None;
        }
        let least = SMALLEST_HOLE.max(self.top().0 / MOST_HOLES);
        let mut dirty = 0_u64;
        let (_, holes) = self.visit_dirty(Granule(0), Granule(0), least, &mut |piece| {
            dirty = dirty.saturating_add(piece.dirty as u64);
            true
        });
        let keep = keep.saturating_add(swing);
        self.purge_policy.put_off(work, holes, dirty.saturating_sub(keep));
        if dirty <= keep {
            return None;
        }
        let (mut left, mut start) = (keep as usize, Granule(0));
        self.visit_dirty(Granule(0), Granule(0), least, &mut |DirtyPiece { pages, dirty, .. }| {
            start = pages.start.max(pages.end.down(dirty.saturating_sub(left)));
            left = left.saturating_sub(dirty);
            left > 0
        });
        self.purge_policy.level = used.saturating_add(keep);
        Some(Purge::from(start, least))
    }

    /// The next pieces to be purged, if there are any. Until [`Self::end_purge`] nobody may touch them, whoever is given
    /// them. `by` is a number of the thread.
    pub(crate) fn begin_purge(&mut self, purge: &mut Purge, by: usize) -> Option<Pieces> {
        let mut pieces = Pieces::of(self.region());
        if self.is_purging() || self.region().base().is_null() || self.reservation.is_lent() {
            return None;
        }
        if purge.refused > purge.refusals {
            self.purge_policy.gave_up();
            return None;
        }
        // Where a segment in use begins there is no hole. Of other granules the map does not say so much: inside of a huge
        // segment it is not kept.
        let cursor = if self.tiling.ground.map.is_head(purge.cursor) { purge.cursor } else { Granule(0) };
        let mut next = purge.from;
        let (cursor, holes) = self.visit_dirty(cursor, purge.from, purge.least, &mut |piece| {
            let from = Granule(piece.pages.start.0 / HUGE_PAGE * HUGE_PAGE).max(piece.around.start);
            let to = Granule(piece.pages.end.0.next_multiple_of(HUGE_PAGE)).min(piece.around.end);
            let pushed = pieces.granules() < MOST_AT_ONCE && pieces.push(Extent::new(from, to), piece.dirty);
            if pushed {
                next = to;
            }
            pushed
        });
        purge.cursor = cursor;
        purge.from = next;
        purge.holes = purge.holes.saturating_add(holes);
        if pieces.granules() == 0 {
            return None;
        }
        let marks = &mut self.tiling.pages;
        pieces.iter().for_each(|pages| marks.clean(pages));
        if pieces.iter().any(|pages| marks.moved.holds_any(pages)) {
            pieces.map_anew();
        }
        (self.purging, self.purging_by) = (pieces.span(), by);
        Some(pieces)
    }

    /// The system has the pieces, but for those that it refused.
    pub(crate) fn end_purge(&mut self, purge: &mut Purge, pieces: &Pieces) {
        self.purging = Extent::EMPTY;
        let marks = &mut self.tiling.pages;
        for pages in pieces.refused() {
            marks.soil(pages);
            purge.refused = purge.refused.saturating_add(1);
        }
        if pieces.are_anew() {
            pieces.iter().for_each(|pages| marks.moved.remove(pages));
        }
        let n = pieces.given();
        if n > 0 {
            purge.purged = purge.purged.saturating_add(n);
            self.purge_policy.purged(n, self.work());
        }
    }

    /// Whether something is being purged right now.
    pub(crate) fn is_purging(&self) -> bool {
        !self.purging.is_empty()
    }

    /// The thread that purges something of this range right now, if one does.
    pub(crate) fn purged_by(&self, range: Extent) -> Option<usize> {
        self.purging.overlaps(range).then_some(self.purging_by)
    }

    /// Calls `visit` with what is dirty in holes of at least `least` granules and in the wilderness, in ascending order, until
    /// it says false. `after` is 0, or the end of a hole, where a segment in use begins; holes below are left out, as is
    /// what lies below `floor`. Returns the end of the last hole that was gone through, and how many there were.
    fn visit_dirty(
        &mut self,
        after: Granule,
        floor: Granule,
        least: usize,
        visit: &mut Visitor<'_>,
    ) -> (Granule, usize) {
        let (mut cursor, mut holes) = (after, 0_usize);
        self.tiling.soil_wilderness(self.top());
        let tiling = &self.tiling;
        // A hole of so many granules may hold a whole page.
        let n = least.max(tiling.pages.granules());
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
            let limit = to.min(start.up(MOST_AT_ONCE));
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
