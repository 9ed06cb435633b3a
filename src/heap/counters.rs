//! Event counters, updated under the lock. Most of [`Stats`](crate::Stats) is derived from them, to keep calls cheap.

use super::usage::Usage;
use crate::inspect::HopHistogram;
use crate::region::{Span, Table};

/// The raw counts, in the order in which `crates/tool/gdb/smalloc_gdb.py` reads them.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Counters {
    /// Granules allocated so far.
    pub(crate) allocated: u64,
    /// Granules in use now and at the peak.
    pub(crate) usage: Usage,
    /// Bytes requested so far, by all requests.
    pub(crate) requested: u64,
    /// Segments freed, including those that a `realloc` moved from.
    pub(crate) freed: u64,
    /// Segments that were shortened in place.
    cuts: u64,
    /// Sides on which a freed segment had no free neighbour to coalesce with; the wilderness is one.
    unjoined: u64,
    /// Free segments that were split because a request took only a part.
    pub(crate) splits: u64,
    /// Requests that were placed in the wilderness.
    extensions: u64,
    /// Segments that grew into the free segment behind them.
    growths: u64,
    /// Aligned requests that left padding in front.
    paddings: u64,
    pub(crate) reallocs: u64,
    pub(crate) reallocs_in_place: u64,
    pub(crate) reallocs_moved: u64,
    pub(crate) failures: u64,
    pub(crate) last_failed_size: usize,
    /// The hops of every request that was placed.
    pub(crate) hops: HopHistogram,
    /// The hops of the requests that failed: one histogram, once there is a region.
    failed: Table<HopHistogram>,
}

impl Counters {
    pub(crate) const ZERO: Self = Self {
        allocated: 0,
        usage: Usage::ZERO,
        requested: 0,
        freed: 0,
        cuts: 0,
        unjoined: 0,
        splits: 0,
        extensions: 0,
        growths: 0,
        paddings: 0,
        reallocs: 0,
        reallocs_in_place: 0,
        reallocs_moved: 0,
        failures: 0,
        last_failed_size: 0,
        hops: HopHistogram::new(),
        failed: Table::NONE,
    };

    pub(crate) fn cold_bytes() -> usize {
        Table::<HopHistogram>::bytes(1)
    }

    pub(crate) fn attach(&mut self, cold: &mut Span) {
        self.failed = Table::carve(cold, 1);
    }

    /// Counts a request of `size` bytes that was placed in `n` granules.
    #[inline(always)]
    pub(crate) fn placed(&mut self, size: usize, n: usize, hops: usize) {
        self.hops.record(hops);
        self.grew(size, n);
    }

    /// Counts `n` more granules in use, for `size` more bytes.
    #[inline(always)]
    pub(crate) fn grew(&mut self, size: usize, n: usize) {
        self.requested = self.requested.wrapping_add(size as u64);
        self.allocated = self.allocated.wrapping_add(n as u64);
        self.usage.grew(n);
    }

    /// Granules allocated and freed so far.
    #[inline(always)]
    pub(crate) fn turnover(&self) -> u64 {
        self.allocated.wrapping_mul(2).wrapping_sub(self.usage.used())
    }

    pub(crate) fn resized(&mut self) {
        self.reallocs_in_place = self.reallocs_in_place.wrapping_add(1);
    }

    /// Counts a request of `size` bytes that failed.
    #[cold]
    pub(crate) fn failed(&mut self, size: usize, hops: usize) {
        let mut failed = self.failed.get(0);
        failed.record(hops);
        self.failed.set(0, failed);
        self.failures = self.failures.wrapping_add(1);
        self.last_failed_size = size;
    }

    pub(crate) fn failed_hops(&self) -> HopHistogram {
        if self.failures == 0 { HopHistogram::new() } else { self.failed.get(0) }
    }

    /// Counts a part taken of a free segment, which is split if a rest is `left` behind.
    #[inline(always)]
    pub(crate) fn took(&mut self, left: bool) {
        self.splits = self.splits.wrapping_add(u64::from(left));
    }

    #[inline(always)]
    pub(crate) fn extended(&mut self) {
        self.extensions = self.extensions.wrapping_add(1);
    }

    /// Counts a segment that is about to grow into the free segment behind it.
    pub(crate) fn grew_into_hole(&mut self) {
        self.growths = self.growths.wrapping_add(1);
    }

    /// Counts a segment that was shortened by `n` granules.
    pub(crate) fn cut(&mut self, n: usize) {
        self.cuts = self.cuts.wrapping_add(1);
        self.usage.shrank(n);
    }

    /// Counts the free of a segment of `n` granules.
    #[inline(always)]
    pub(crate) fn freed(&mut self, n: usize) {
        self.freed = self.freed.wrapping_add(1);
        self.usage.shrank(n);
    }

    /// Counts on which sides a freed segment was coalesced with a free neighbour.
    #[inline(always)]
    pub(crate) fn gave(&mut self, below: bool, behind: bool) {
        self.unjoined = self.unjoined.wrapping_add(u64::from(!below)).wrapping_add(u64::from(!behind));
    }

    pub(crate) fn padded(&mut self) {
        self.paddings = self.paddings.wrapping_add(1);
    }

    pub(crate) fn placed_total(&self) -> u64 {
        self.hops.count()
    }

    /// Neighbours that freed segments were coalesced with, including the wilderness.
    pub(crate) fn coalesces(&self) -> u64 {
        let sides = self.freed.wrapping_add(self.cuts).wrapping_mul(2);
        sides.wrapping_sub(self.unjoined)
    }

    /// Free segments below top. Each free, shortened segment and padding adds one; each coalesced neighbour, and each
    /// free segment that is used up, removes one.
    pub(crate) fn holes(&self) -> usize {
        let appeared = self.freed.wrapping_add(self.cuts).wrapping_add(self.paddings);
        let taken = self.placed_total().wrapping_sub(self.extensions).wrapping_add(self.growths);
        let used_up = taken.wrapping_sub(self.splits);
        appeared.wrapping_sub(self.coalesces()).wrapping_sub(used_up) as usize
    }
}
