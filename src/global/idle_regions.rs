//! The set of regions that hold idle memory.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Calls between two checks of the regions that hold idle memory: a small part of a quiet window.
pub(super) const LOOK_EVERY: usize = 512;

/// The regions that hold idle memory, and the calls since they do.
pub(super) struct IdleRegions {
    /// One bit per region.
    regions: AtomicU64,
    calls: AtomicUsize,
}

impl IdleRegions {
    pub(super) const fn new() -> Self {
        Self { regions: AtomicU64::new(0), calls: AtomicUsize::new(0) }
    }

    /// Counts calls. Returns whether it is time to look.
    #[inline]
    pub(super) fn count(&self, calls: usize) -> bool {
        let before = self.calls.fetch_add(calls, Ordering::Relaxed);
        before / LOOK_EVERY != before.wrapping_add(calls) / LOOK_EVERY
    }

    pub(super) fn is_any(&self) -> bool {
        self.regions.load(Ordering::Relaxed) != 0
    }

    pub(super) fn holds(&self, region: usize) -> bool {
        self.regions.load(Ordering::Relaxed) >> region & 1 != 0
    }

    /// Records whether a region holds idle memory. Returns whether it is the first one to do so, or the last one to
    /// stop.
    pub(super) fn set(&self, region: usize, idle: bool) -> bool {
        let bit = 1 << region;
        if self.holds(region) == idle {
            return false;
        }
        let others = if idle {
            self.regions.fetch_or(bit, Ordering::Relaxed)
        } else {
            self.regions.fetch_and(!bit, Ordering::Relaxed)
        };
        others & !bit == 0
    }
}
