//! Quiet windows: some thousand calls in which idle memory is either needed or not.
//!
//! A window that only frees, or only allocates, is not quiet: use is still falling, or rises again. It moves as far as
//! its calls can move it. In a quiet window, use stays where it is, or swings back and forth.

/// Calls in a window. Use may stop falling at any call of one window, and then stays quiet for the whole next one: so
/// idle memory is purged within 10,000 calls.
const CALLS: u64 = 4096;
/// The part of all granules allocated and freed by which use must have moved for the window not to be quiet.
const MOVING_PART: u64 = 8;

/// The memory in use at a check, in granules, and the activity so far.
#[derive(Clone, Copy)]
pub(super) struct Use {
    pub(super) used: u64,
    /// The most in use at one time since the last check.
    pub(super) peak: u64,
    /// Granules allocated and freed.
    pub(super) turnover: u64,
    /// Calls, including those elsewhere that have been [counted in](super::Heap::count_calls_elsewhere).
    pub(super) calls: u64,
    /// Nanoseconds that a window lasts; 0 if it lasts so many calls.
    pub(super) decay: u64,
    /// Nanoseconds of a clock, if it was read for this check.
    pub(super) now: Option<u64>,
}

/// The calls since some call. Amounts are in granules.
#[derive(Debug)]
pub(super) struct Window {
    /// Calls and turnover when it began.
    calls: u64,
    turnover: u64,
    /// The most and the least granules in use since then.
    highest: u64,
    lowest: u64,
    /// Nanoseconds of the clock when it was first asked.
    began: Option<u64>,
}

impl Window {
    pub(super) fn begin(seen: &Use) -> Self {
        Self {
            calls: seen.calls,
            turnover: seen.turnover,
            highest: seen.used,
            lowest: seen.used,
            began: seen.now,
        }
    }

    /// Takes note of a check. Returns whether the window is over.
    pub(super) fn look(&mut self, seen: &Use) -> bool {
        self.highest = self.highest.max(seen.peak);
        self.lowest = self.lowest.min(seen.used);
        if seen.decay == 0 {
            return seen.calls.wrapping_sub(self.calls) >= CALLS;
        }
        seen.now.is_some_and(|now| now.wrapping_sub(*self.began.get_or_insert(now)) >= seen.decay)
    }

    /// Whether use moved rather than swung.
    pub(super) fn moved(&self, seen: &Use) -> bool {
        let turnover = seen.turnover.wrapping_sub(self.turnover);
        self.highest.saturating_sub(self.lowest).saturating_mul(MOVING_PART) > turnover
    }

    /// Free granules that were in use in the window.
    pub(super) fn needed(&self, seen: &Use) -> u64 {
        self.highest.saturating_sub(seen.used)
    }
}
