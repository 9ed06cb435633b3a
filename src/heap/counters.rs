//! What the heap counts: plain additions under the lock, none of them in doubt.

use crate::inspect::HopHistogram;
use crate::region::Granule;

/// The raw counts. What [`Stats`](crate::Stats) shows is computed from them, so that a call adds as little as it can.
#[derive(Debug)]
pub(super) struct Counters {
    /// Granules given to all requests so far.
    pub(super) allocated: u64,
    /// Granules that came back so far.
    pub(super) returned: u64,
    /// Bytes asked for by all requests so far.
    pub(super) requested: u64,
    /// The most granules in use at once.
    pub(super) peak_used: u64,
    /// The highest top before it last came down.
    pub(super) peak_top: usize,
    /// Free segments below top.
    pub(super) holes: usize,
    /// Segments freed, moved ones included.
    pub(super) freed: u64,
    pub(super) splits: u64,
    pub(super) coalesces: u64,
    pub(super) reallocs: u64,
    pub(super) reallocs_in_place: u64,
    pub(super) reallocs_moved: u64,
    pub(super) failures: u64,
    pub(super) last_failed_size: usize,
    /// One entry for every segment that was ever placed.
    pub(super) hops: HopHistogram,
    pub(super) failed_hops: HopHistogram,
}

impl Counters {
    pub(super) const ZERO: Self = Self {
        allocated: 0,
        returned: 0,
        requested: 0,
        peak_used: 0,
        peak_top: 0,
        holes: 0,
        freed: 0,
        splits: 0,
        coalesces: 0,
        reallocs: 0,
        reallocs_in_place: 0,
        reallocs_moved: 0,
        failures: 0,
        last_failed_size: 0,
        hops: HopHistogram::new(),
        failed_hops: HopHistogram::new(),
    };

    /// A request of `size` bytes was given a segment of `n` granules.
    #[inline]
    pub(super) fn placed(&mut self, size: usize, n: usize, hops: usize) {
        self.hops.record(hops);
        self.grew(size, n);
    }

    /// `n` granules more are in use, for `size` bytes more.
    #[inline]
    pub(super) fn grew(&mut self, size: usize, n: usize) {
        self.requested = self.requested.wrapping_add(size as u64);
        self.allocated = self.allocated.wrapping_add(n as u64);
        self.peak_used = self.peak_used.max(self.allocated.wrapping_sub(self.returned));
    }

    /// A request of `size` bytes found no place.
    #[cold]
    pub(super) fn failed(&mut self, size: usize, hops: usize) {
        self.failed_hops.record(hops);
        self.failures = self.failures.wrapping_add(1);
        self.last_failed_size = size;
    }

    /// A request took the front of a free segment, or all of it if nothing was `left`.
    #[inline]
    pub(super) fn took(&mut self, left: bool) {
        self.splits = self.splits.wrapping_add(u64::from(left));
        self.holes = self.holes.wrapping_sub(usize::from(!left));
    }

    /// A segment of `n` granules is no longer in use.
    #[inline]
    pub(super) fn freed(&mut self, n: usize) {
        self.freed = self.freed.wrapping_add(1);
        self.returned = self.returned.wrapping_add(n as u64);
    }

    /// A free segment appeared and was joined with the one below, the one behind, both or none.
    #[inline]
    pub(super) fn gave(&mut self, below: bool, behind: bool) {
        let joined = usize::from(below).wrapping_add(usize::from(behind));
        self.coalesces = self.coalesces.wrapping_add(joined as u64);
        self.holes = self.holes.wrapping_add(1).wrapping_sub(joined);
    }

    /// Padding in front of an aligned segment became a free segment.
    pub(super) fn hole_appeared(&mut self) {
        self.holes = self.holes.wrapping_add(1);
    }

    /// A free segment became part of the wilderness.
    pub(super) fn hole_joined_wilderness(&mut self) {
        self.holes = self.holes.wrapping_sub(1);
        self.coalesces = self.coalesces.wrapping_add(1);
    }

    /// Top is about to come down from `top`.
    pub(super) fn top_fell(&mut self, top: Granule) {
        self.peak_top = self.peak_top.max(top.0);
    }
}
