//! The peaks: the most bytes in use and the highest top, since the heap began and within each measurement.
//!
//! The counters keep the peaks since the last fold alone. A fold, which happens where a measurement begins or ends and
//! where the peaks are reset, adds those to everything that is being measured and starts them anew. So a call of the
//! heap costs the same whether anything is being measured or not.

use super::Heap;
use super::counters::Counters;
use crate::free_list::FreeList;
use crate::region::Granule;

/// Measurements at once that have a peak each. Further ones share the last, and may see a peak from before they began.
const OPEN: usize = 16;

/// The most granules in use at once, and the highest top.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peak {
    used: u64,
    top: usize,
}

impl Peak {
    const ZERO: Self = Self { used: 0, top: 0 };

    fn max(self, other: Self) -> Self {
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
    all: Peak,
    /// Since the heap last looked at how much it needs.
    look: Peak,
    /// The highest top since the heap began.
    highest_top: usize,
    /// Since a measurement began, and how many measurements share it.
    open: [(Peak, u32); OPEN],
}

impl OlderPeaks {
    pub(super) const NONE: Self =
        Self { all: Peak::ZERO, look: Peak::ZERO, highest_top: 0, open: [(Peak::ZERO, 0); OPEN] };
}

/// The peaks of a heap, to be folded.
pub(crate) struct Peaks<'a> {
    counters: &'a mut Counters,
    top: Granule,
}

impl<L: FreeList> Heap<L> {
    pub(crate) fn peaks(&mut self) -> Peaks<'_> {
        Peaks { counters: &mut self.counters, top: self.ground.top }
    }

    /// Memory above this was never handed out.
    pub(crate) fn highest_top(&self) -> Granule {
        let since_fold = self.counters.peak_since_fold(self.ground.top).top;
        Granule(self.counters.older_peaks.highest_top.max(since_fold))
    }

    /// The peaks since the heap began or they were reset.
    pub(super) fn peak(&self) -> Peak {
        self.counters.older_peaks.all.max(self.counters.peak_since_fold(self.ground.top))
    }
}

impl Counters {
    fn peak_since_fold(&self, top: Granule) -> Peak {
        Peak { used: self.peak_used, top: self.peak_top.max(top.0) }
    }
}

impl Peaks<'_> {
    /// Adds the peaks since the last fold to all that are kept, and starts them anew.
    fn fold(&mut self) {
        let counters = &mut *self.counters;
        let peak = counters.peak_since_fold(self.top);
        let older = &mut counters.older_peaks;
        older.all = older.all.max(peak);
        older.look = older.look.max(peak);
        older.highest_top = older.highest_top.max(peak.top);
        for (open, users) in &mut older.open {
            if *users > 0 {
                *open = open.max(peak);
            }
        }
        counters.begin_peaks(self.top);
    }

    /// The most granules in use at once since this was asked last.
    pub(super) fn take_look(mut self) -> u64 {
        self.fold();
        core::mem::replace(&mut self.counters.older_peaks.look, Peak::ZERO).used
    }

    /// Begins a measurement, and returns its number.
    pub(crate) fn begin(mut self) -> usize {
        self.fold();
        let open = &mut self.counters.older_peaks.open;
        let number = open.iter().position(|(_, users)| *users == 0);
        if let Some((peak, users)) = open.get_mut(number.unwrap_or(OPEN - 1)) {
            if *users == 0 {
                *peak = Peak::ZERO;
            }
            *users = users.saturating_add(1);
        }
        number.unwrap_or(OPEN - 1)
    }

    /// Ends the measurement of that number, and returns its peaks.
    pub(crate) fn end(mut self, number: usize) -> Peak {
        self.fold();
        match self.counters.older_peaks.open.get_mut(number) {
            Some((peak, users)) => {
                *users = users.saturating_sub(1);
                *peak
            }
            None => Peak::ZERO,
        }
    }

    /// Lets the peaks since the heap began be those of now.
    pub(crate) fn reset(mut self) {
        self.fold();
        self.counters.older_peaks.all = Peak::ZERO;
    }
}
