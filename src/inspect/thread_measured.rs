//! The calls of one thread in a measurement.

use core::fmt;

/// The calls of one thread while a piece of code ran; see
/// [`SmallocGlobal::measure_thread`](crate::SmallocGlobal::measure_thread).
///
/// Sizes are in bytes and those of segments, which are multiples of 16.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ThreadMeasured {
    /// Allocations that succeeded.
    pub allocs: u64,
    /// Blocks freed, by whichever thread they were allocated.
    pub frees: u64,
    /// Calls of `realloc` that succeeded. One that moves a block to another region counts as an allocation and a free.
    pub reallocs: u64,
    /// Bytes requested by all successful requests; a `realloc` in place counts its growth.
    pub requested: u64,
    /// Bytes allocated less bytes freed.
    pub used_bytes: isize,
    /// The most that `used_bytes` came to from beginning to end; at least 0.
    pub peak_growth: usize,
}

impl fmt::Display for ThreadMeasured {
    /// One line: `allocs 3, frees 2, reallocs 0, requested 300 bytes, used 112 bytes more, at most 304`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { allocs, frees, reallocs, requested, used_bytes, peak_growth } = self;
        let (used, direction) = (used_bytes.unsigned_abs(), if *used_bytes < 0 { "less" } else { "more" });
        write!(f, "allocs {allocs}, frees {frees}, reallocs {reallocs}, requested {requested} bytes, ")?;
        write!(f, "used {used} bytes {direction}, at most {peak_growth}")
    }
}
