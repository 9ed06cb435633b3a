//! How much is in use, and the peaks: the most bytes in use and the highest top, since the heap began and within each
//! measurement.
//!
//! [`Usage`] is what every call writes: it keeps the peaks since the last *fold* alone. A fold, which happens where a
//! measurement begins or ends and where the peaks are reset, adds those to everything that is being measured and starts
//! them anew. So a call of the heap costs the same whether anything is being measured or not.

use crate::region::Granule;

/// Measurements at once that have a peak each. Further ones share the last, and may see a peak from before they began.
const MEASUREMENTS: usize = 16;

/// What is in use now, and the peaks since the last fold.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Usage {
    /// How many more granules may come into use before there are more than ever since the last fold.
    headroom: u64,
    /// The most granules in use at once since the last fold.
    peak_used: u64,
    /// The highest top before it last came down, since the last fold.
    peak_top: usize,
}

impl Usage {
    pub(crate) const ZERO: Self = Self { headroom: 0, peak_used: 0, peak_top: 0 };

    /// `n` granules more are in use.
    #[inline(always)]
    pub(crate) fn grew(&mut self, n: usize) {
        let (headroom, more_than_ever) = self.headroom.overflowing_sub(n as u64);
        self.headroom = headroom;
        if more_than_ever {
            self.peak_used = self.peak_used.wrapping_sub(headroom);
            self.headroom = 0;
        }
    }

    /// `n` granules fewer are in use.
    #[inline(always)]
    pub(crate) fn shrank(&mut self, n: usize) {
        self.headroom = self.headroom.wrapping_add(n as u64);
    }

    /// Granules in use.
    #[inline(always)]
    pub(crate) fn used(&self) -> u64 {
        self.peak_used.wrapping_sub(self.headroom)
    }

    /// Top is about to come down from `top`.
    #[inline(always)]
    pub(crate) fn top_fell(&mut self, top: Granule) {
        self.peak_top = self.peak_top.max(top.0);
    }

    /// The peaks since the last fold, where top is at `top`.
    pub(crate) fn peak(&self, top: Granule) -> Peak {
        Peak { used: self.peak_used, top: self.peak_top.max(top.0) }
    }
}

/// The most granules in use at once, and the highest top.
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

/// What the peaks were up to the last fold.
#[derive(Debug)]
pub(super) struct OlderPeaks {
    /// Since the heap began or the peaks were reset.
    pub(super) all: Peak,
    /// Since the heap last looked at how much it needs.
    look: Peak,
    /// The highest top since the heap began.
    pub(super) highest_top: usize,
    /// Since a measurement began, and how many measurements share it.
    measurements: [(Peak, u32); MEASUREMENTS],
}

impl OlderPeaks {
    pub(super) const NONE: Self = Self {
        all: Peak::ZERO,
        look: Peak::ZERO,
        highest_top: 0,
        measurements: [(Peak::ZERO, 0); MEASUREMENTS],
    };
}

/// The peaks of a heap, to be folded.
pub(crate) struct Peaks<'a> {
    pub(super) usage: &'a mut Usage,
    pub(super) older: &'a mut OlderPeaks,
    pub(super) top: Granule,
}

impl Peaks<'_> {
    /// Adds the peaks since the last fold to all that are kept, and starts them anew.
    fn fold(&mut self) {
        let peak = self.usage.peak(self.top);
        let older = &mut *self.older;
        older.all = older.all.max(peak);
        older.look = older.look.max(peak);
        older.highest_top = older.highest_top.max(peak.top);
        for (measured, users) in &mut older.measurements {
            if *users > 0 {
                *measured = measured.max(peak);
            }
        }
        *self.usage = Usage { headroom: 0, peak_used: self.usage.used(), peak_top: self.top.0 };
    }

    /// The most granules in use at once since this was asked last.
    pub(crate) fn take_look(mut self) -> u64 {
        self.fold();
        core::mem::replace(&mut self.older.look, Peak::ZERO).used
    }

    /// Begins a measurement, and returns its number.
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

    /// Ends the measurement of that number, and returns its peaks.
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

    /// Starts the peaks since the heap began anew, from now.
    pub(crate) fn reset(mut self) {
        self.fold();
        self.older.all = Peak::ZERO;
    }
}
