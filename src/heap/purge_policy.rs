//! When free memory is returned to the system, and how much. Numbers in, numbers out: testable without a heap.
//!
//! Free dirty memory costs nothing until another process needs it. Purging it costs a system call, and page faults if
//! it is used again. So the heap checks only after an *interval*: once the granules allocated and freed since the last
//! check exceed a quarter of those in use. A check compares
//!
//! ```text
//!   0           in use now     peak since the last check       in use + free and dirty
//!   |---------------|--------------------|-------------------------------|
//!                   |<- was needed ----->|<- spare: was not needed ----->|
//! ```
//!
//! Spare memory is purged beyond what is kept: 256 KiB or a sixteenth of the memory in use, plus a *reserve*. The
//! reserve is learned: memory needed again soon after a purge was purged too early, and as much is kept next time.
//!
//! An example, in MiB: 64 are in use, 60 are freed, and a check purges nearly all of them. They become the *debt*. If
//! use then rises to 64 again, it exceeds by 60 the *level* that stayed resident: all of the debt was purged too early,
//! and the reserve becomes 60. From now on, the 60 stay resident when freed. If they stay unneeded for [`PATIENCE`]
//! times as much work, half of the unneeded reserve is given up, then half of the rest.
//!
//! Time is measured in work, not by a clock, so purging is a function of the calls alone.

use crate::region::{CHUNK, GRANULE};

const MEBIBYTE: u64 = (1 << 20) / GRANULE as u64;
/// The shortest interval in granules, 256 KiB. A check costs more than purging less would gain.
pub(super) const MIN_INTERVAL: u64 = MEBIBYTE / 4;
/// Granules that all heaps side by side always keep together, 256 KiB: about what a small program uses in all.
const ALWAYS_KEPT: u64 = MEBIBYTE / 4;
/// The largest reserve of each heap in granules, 128 MiB: this much may stay resident in vain.
const MAX_RESERVE: u64 = 128 * MEBIBYTE;
/// Work per granule of the reserve after which half of its unneeded part is given up. Debt is forgotten after as much.
/// For a page of 4 KiB that is 4 MiB of work, some hundred microseconds if the program writes its memory. To purge the
/// page and fault it in again takes a few microseconds, so early purges cost a few percent at most.
const PATIENCE: u64 = 1024;
/// Work that a free adds: it and its allocation take about as long as writing so many granules, 2 KiB.
pub(super) const WORK_PER_FREE: u64 = 128;
/// The smallest hole in granules that an automatic pass purges, 16 KiB: at least three pages of 4 KiB in it are whole.
pub(super) const MIN_HOLE: usize = (16 << 10) / GRANULE;
/// The largest number of holes that a check scans: in larger heaps, only larger holes are considered.
pub(super) const MAX_HOLES: usize = 1 << 14;
/// Work before the next scan for each hole scanned in vain: eight frees, which take longer than scanning a hole.
pub(super) const PAUSE_PER_HOLE: u64 = 1024;
/// Granules found per hole that make its scan worthwhile: one page of 4 KiB.
const GRANULES_PER_HOLE: u64 = 256;
/// The largest number of times that the pause doubles.
const MAX_DOUBLINGS: u32 = 16;

const _: () = assert!(MIN_HOLE >= CHUNK);

/// The state of the policy. Amounts are in granules, points in time in turnover or work.
#[derive(Debug)]
pub(super) struct PurgePolicy {
    /// The turnover at the last check.
    checked_at: u64,
    /// The turnover between two checks.
    pub(super) interval: u64,
    /// The work done when a check last scanned the holes.
    pub(super) scanned_at: u64,
    /// The work before the next scan.
    pub(super) pause: u64,
    /// Passes in a row that gave up. Each doubles the pause.
    failed_passes: u32,
    /// Granules that can be in use without a page fault: rises with use, falls with purges.
    pub(super) level: u64,
    /// Granules purged recently. Use above `level` counts them as purged too early.
    debt: u64,
    /// The work done at the last purge.
    purged_at: u64,
    reserve: u64,
    /// The least spare memory at any check since `judged_at`: so much of the reserve was not needed.
    unneeded: u64,
    /// The work done when the reserve was last judged.
    judged_at: u64,
    purged: u64,
    /// Granules that this heap always keeps.
    kept: u64,
}

/// The numbers of a check.
#[derive(Clone, Copy)]
pub(super) struct Observed {
    /// Granules allocated and freed so far.
    pub(super) turnover: u64,
    /// Turnover, and [`WORK_PER_FREE`] for each free: stands in for time.
    pub(super) work: u64,
    /// The most granules in use at once since the last check.
    pub(super) peak: u64,
    pub(super) used: u64,
    /// An upper bound on the granules that are free, dirty, and were not needed since the last check.
    pub(super) spare: u64,
}

impl PurgePolicy {
    pub(super) const NEW: Self = Self {
        checked_at: 0,
        interval: MIN_INTERVAL,
        scanned_at: 0,
        pause: 0,
        failed_passes: 0,
        level: 0,
        debt: 0,
        purged_at: 0,
        reserve: 0,
        unneeded: u64::MAX,
        judged_at: 0,
        purged: 0,
        kept: ALWAYS_KEPT,
    };

    /// Makes this the policy of one of `heaps` heaps side by side.
    pub(super) fn share(&mut self, heaps: usize) {
        self.kept = ALWAYS_KEPT / (heaps as u64).max(1);
    }

    pub(super) fn disable(&mut self) {
        self.interval = u64::MAX;
    }

    #[inline(always)]
    pub(super) fn is_due(&self, turnover: u64) -> bool {
        turnover.wrapping_sub(self.checked_at) >= self.interval
    }

    /// Whether the last scan in vain was so recent that this check is skipped.
    pub(super) fn is_paused(&mut self, turnover: u64, work: u64) -> bool {
        let paused = work.wrapping_sub(self.scanned_at) < self.pause;
        if paused {
            self.checked_at = turnover;
        }
        paused
    }

    /// Learns from a check. Returns the spare granules to keep.
    pub(super) fn learn(&mut self, seen: &Observed) -> u64 {
        self.checked_at = seen.turnover;
        self.interval = (seen.used / 4).max(MIN_INTERVAL);
        self.forget_old_debt(seen.work);
        self.unneeded = self.unneeded.min(seen.spare);
        self.learn_from_debt(seen.peak);
        self.shrink_reserve(seen.work);
        self.kept.max(seen.used / 16).saturating_add(self.reserve)
    }

    fn forget_old_debt(&mut self, work: u64) {
        let learnable = self.debt.max(self.reserve).max(self.kept).min(MAX_RESERVE);
        if work.wrapping_sub(self.purged_at) > PATIENCE.saturating_mul(learnable) {
            self.debt = 0;
        }
    }

    /// Turns debt into reserve by as much as use exceeds the level.
    fn learn_from_debt(&mut self, peak: u64) {
        if peak > self.level {
            let missed = self.debt.min(peak.wrapping_sub(self.level));
            self.debt = self.debt.wrapping_sub(missed);
            self.reserve = self.reserve.saturating_add(missed).min(MAX_RESERVE);
            self.level = peak;
            if missed > 0 {
                self.unneeded = 0;
            }
        }
    }

    fn shrink_reserve(&mut self, work: u64) {
        if work.wrapping_sub(self.judged_at) > PATIENCE.saturating_mul(self.reserve) {
            self.reserve = self.reserve.wrapping_sub(self.reserve.min(self.unneeded) / 2);
            (self.unneeded, self.judged_at) = (u64::MAX, work);
        }
    }

    /// Delays the next scan after one of `holes` holes that found `found` granules to purge.
    pub(super) fn delay_next(&mut self, work: u64, holes: usize, found: u64) {
        let vain = (holes as u64).saturating_sub(found / GRANULES_PER_HOLE);
        let pause = PAUSE_PER_HOLE.saturating_mul(vain.saturating_add(1));
        self.pause = pause.saturating_mul(1 << self.failed_passes.min(MAX_DOUBLINGS));
        self.scanned_at = work;
    }

    /// Records a pass that gave up because the system refused too much.
    pub(super) fn gave_up(&mut self) {
        self.failed_passes = self.failed_passes.saturating_add(1);
    }

    pub(super) fn purged(&mut self, n: usize, work: u64) {
        self.purged = self.purged.wrapping_add(n as u64);
        self.debt = self.debt.saturating_add(n as u64);
        self.purged_at = work;
        if self.failed_passes > 0 {
            (self.failed_passes, self.pause) = (0, 0);
        }
    }

    pub(super) fn purged_bytes(&self) -> u64 {
        self.purged.wrapping_mul(GRANULE as u64)
    }
}
