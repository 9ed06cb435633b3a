//! When free memory goes back to the system, and how much of it. Numbers in, numbers out; no heap is needed to test it.
//!
//! Memory that is free and dirty costs nothing until somebody else wants it. Purging it costs a system call, and page faults
//! if it is used again. So the heap considers purging only after an *interval*: once the granules allocated and freed since
//! the last look exceed a quarter of what is in use. The look compares
//!
//! ```text
//!   peak of use since the last look
//!   |           spare: was not needed    |
//!   |           |<---------------------->|
//!   |   in use  | dirty, free           |
//! ```
//!
//! Everything spare is purged beyond what is kept: 256 KiB or a sixteenth of what is in use, and a *reserve*. The reserve
//! is learned: memory that was in use again soon after a purge was purged too early, and as much is kept next time.
//!
//! An example, in MiB: 64 are in use, 60 are freed, and a look purges 56 of them, which become the *debt*. If the program
//! then has 64 in use again, use has risen 56 above the *level* that was resident: all of the debt was missed, and the
//! reserve becomes 56. From now on the 60 stay when they are freed. If they are not needed during so much work, by
//! [`PATIENCE`], half of the unneeded reserve is given up, and then half of the rest.
//!
//! No clock is read: time is measured in work, so that purging is a function of the calls alone.

use crate::region::{CHUNK, GRANULE};

const MEBIBYTE: u64 = (1 << 20) / GRANULE as u64;
/// The shortest interval, in granules: below it a look costs more than the memory is worth.
pub(super) const SHORTEST_INTERVAL: u64 = MEBIBYTE / 4;
/// Granules that are always kept, by all heaps that lie side by side together: as much as a small program uses in all.
const KEPT: u64 = MEBIBYTE / 4;
/// The largest reserve of each heap, in granules.
const LARGEST_RESERVE: u64 = 128 * MEBIBYTE;
/// Work for each granule of the reserve, after which half of what was not needed of it is given up. Debt is forgotten after
/// as much. To purge a page and take it again costs some microseconds; they are then at most a few hundredths of the time
/// that the work takes, if the program writes what it is given.
const PATIENCE: u64 = 1024;
/// Work that a free stands for, with the allocation before it: it takes as long as writing so many granules.
pub(super) const PAIR: u64 = 128;
/// The smallest hole that is purged without being asked for, in granules: four pages, of which two or more are whole.
pub(super) const SMALLEST_HOLE: usize = (16 << 10) / GRANULE;
/// Holes that a look goes through at most: in larger heaps, only larger holes are considered.
pub(super) const MOST_HOLES: usize = 1 << 14;
/// Work before the next look, for each hole that a look goes through in vain: it takes longer than the hole does.
pub(super) const EACH_HOLE: u64 = 1024;
/// Granules that, when they are purged, make up for the visit of one hole.
const WORTH_A_HOLE: u64 = 256;
/// After so many passes that gave up, the pause does not double again.
const MOST_DOUBLINGS: u32 = 16;

const _: () = assert!(SMALLEST_HOLE >= CHUNK);

/// What a heap remembers of its use. Amounts are granules; points in time are turnover or work.
#[derive(Debug)]
pub(super) struct PurgePolicy {
    /// The turnover at the last look.
    looked: u64,
    /// How much more there is before the next.
    pub(super) interval: u64,
    /// The work done when a look last went through the holes.
    pub(super) visited: u64,
    /// How much more there is before the next that does.
    pub(super) pause: u64,
    /// Passes in a row that gave up. Each doubles the pause.
    given_up: u32,
    /// So much may be in use without a page fault: it rises with use, and falls when memory is purged.
    pub(super) level: u64,
    /// Granules purged so recently that use above `level` counts them as purged too early.
    debt: u64,
    /// The work done when something was last purged.
    indebted: u64,
    reserve: u64,
    /// The least that was spare at any look since `since`: of the reserve, so much was not needed.
    idle: u64,
    /// The work done when the reserve was last judged.
    since: u64,
    /// All granules that were purged so far.
    purged: u64,
    /// What this heap always keeps.
    kept: u64,
}

/// What a look sees.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    /// Granules allocated and freed so far.
    pub(super) turnover: u64,
    /// The same, and [`PAIR`] for each free: what stands in for the time that has passed.
    pub(super) work: u64,
    /// The most that was in use since the last look.
    pub(super) peak: u64,
    pub(super) used: u64,
    /// What is free, dirty, and was not needed since the last look; no less than that.
    pub(super) spare: u64,
}

impl PurgePolicy {
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
        purged: 0,
        kept: KEPT,
    };

    /// From now on this is the policy of one of so many heaps that lie side by side.
    pub(super) fn share(&mut self, heaps: usize) {
        self.kept = KEPT / (heaps as u64).max(1);
    }

    /// Nothing is purged any more without being asked for.
    pub(super) fn never(&mut self) {
        self.interval = u64::MAX;
    }

    /// Whether a look is due.
    #[inline(always)]
    pub(super) fn is_due(&self, turnover: u64) -> bool {
        turnover.wrapping_sub(self.looked) >= self.interval
    }

    /// Whether a look in vain was so recent that this one is left out.
    pub(super) fn is_paused(&mut self, turnover: u64, work: u64) -> bool {
        let paused = work.wrapping_sub(self.visited) < self.pause;
        if paused {
            self.looked = turnover;
        }
        paused
    }

    /// Learns from a look, and says how many granules of what is spare are kept.
    pub(super) fn learn(&mut self, seen: &Seen) -> u64 {
        self.looked = seen.turnover;
        self.interval = (seen.used / 4).max(SHORTEST_INTERVAL);
        self.forget_old_debt(seen.work);
        self.idle = self.idle.min(seen.spare);
        self.count_missed(seen.peak);
        self.judge_reserve(seen.work);
        self.kept.max(seen.used / 16).saturating_add(self.reserve)
    }

    fn forget_old_debt(&mut self, work: u64) {
        let learnable = self.debt.max(self.reserve).max(self.kept).min(LARGEST_RESERVE);
        if work.wrapping_sub(self.indebted) > PATIENCE.saturating_mul(learnable) {
            self.debt = 0;
        }
    }

    /// Use above the level is debt that was missed: it becomes reserve.
    fn count_missed(&mut self, peak: u64) {
        if peak > self.level {
            let missed = self.debt.min(peak.wrapping_sub(self.level));
            self.debt = self.debt.wrapping_sub(missed);
            self.reserve = self.reserve.saturating_add(missed).min(LARGEST_RESERVE);
            self.level = peak;
            if missed > 0 {
                self.idle = 0;
            }
        }
    }

    fn judge_reserve(&mut self, work: u64) {
        if work.wrapping_sub(self.since) > PATIENCE.saturating_mul(self.reserve) {
            self.reserve = self.reserve.wrapping_sub(self.reserve.min(self.idle) / 2);
            (self.idle, self.since) = (u64::MAX, work);
        }
    }

    /// A look went through so many holes, and found so many granules to purge: the next one is put off.
    pub(super) fn put_off(&mut self, work: u64, holes: usize, found: u64) {
        let vain = (holes as u64).saturating_sub(found / WORTH_A_HOLE);
        let pause = EACH_HOLE.saturating_mul(vain.saturating_add(1));
        self.pause = pause.saturating_mul(1 << self.given_up.min(MOST_DOUBLINGS));
        self.visited = work;
    }

    /// A pass gave up, since the system refused too much.
    pub(super) fn gave_up(&mut self) {
        self.given_up = self.given_up.saturating_add(1);
    }

    /// The system has taken `n` granules.
    pub(super) fn purged(&mut self, n: usize, work: u64) {
        self.purged = self.purged.wrapping_add(n as u64);
        self.debt = self.debt.saturating_add(n as u64);
        self.indebted = work;
        if self.given_up > 0 {
            (self.given_up, self.pause) = (0, 0);
        }
    }

    /// Bytes that were purged so far.
    pub(super) fn purged_bytes(&self) -> u64 {
        self.purged.wrapping_mul(GRANULE as u64)
    }
}
