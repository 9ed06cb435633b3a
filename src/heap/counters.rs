//! What the heap counts: plain additions under the lock, none of them in doubt.

use super::usage::Usage;
use crate::inspect::HopHistogram;
use crate::region::{Span, Table};

/// The raw counts, in the order in which `crates/tool/gdb/smalloc_gdb.py` reads them. What [`Stats`](crate::Stats) shows is computed from them, so that a call adds as little as it can.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Counters {
    /// Granules given to all requests so far.
    pub(crate) allocated: u64,
    /// Granules in use, and their peak.
    pub(crate) usage: Usage,
    /// Bytes asked for by all requests so far.
    pub(crate) requested: u64,
    /// Segments freed, moved ones included.
    pub(crate) freed: u64,
    /// Segments cut short in place.
    cuts: u64,
    /// Sides on which freed segments were not joined with a free neighbour; the wilderness is one.
    apart: u64,
    /// Free segments of which a part was taken and a part was left.
    pub(crate) splits: u64,
    /// Requests that the wilderness served.
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
    /// One entry for every segment that was ever placed.
    pub(crate) hops: HopHistogram,
    /// The hops of the requests that found no place: one histogram, once there is a region.
    failed: Table<HopHistogram>,
}

impl Counters {
    pub(crate) const ZERO: Self = Self {
        allocated: 0,
        usage: Usage::ZERO,
        requested: 0,
        freed: 0,
        cuts: 0,
        apart: 0,
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

    /// Bytes of what is seldom written.
    pub(crate) fn seldom_bytes() -> usize {
        Table::<HopHistogram>::bytes(1)
    }

    /// Takes its part of what is seldom written.
    pub(crate) fn attach(&mut self, seldom: &mut Span) {
        self.failed = Table::cut_off(seldom, 1);
    }

    /// A request of `size` bytes was given a segment of `n` granules.
    #[inline(always)]
    pub(crate) fn placed(&mut self, size: usize, n: usize, hops: usize) {
        self.hops.record(hops);
        self.grew(size, n);
    }

    /// `n` granules more are in use, for `size` bytes more.
    #[inline(always)]
    pub(crate) fn grew(&mut self, size: usize, n: usize) {
        self.requested = self.requested.wrapping_add(size as u64);
        self.allocated = self.allocated.wrapping_add(n as u64);
        self.usage.grew(n);
    }

    /// Granules that were given out and that came back, so far.
    #[inline(always)]
    pub(crate) fn turnover(&self) -> u64 {
        self.allocated.wrapping_mul(2).wrapping_sub(self.usage.used())
    }

    /// A `realloc` kept its place.
    pub(crate) fn resized(&mut self) {
        self.reallocs_in_place = self.reallocs_in_place.wrapping_add(1);
    }

    /// A request of `size` bytes found no place in the region.
    #[cold]
    pub(crate) fn failed(&mut self, size: usize, hops: usize) {
        let mut failed = self.failed.get(0);
        failed.record(hops);
        self.failed.set(0, failed);
        self.failures = self.failures.wrapping_add(1);
        self.last_failed_size = size;
    }

    /// The hops of all requests that found no place.
    pub(crate) fn failed_hops(&self) -> HopHistogram {
        if self.failures == 0 { HopHistogram::new() } else { self.failed.get(0) }
    }

    /// A request took a part of a free segment, or all of it if nothing was `left` behind.
    #[inline(always)]
    pub(crate) fn took(&mut self, left: bool) {
        self.splits = self.splits.wrapping_add(u64::from(left));
    }

    /// A request was served by the wilderness.
    #[inline(always)]
    pub(crate) fn extended(&mut self) {
        self.extensions = self.extensions.wrapping_add(1);
    }

    /// A segment is about to take a part of the free segment behind it.
    pub(crate) fn grew_into_hole(&mut self) {
        self.growths = self.growths.wrapping_add(1);
    }

    /// A segment lost its tail of `n` granules, which are free now.
    pub(crate) fn cut(&mut self, n: usize) {
        self.cuts = self.cuts.wrapping_add(1);
        self.usage.shrank(n);
    }

    /// A segment of `n` granules is no longer in use.
    #[inline(always)]
    pub(crate) fn freed(&mut self, n: usize) {
        self.freed = self.freed.wrapping_add(1);
        self.usage.shrank(n);
    }

    /// What was freed was joined with what lies below, what lies behind, both or none.
    #[inline(always)]
    pub(crate) fn gave(&mut self, below: bool, behind: bool) {
        self.apart = self.apart.wrapping_add(u64::from(!below)).wrapping_add(u64::from(!behind));
    }

    /// Padding in front of an aligned segment became a free segment.
    pub(crate) fn padded(&mut self) {
        self.paddings = self.paddings.wrapping_add(1);
    }

    /// Segments placed so far.
    pub(crate) fn placed_total(&self) -> u64 {
        self.hops.count()
    }

    /// Neighbours that freed segments were joined with, the wilderness included.
    pub(crate) fn coalesces(&self) -> u64 {
        let sides = self.freed.wrapping_add(self.cuts).wrapping_mul(2);
        sides.wrapping_sub(self.apart)
    }

    /// Free segments below top. Whatever is freed or cut off, and padding, is one more; joining it with a neighbour,
    /// and using a free segment up, is one less.
    pub(crate) fn holes(&self) -> usize {
        let appeared = self.freed.wrapping_add(self.cuts).wrapping_add(self.paddings);
        let taken = self.placed_total().wrapping_sub(self.extensions).wrapping_add(self.growths);
        let used_up = taken.wrapping_sub(self.splits);
        appeared.wrapping_sub(self.coalesces()).wrapping_sub(used_up) as usize
    }
}
