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
//! Patience is for small amounts. When use has fallen to a fraction of the level, the memory that a check has kept is
//! *idle*, and is watched in [windows](super::quiet) of a few thousand calls. The first window in which it was not
//! needed ends with a purge that leaves little.
//!
//! Large bursts are not purged on suspicion either: a heap that was large and frees large blocks keeps them until a
//! window has passed, because glibc would keep them too.
//!
//! Time is measured in work and calls, not by a clock, so purging is a function of the calls alone.

use super::quiet::{Use, Window};
use crate::region::{CHUNK, GRANULE};

const MEBIBYTE: u64 = (1 << 20) / GRANULE as u64;
/// The shortest interval in granules, 256 KiB. A check costs more than purging less would gain.
pub(super) const MIN_INTERVAL: u64 = MEBIBYTE / 4;
/// Granules that all heaps side by side always keep together, 256 KiB: about what a small program uses in all.
const ALWAYS_KEPT: u64 = MEBIBYTE / 4;
/// The largest reserve of each heap in granules, 512 MiB: this much may stay resident unused until a window has passed.
const MAX_RESERVE: u64 = 512 * MEBIBYTE;
/// Granules that are kept, 128 MiB, because they were in use at the last check.
const MAX_SWING: u64 = 128 * MEBIBYTE;
/// Granules of reserve that all heaps side by side may keep together beyond a quiet window, 10 MiB.
const QUIET_RESERVE: u64 = 10 * MEBIBYTE;
/// Interval in granules while memory is idle, 16 KiB: much less than a window, whose calls free at least one each.
const IDLE_INTERVAL: u64 = MEBIBYTE / 64;
/// Granules that a burst exceeds, 160 MiB. To purge less and fault it in again takes some tens of milliseconds, once.
const BURST: u64 = 160 * MEBIBYTE;
/// The mean size in granules of a burst's blocks: at least 8 KiB, since programs take longer for smaller ones than for
/// the page faults, and less than 32 MiB, from where on every allocator returns a block at once.
const BURST_BLOCKS: core::ops::Range<u64> = MEBIBYTE / 128..32 * MEBIBYTE;
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
/// Work before the next scan for each hole that was scanned without a find: eight frees, which take longer than
/// scanning a hole.
pub(super) const PAUSE_PER_HOLE: u64 = 1024;
/// Granules found per hole that make its scan worthwhile: one page of 4 KiB.
const GRANULES_PER_HOLE: u64 = 256;
/// The largest number of times that the pause doubles.
const MAX_DOUBLINGS: u32 = 16;

/// Calls after which a clock may be asked again.
const CALLS_PER_CLOCK: u64 = 256;

const _: () = assert!(MIN_HOLE >= CHUNK);

/// The state of the policy. Amounts are in granules, points in time in turnover or work.
#[derive(Debug)]
pub(super) struct PurgePolicy {
    /// The turnover at the last check.
    checked_at: u64,
    /// The turnover at the last check that was not skipped, and the granules in use then.
    learned_at: u64,
    used: u64,
    /// The frees at the last check, and the granules freed.
    freed_at: (u64, u64),
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
    /// Granules of reserve that this heap may keep beyond a quiet window.
    quiet_reserve: u64,
    /// The window in which idle memory is watched, if there is any.
    window: Option<Window>,
    /// This heap's calls when calls elsewhere were last counted, and all calls elsewhere so far.
    own_calls: u64,
    calls_elsewhere: u64,
    /// Nanoseconds that a window lasts; 0 if it lasts so many calls.
    pub(super) decay: u64,
    /// Calls when a clock was last asked.
    asked_at: u64,
    /// The idle memory is a burst that is not purged before the window ends.
    holds_burst: bool,
}

/// The numbers of a check.
#[derive(Clone, Copy)]
pub(super) struct Observed {
    pub(super) usage: Use,
    /// Turnover, and [`WORK_PER_FREE`] for each free: a measure of time.
    pub(super) work: u64,
    pub(super) frees: u64,
    /// An upper bound on the granules that are free and dirty.
    pub(super) free: u64,
}

impl Observed {
    fn freed_granules(&self) -> u64 {
        self.usage.turnover.saturating_sub(self.usage.used) / 2
    }
}

impl PurgePolicy {
    pub(super) const NEW: Self = Self {
        checked_at: 0,
        learned_at: 0,
        used: 0,
        freed_at: (0, 0),
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
        quiet_reserve: QUIET_RESERVE,
        window: None,
        own_calls: 0,
        calls_elsewhere: 0,
        decay: 0,
        asked_at: 0,
        holds_burst: false,
    };

    /// Makes this the policy of one of `heaps` heaps side by side.
    pub(super) fn share(&mut self, heaps: usize) {
        let heaps = (heaps as u64).max(1);
        (self.kept, self.quiet_reserve) = (ALWAYS_KEPT / heaps, QUIET_RESERVE / heaps);
    }

    /// Keeps at least `n` free granules from now on.
    pub(super) fn keep(&mut self, n: usize) {
        self.kept = self.kept.max(n as u64);
    }

    pub(super) fn disable(&mut self) {
        self.interval = u64::MAX;
    }

    #[inline(always)]
    pub(super) fn is_due(&self, turnover: u64) -> bool {
        turnover.wrapping_sub(self.checked_at) >= self.interval
    }

    /// Whether this check is skipped: because the last scan that found little was too recent, or because it comes early
    /// for the sake of idle memory. The end of a window is not skipped, unless the system refuses pages.
    pub(super) fn skips(&mut self, seen: &Use, work: u64) -> bool {
        let over = self.window.as_mut().is_some_and(|window| window.look(seen)) && self.failed_passes == 0;
        let paused = work.wrapping_sub(self.scanned_at) < self.pause;
        let early = seen.turnover.wrapping_sub(self.learned_at) < (self.used / 4).max(MIN_INTERVAL);
        let skips = !over && (paused || (early && self.window.is_some()));
        if skips {
            self.checked_at = seen.turnover;
        }
        skips
    }

    /// Learns from a check. Returns the free granules to keep.
    pub(super) fn learn(&mut self, seen: &Observed) -> u64 {
        let usage = &seen.usage;
        let swing = usage.peak.saturating_sub(usage.used);
        let (frees, freed) = self.freed_at;
        let mean = seen.freed_granules().wrapping_sub(freed) / seen.frees.wrapping_sub(frees).max(1);
        (self.learned_at, self.used) = (usage.turnover, usage.used);
        (self.checked_at, self.freed_at) = (usage.turnover, (seen.frees, seen.freed_granules()));
        self.forget_old_debt(seen.work);
        self.unneeded = self.unneeded.min(seen.free.saturating_sub(swing));
        self.learn_from_debt(usage.peak);
        self.shrink_reserve(seen.work);
        let kept = self.kept.max(usage.used / 16);
        let needed = self.watch(usage).unwrap_or(swing.min(MAX_SWING));
        let beyond = self.reserve.saturating_add(needed);
        if self.window.is_none() {
            self.holds_burst = BURST_BLOCKS.contains(&mean) && (self.holds_burst || usage.peak > BURST);
        }
        let beyond = if self.holds_burst { MAX_RESERVE } else { beyond.min(MAX_RESERVE) };
        kept.saturating_add(beyond)
    }

    /// Watches idle memory. At the end of a quiet window, gives up the reserve but for a little, and returns the free
    /// granules that were in use in the window. Until then, returns all idle granules if they decay by time.
    fn watch(&mut self, seen: &Use) -> Option<u64> {
        let idle = self.holds_idle(seen.used);
        if !idle && !self.holds_burst {
            self.window = None;
            return None;
        }
        let Some(window) = self.window.as_mut() else {
            self.window = Some(Window::begin(seen));
            return None;
        };
        if !window.look(seen) {
            return (seen.decay > 0).then(|| self.level.saturating_sub(seen.used));
        }
        let (moved, needed) = (window.moved(seen), window.needed(seen));
        *window = Window::begin(seen);
        // A burst that the heap knows, or keeps for the first time, is still on its way down, or up again.
        if moved && (self.holds_burst || self.reserve > self.quiet_reserve) {
            return None;
        }
        self.holds_burst = false;
        if idle {
            self.reserve = self.reserve.min(self.quiet_reserve);
        }
        Some(needed)
    }

    /// Whether much more memory is resident than is in use, as far as the level says.
    pub(super) fn holds_idle(&self, used: u64) -> bool {
        let little = self.kept.saturating_add(self.quiet_reserve).saturating_add(used.saturating_mul(2));
        self.level.saturating_sub(used) > little && self.failed_passes == 0
    }

    /// Sets the interval to the next check.
    pub(super) fn schedule(&mut self, used: u64) {
        self.interval = if self.holds_idle(used) { IDLE_INTERVAL } else { (used / 4).max(MIN_INTERVAL) };
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

    /// Records that at most `free` granules are free and resident.
    pub(super) fn found(&mut self, used: u64, free: u64) {
        self.level = self.level.min(used.saturating_add(free));
    }

    /// Records that everything free was purged on demand, from which the policy learns nothing.
    pub(super) fn purged_all(&mut self, used: u64) {
        (self.level, self.debt) = (used, 0);
        self.schedule(used);
    }

    /// Counts `calls` calls in this heap and others, of which `own` is this heap's number of calls so far.
    pub(super) fn count_elsewhere(&mut self, calls: u64, own: u64) {
        let here = own.wrapping_sub(self.own_calls);
        self.own_calls = own;
        self.calls_elsewhere = self.calls_elsewhere.wrapping_add(calls.saturating_sub(here));
    }

    /// Calls so far, of which `own` are this heap's.
    pub(super) fn calls(&self, own: u64) -> u64 {
        own.wrapping_add(self.calls_elsewhere)
    }

    /// Whether a check at that many calls may read a clock.
    pub(super) fn asks_clock(&mut self, calls: u64) -> bool {
        let asks = self.decay > 0 && calls.wrapping_sub(self.asked_at) >= CALLS_PER_CLOCK;
        if asks {
            self.asked_at = calls;
        }
        asks
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
