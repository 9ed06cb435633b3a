//! Memory in use, and peaks: the most bytes in use and the highest top, since the heap was created and in each
//! measurement.
//!
//! Calls update only [`Usage`], which holds the peaks since the last *fold*. A fold, when a measurement begins or ends
//! and when peaks are reset, merges them into those of all running measurements and restarts them. So a call costs the
//! same however many measurements run.

use crate::region::Granule;

/// Simultaneous measurements with a peak of their own. Further ones share the last, and may report an older peak.
const MEASUREMENTS: usize = 16;

/// Granules in use now, and the peaks since the last fold.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Usage {
    /// Granules that can come into use before the peak rises.
    headroom: u64,
    /// The most granules in use at once since the last fold.
    peak_used: u64,
    /// The highest top that has been lowered since the last fold.
    peak_top: usize,
}

impl Usage {
    pub(crate) const ZERO: Self = Self { headroom: 0, peak_used: 0, peak_top: 0 };

    /// Counts `n` more granules in use.
    #[inline(always)]
    pub(crate) fn grew(&mut self, n: usize) {
        let (headroom, new_peak) = self.headroom.overflowing_sub(n as u64);
        self.headroom = headroom;
        if new_peak {
            self.peak_used = self.peak_used.wrapping_sub(headroom);
            self.headroom = 0;
        }
    }

    /// Counts `n` fewer granules in use.
    #[inline(always)]
    pub(crate) fn shrank(&mut self, n: usize) {
        self.headroom = self.headroom.wrapping_add(n as u64);
    }

    /// Granules in use.
    #[inline(always)]
    pub(crate) fn used(&self) -> u64 {
        self.peak_used.wrapping_sub(self.headroom)
    }

    /// Records that top is about to be lowered from `top`.
    #[inline(always)]
    pub(crate) fn top_fell(&mut self, top: Granule) {
        self.peak_top = self.peak_top.max(top.0);
    }

    /// The peaks since the last fold, with top at `top` now.
    pub(crate) fn peak(&self, top: Granule) -> Peak {
        Peak { used: self.peak_used, top: self.peak_top.max(top.0) }
    }
}

/// The most granules in use at once, and the highest top in granules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peak {
    pub(super) used: u64,
    pub(super) top: usize,
}

impl Peak {
    const ZERO: Self = Self { used: 0, top: 0 };

    pub(crate) fn max(self, other: Self) -> Self {
        Self { used: self.used.max(other.used), top: self.top.max(other.top) }
    }

    pub(crate) fn used_bytes(self) -> usize {
        Granule(self.used as usize).bytes()
    }

    pub(crate) fn top_bytes(self) -> usize {
        Granule(self.top).bytes()
    }
}

/// The peaks up to the last fold.
#[derive(Debug)]
pub(super) struct OlderPeaks {
    /// Since the heap was created, or since the peaks were reset.
    pub(super) all: Peak,
    /// Since the last purge check.
    since_check: Peak,
    /// The highest top since the heap was created.
    pub(super) highest_top: usize,
    /// Since each measurement began, with the number of measurements that share it.
    measurements: [(Peak, u32); MEASUREMENTS],
}

impl OlderPeaks {
    pub(super) const NONE: Self = Self {
        all: Peak::ZERO,
        since_check: Peak::ZERO,
        highest_top: 0,
        measurements: [(Peak::ZERO, 0); MEASUREMENTS],
    };
}

/// A heap's peaks, ready to fold.
pub(crate) struct Peaks<'a> {
    pub(super) usage: &'a mut Usage,
    pub(super) older: &'a mut OlderPeaks,
    pub(super) top: Granule,
}

impl Peaks<'_> {
    /// Merges the peaks since the last fold into all others, and restarts them.
    fn fold(&mut self) {
        let peak = self.usage.peak(self.top);
        let older = &mut *self.older;
        older.all = older.all.max(peak);
        older.since_check = older.since_check.max(peak);
        older.highest_top = older.highest_top.max(peak.top);
        for (measured, users) in &mut older.measurements {
            if *users > 0 {
                *measured = measured.max(peak);
            }
        }
        *self.usage = Usage { headroom: 0, peak_used: self.usage.used(), peak_top: self.top.0 };
    }

    /// The most granules in use at once since the last call.
    pub(crate) fn take_since_check(mut self) -> u64 {
        self.fold();
        core::mem::replace(&mut self.older.since_check, Peak::ZERO).used
    }

    /// Begins a measurement and returns its number.
    pub(crate) fn begin(mut self) -> usize {
        self.fold();
        let measurements = &mut self.older.measurements;
        let number = measurements.iter().position(|(_, users)| *users == 0);
        if let Some((peak, users)) = measurements.get_mut(number.unwrap_or(MEASUREMENTS - 1)) {
            if *users == 0 {
                *peak = Peak::ZERO;
            }
            *users = users.saturating_add(1);
        }
        number.unwrap_or(MEASUREMENTS - 1)
    }

    /// Ends a measurement and returns its peaks.
    pub(crate) fn end(mut self, number: usize) -> Peak {
        self.fold();
        match self.older.measurements.get_mut(number) {
            Some((peak, users)) => {
                *users = users.saturating_sub(1);
                *peak
            }
            None => Peak::ZERO,
        }
    }

    /// Restarts the peaks since the heap was created.
    pub(crate) fn reset(mut self) {
        self.fold();
        self.older.all = Peak::ZERO;
    }
}
