//! Giving back what is free: whole pages of holes and of the wilderness, and when.
//!
//! Memory that is free and dirty costs nothing until somebody else wants it, and giving it back costs a system call and
//! new page faults if it is used again. So the heap looks at itself only after a part of it was handed out or freed
//! (`interval`), at the end of a free that takes the long way, and compares
//!
//! ```text
//!   peak of use since the last look
//!   |           spare: was not needed    |
//!   |           |<---------------------->|
//!   |   in use  | dirty, free           |
//! ```
//!
//! What is spare is given back but for a rest, `keep`: 256 KiB or a sixteenth of what is in use, and a reserve. Of
//! several heaps side by side, each keeps its part of the 256 KiB. The reserve is what turned out to be given back too
//! early, because it was in use again soon after; what of it has not been needed for a while, by the work done, halves. So
//! memory that comes and goes stays, after a round or two of it. A look that goes through many holes for little puts off
//! the next. Nothing here asks a clock: when memory is given back is a function of the calls alone.
//!
//! What is kept is at the lowest addresses, where requests are placed first.

#[cfg(test)]
mod tests;

use super::{Heap, broken};
use crate::free_list::FreeList;
use crate::region::{CHUNK, GRANULE, Granule, Pieces};

const MEBIBYTE: u64 = (1 << 20) / GRANULE as u64;
/// Granules that are handed out or freed between two looks, at least.
const SHORTEST_INTERVAL: u64 = MEBIBYTE / 4;
/// Granules that are always kept, by all heaps that lie side by side together.
const KEPT: u64 = MEBIBYTE / 4;
/// The largest reserve, in granules, of each heap.
const LARGEST_RESERVE: u64 = 128 * MEBIBYTE;
/// Half of what of a reserve was not needed during so much [work](Heap::work) for each of its granules is given up, and what
/// was given back so long ago is not missed any more. To give a page back and to take it again costs some microseconds, which
/// are then at most a few hundredths of the time that the work takes, if the program writes what it is given.
const PATIENCE: u64 = 1024;
/// A free, and the allocation before it, take the time in which a program writes about so many granules.
const PAIR: u64 = 128;
/// The smallest hole of which anything is given back without being asked, in granules.
const SMALLEST_HOLE: usize = (16 << 10) / GRANULE;
/// Holes that a look goes through at most: they are larger in larger heaps.
const MOST_HOLES: usize = 1 << 14;
/// The [work](Heap::work) to be done before the next look, for each hole that a look goes through: it takes longer than the
/// hole does. So many granules that go back to the system make up for a hole.
const EACH_HOLE: u64 = 1024;
const WORTH_A_HOLE: u64 = 256;
/// Pieces that the system refuses before a pass that nobody asked for gives up.
const MOST_REFUSALS: usize = 8;
/// After so many passes that gave up, the pause does not double again.
const MOST_DOUBLINGS: u32 = 16;
/// Granules of a huge page. The system may bring one in whole where a byte of it is written, so that around what is dirty there
/// may be memory that nobody was given: it goes along, where it is free.
const HUGE_PAGE: usize = (2 << 20) / GRANULE;
/// Granules that are given back in one go, about: a request that is placed there has to wait.
const MOST_AT_ONCE: usize = (16 << 20) / GRANULE;

/// What a heap remembers of its use. Amounts are granules, points in time turnover or [work](Heap::work).
#[derive(Debug)]
pub(super) struct Thrift {
    /// The turnover at the last look, and how much more there is before the next.
    looked: u64,
    interval: u64,
    /// The work done when a look last went through the holes, and how much more there is before the next that does.
    visited: u64,
    pause: u64,
    /// Passes in a row that gave up. Each doubles the pause.
    given_up: u32,
    /// So much may be in use without a page fault: it rises with use, and falls when memory is given back.
    level: u64,
    /// What was given back and could still turn out to be missed.
    debt: u64,
    /// The work done when something was last given back.
    indebted: u64,
    reserve: u64,
    /// The least that was spare at any look since the window began in which the reserve is watched.
    idle: u64,
    /// The work done when that window began.
    since: u64,
    /// What is being given back right now lies between these; nothing if they are equal.
    under_way: (Granule, Granule),
    /// Who gives it back.
    by: usize,
    /// All that was given back.
    purged: u64,
    /// What this heap always keeps.
    kept: u64,
}

impl Thrift {
    pub(super) const NEW: Self = Self {
        looked: 0,
        interval: SHORTEST_INTERVAL,
        visited: 0,
        pause: 0,
        given_up: 0,
        level: 0,
        debt: 0,
        indebted: 0,
        reserve: 0,
        idle: u64::MAX,
        since: 0,
        under_way: (Granule(0), Granule(0)),
        by: 0,
        purged: 0,
        kept: KEPT,
    };

    /// Learns at a look: `turnover` and `work` are the heap's so far, `peak` is the most that was in use since the last look,
    /// `used` is in use, and no more than `spare` is free, dirty, and was not needed. Returns how much of that may be kept.
    fn learn(&mut self, turnover: u64, work: u64, peak: u64, used: u64, spare: u64) -> u64 {
        let learnable = self.debt.max(self.reserve).max(self.kept).min(LARGEST_RESERVE);
        let patience = PATIENCE.saturating_mul(learnable);
        if work.wrapping_sub(self.indebted) > patience {
            self.debt = 0;
        }
        self.looked = turnover;
        self.interval = (used / 4).max(SHORTEST_INTERVAL);
        self.idle = self.idle.min(spare);
        if peak > self.level {
            let missed = self.debt.min(peak.wrapping_sub(self.level));
            self.debt = self.debt.wrapping_sub(missed);
            self.reserve = self.reserve.saturating_add(missed).min(LARGEST_RESERVE);
            self.level = peak;
            if missed > 0 {
                self.idle = 0;
            }
        }
        if work.wrapping_sub(self.since) > PATIENCE.saturating_mul(self.reserve) {
            self.reserve = self.reserve.wrapping_sub(self.reserve.min(self.idle) / 2);
            (self.idle, self.since) = (u64::MAX, work);
        }
        self.kept.max(used / 16).saturating_add(self.reserve)
    }

    /// A look went through so many holes, and found so many granules to give back: the next one is put off.
    fn put_off(&mut self, work: u64, holes: usize, found: u64) {
        let vain = (holes as u64).saturating_sub(found / WORTH_A_HOLE);
        let pause = EACH_HOLE.saturating_mul(vain.saturating_add(1));
        self.pause = pause.saturating_mul(1 << self.given_up.min(MOST_DOUBLINGS));
        self.visited = work;
    }
}

/// Told where pages begin and end of which the first and the last are dirty, and how many granules of dirty pages they
/// hold. What lies in between is free too, and costs the system little. At most [`MOST_AT_ONCE`] granules. Last, between which
/// bounds nothing else is dirty, and all is free.
type Visitor<'a> = dyn FnMut(Granule, Granule, usize, (Granule, Granule)) -> bool + 'a;

/// A pass over the free memory, upward from `from`, that gives back what is dirty.
pub(crate) struct Purge {
    /// Dirty pages below this stay.
    from: Granule,
    /// Only of holes of so many granules.
    least: usize,
    /// What is dirty above `from` lies behind this: 0, or where a hole ended when the pass was last there.
    cursor: Granule,
    /// Granules given back.
    purged: usize,
    /// Pieces that the system refused, and how many of them it may.
    refused: usize,
    refusals: usize,
    /// Holes gone through.
    holes: usize,
}

impl Purge {
    /// A pass that gives back everything.
    pub(crate) const ALL: Self = Self { refusals: usize::MAX, ..Self::from(Granule(0), 1) };

    const fn from(from: Granule, least: usize) -> Self {
        let refusals = MOST_REFUSALS;
        Self { from, least, cursor: Granule(0), purged: 0, refused: 0, refusals, holes: 0 }
    }

    /// Bytes given back so far.
    pub(crate) fn bytes(&self) -> usize {
        Granule(self.purged).bytes()
    }
}

impl<L: FreeList> Heap<L> {
    /// Gives everything back to the system that is free, and says how many bytes.
    ///
    /// These are all whole pages of free segments that have been in use since they were last given back. They are zero
    /// then. What the system refuses, because the program has locked it, stays. Without this call the heap does the same by
    /// itself, later and with less zeal: see the [crate's README](https://docs.rs/smalloc-global).
    pub fn trim(&mut self) -> usize {
        self.purge(Purge::ALL)
    }

    /// From now on it is one of so many heaps that lie side by side.
    pub(super) fn keep_a_share(&mut self, heaps: usize) {
        self.thrift.kept = KEPT / (heaps as u64).max(1);
    }

    /// From now on nothing is given back without being asked.
    pub(super) fn never_purge(&mut self) {
        self.thrift.interval = u64::MAX;
    }

    /// Gives back what is due.
    pub(super) fn purge_if_due(&mut self) {
        if let Some(purge) = self.purge_due() {
            self.purge(purge);
        }
    }

    fn purge(&mut self, mut purge: Purge) -> usize {
        while let Some(mut pieces) = self.begin_purge(&mut purge, 0) {
            // SAFETY: the pieces are free, and the heap is borrowed.
            unsafe { pieces.discard() };
            self.end_purge(&mut purge, &pieces);
        }
        purge.bytes()
    }
}

// What a purge is made of, for a heap behind a lock that is not held while the system works.
impl<L: FreeList> Heap<L> {
    /// What is to be given back now, if anything is.
    #[inline]
    pub(crate) fn purge_due(&mut self) -> Option<Purge> {
        let since = self.counters.turnover().wrapping_sub(self.thrift.looked);
        if since < self.thrift.interval { None } else { self.look() }
    }

    /// What stands in for the time that has passed: granules handed out and freed, and [`PAIR`] for each free.
    fn work(&self) -> u64 {
        self.counters.turnover().wrapping_add(self.counters.freed.wrapping_mul(PAIR))
    }

    /// Looks at what was needed since the last time, and at what is free and dirty.
    #[cold]
    fn look(&mut self) -> Option<Purge> {
        let (turnover, work) = (self.counters.turnover(), self.work());
        if work.wrapping_sub(self.thrift.visited) < self.thrift.pause {
            self.thrift.looked = turnover;
            return None;
        }
        let (peak, used) = (self.peaks().take_look(), self.counters.usage.used());
        let swing = peak.saturating_sub(used);
        // Not more than this is free and dirty.
        let most = (self.pages.end().max(self.touched).max(self.ground.top).0 as u64).saturating_sub(used);
        let keep = self.thrift.learn(turnover, work, peak, used, most.saturating_sub(swing));
        if self.is_purging() || most.saturating_sub(swing) <= keep {
            return None;
        }
        let least = SMALLEST_HOLE.max(self.ground.top.0 / MOST_HOLES);
        let mut dirty = 0_u64;
        let (_, holes) = self.visit_dirty((Granule(0), Granule(0)), least, &mut |_, _, n, _| {
            dirty = dirty.saturating_add(n as u64);
            true
        });
        let keep = keep.saturating_add(swing);
        self.thrift.put_off(work, holes, dirty.saturating_sub(keep));
        if dirty <= keep {
            return None;
        }
        let (mut left, mut start) = (keep as usize, Granule(0));
        self.visit_dirty((Granule(0), Granule(0)), least, &mut |from, to, n, _| {
            start = from.max(to.down(n.saturating_sub(left)));
            left = left.saturating_sub(n);
            left > 0
        });
        self.thrift.level = used.saturating_add(keep);
        Some(Purge::from(start, least))
    }

    /// The next pieces to be given back, if there are any. Until [`Self::end_purge`] nobody may touch them, whoever is
    /// given them. `by` is a number of the thread.
    pub(crate) fn begin_purge(&mut self, purge: &mut Purge, by: usize) -> Option<Pieces> {
        let mut pieces = Pieces::of(&self.ground.region);
        if self.is_purging() || self.ground.region.base().is_null() || self.reservation.is_lent() {
            return None;
        }
        if purge.refused > purge.refusals {
            self.thrift.given_up = self.thrift.given_up.saturating_add(1);
            return None;
        }
        // Where a segment in use begins there is no hole. Of other granules the map does not say so much: inside of a huge
        // segment it is not kept.
        let cursor = if self.ground.map.is_head(purge.cursor) { purge.cursor } else { Granule(0) };
        let mut next = purge.from;
        let (cursor, holes) =
            self.visit_dirty((cursor, purge.from), purge.least, &mut |from, to, n, free| {
                let from = Granule(from.0 / HUGE_PAGE * HUGE_PAGE).max(free.0);
                let to = Granule(to.0.next_multiple_of(HUGE_PAGE)).min(free.1);
                let pushed = pieces.granules() < MOST_AT_ONCE && pieces.push(from, to, n);
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
        for (from, to) in pieces.iter() {
            self.pages.clean(from, to);
        }
        if pieces.iter().any(|(from, to)| self.pages.moved.holds_any(from, to)) {
            pieces.map_anew();
        }
        self.thrift.under_way = pieces.span();
        self.thrift.by = by;
        Some(pieces)
    }

    /// The system has the pieces back, but for those that it refused.
    pub(crate) fn end_purge(&mut self, purge: &mut Purge, pieces: &Pieces) {
        self.thrift.under_way = (Granule(0), Granule(0));
        for (from, to) in pieces.refused() {
            self.pages.soil(from, to);
            purge.refused = purge.refused.saturating_add(1);
        }
        if pieces.are_anew() {
            pieces.iter().for_each(|(from, to)| self.pages.moved.remove(from, to));
        }
        let n = pieces.given();
        if n > 0 {
            purge.purged = purge.purged.saturating_add(n);
            self.thrift.purged = self.thrift.purged.wrapping_add(n as u64);
            self.thrift.debt = self.thrift.debt.saturating_add(n as u64);
            self.thrift.indebted = self.work();
            if self.thrift.given_up > 0 {
                (self.thrift.given_up, self.thrift.pause) = (0, 0);
            }
        }
    }

    /// Bytes that were given back so far.
    pub(super) fn purged_bytes(&self) -> u64 {
        self.thrift.purged.wrapping_mul(GRANULE as u64)
    }

    /// Whether something is being given back right now.
    pub(crate) fn is_purging(&self) -> bool {
        self.thrift.under_way.0 < self.thrift.under_way.1
    }

    /// Who gives something between `from` and `to` back right now, if anybody may do so.
    pub(crate) fn purges(&self, from: Granule, to: Granule) -> Option<usize> {
        let (start, end) = self.thrift.under_way;
        (start < end && from < end && start < to).then_some(self.thrift.by)
    }

    /// Calls `visit` with what is dirty in holes of at least `least` granules and in the wilderness, in ascending order, until
    /// it says false. `after.0` is 0, or the end of a hole, where a segment in use begins; holes below are left out, as is what
    /// lies below `after.1`. Returns the end of the last hole that was gone through, and how many there were.
    fn visit_dirty(
        &mut self,
        after: (Granule, Granule),
        least: usize,
        visit: &mut Visitor<'_>,
    ) -> (Granule, usize) {
        let (mut cursor, floor) = after;
        let mut holes = 0_usize;
        self.soil_wilderness(self.ground.top);
        // A hole of so many granules may hold a whole page.
        let n = least.max(self.pages.granules());
        while let Some(start) = self.list.next_hole(&self.ground, cursor, n) {
            let end = self.ground.map.hole_end(start, self.ground.top);
            if end <= cursor {
                broken("L2", "a search went down", start);
            }
            holes = holes.wrapping_add(1);
            if !self.visit_free(start.up(Self::LINKS).max(floor), end, visit) {
                return (cursor, holes);
            }
            cursor = end;
        }
        let end = self.pages.end().max(self.ready);
        self.visit_free(self.ground.top.max(floor), end, visit);
        (cursor, holes)
    }

    fn visit_free(&self, from: Granule, to: Granule, visit: &mut Visitor<'_>) -> bool {
        let (mut from, to) = self.pages.whole(from, to);
        while let Some((start, run_end)) = self.pages.dirty_run(from, to) {
            let limit = to.min(start.up(MOST_AT_ONCE));
            let (mut end, mut dirty) = (run_end.min(limit), 0);
            let mut run = Some((start, end));
            while let Some((first, last)) = run {
                dirty = last.above(first).wrapping_add(dirty);
                end = last;
                run = self.pages.dirty_run(last, limit);
            }
            let clear = self.pages.dirty_run(end, to).map_or(to, |(next, _)| next);
            if !visit(start, end, dirty, (from, clear)) {
                return false;
            }
            from = end;
        }
        true
    }
}

const _: () = assert!(SMALLEST_HOLE >= CHUNK);
