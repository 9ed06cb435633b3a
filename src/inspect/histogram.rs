//! A histogram of hop counts: what searches cost.
//!
//! Counts from 0 to 15 have a bucket each. Above, every power of two is split into four buckets of equal width, so a
//! bucket is at most a quarter wider than its lower bound:
//!
//! ```text
//! hops     0   1   2 ..  15   16-19  20-23  24-27  28-31   32-39  40-47  48-55  56-63   64-79 ..
//! bucket   0   1   2 ..  15   16     17     18     19      20     21     22     23      24    ..
//! ```

use core::fmt;
use core::iter::FusedIterator;

use super::number::{float, floor, floor_log2, narrow, share, wide};

/// Counts below this have a bucket of their own.
const EXACT: usize = 16;
/// `log2` of [`EXACT`].
const EXACT_BITS: usize = 4;
/// Each power of two above is split into `1 << SPLIT_BITS` buckets.
const SPLIT_BITS: usize = 2;
/// Bits of the largest count: granule numbers have 32 bits, and a search looks at no more nodes than a region has
/// granules. Larger counts would share the last bucket.
const LIMIT_BITS: usize = 32;
const BUCKETS: usize = EXACT + ((LIMIT_BITS - EXACT_BITS) << SPLIT_BITS);

/// The distribution of hops over searches: counts in buckets, with their sum and maximum.
///
/// Counts up to 15 are exact. Above, a bucket is at most a quarter wider than its lower bound, which is the error of
/// [`quantile`](Self::quantile). [`count`](Self::count), [`mean`](Self::mean) and [`max`](Self::max) are exact.
///
/// ```
/// use core::alloc::Layout;
///
/// let mut heap = smalloc::Heap::<smalloc::Linked>::with_region_size(1 << 16)?;
/// let (_, status) = heap.smalloc(Layout::new::<[u8; 100]>());
/// assert_eq!(status.hops, 0);
///
/// let hops = heap.stats().hops;
/// assert_eq!((hops.count(), hops.mean(), hops.max(), hops.quantile(0.99)), (1, 0.0, 0, 0));
/// assert_eq!(hops.iter().collect::<Vec<_>>(), [(0, 0, 1)]);
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
// In the order in which a debugger reads it.
#[repr(C)]
pub struct HopHistogram {
    /// Bucket 0 counts searches without a hop.
    counts: [u64; BUCKETS],
    /// The sum of all hops.
    sum: u64,
    /// The most hops of one search.
    max: usize,
}

impl HopHistogram {
    /// An empty histogram.
    #[must_use]
    pub const fn new() -> Self {
        Self { counts: [0; BUCKETS], sum: 0, max: 0 }
    }

    /// Counts one search of `hops` hops.
    ///
    /// It runs under the heap's lock and cannot panic. If the caller knows that `hops` is 0, it is one increment.
    #[inline]
    pub(crate) fn record(&mut self, hops: usize) {
        if hops == 0 {
            let [first, ..] = &mut self.counts;
            *first = first.wrapping_add(1);
        } else {
            self.record_some(hops);
        }
    }

    /// Finishes [`record`](Self::record) for at least one hop.
    #[inline]
    fn record_some(&mut self, hops: usize) {
        if let Some(count) = self.counts.get_mut(bucket_of(hops)) {
            *count = count.wrapping_add(1);
        }
        self.sum = self.sum.wrapping_add(wide(hops));
        if hops > self.max {
            self.max = hops;
        }
    }

    /// The number of searches.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, &count| sum.wrapping_add(count))
    }

    /// The hops of all searches together.
    #[must_use]
    pub const fn sum(&self) -> u64 {
        self.sum
    }

    /// The mean hops per search; 0 without a search.
    #[must_use]
    pub fn mean(&self) -> f64 {
        share(self.sum, self.count())
    }

    /// The most hops of one search; 0 without a search.
    #[must_use]
    pub const fn max(&self) -> usize {
        self.max
    }

    /// The number of hops that a share `q` of the searches did not exceed: `quantile(0.5)` is the median,
    /// `quantile(0.99)` the 99th percentile.
    ///
    /// It is the upper bound of the bucket of that search, or [`max`](Self::max) if that is lower: exact up to 15 hops,
    /// above at most a quarter too high and never too low. `q` is clamped to 0 to 1. Returns 0 without a search.
    #[must_use]
    pub fn quantile(&self, q: f64) -> usize {
        let rank = rank_of(q, self.count());
        let mut seen = 0u64;
        for (_, high, count) in self.iter() {
            seen = seen.saturating_add(count);
            if seen >= rank {
                return high;
            }
        }
        self.max
    }

    /// The non-empty buckets in ascending order, as `(lowest hops, highest hops, searches)`.
    ///
    /// The highest hops of the last bucket are at most [`max`](Self::max).
    #[must_use]
    pub fn iter(&self) -> HopBuckets<'_> {
        HopBuckets { histogram: self, next: 0 }
    }

    /// Words that [`to_words`](Self::to_words) writes.
    pub(super) const WORDS: usize = BUCKETS + 2;

    /// Calls `set` with the index and value of each word: the buckets, the sum, the maximum.
    pub(super) fn to_words(self, mut set: impl FnMut(usize, u64)) {
        for (at, &count) in self.counts.iter().enumerate() {
            set(at, count);
        }
        set(BUCKETS, self.sum);
        set(BUCKETS + 1, wide(self.max));
    }

    /// Restores a histogram from its words.
    pub(super) fn from_words(get: impl Fn(usize) -> u64) -> Self {
        let mut histogram = Self::new();
        for (at, count) in histogram.counts.iter_mut().enumerate() {
            *count = get(at);
        }
        histogram.sum = get(BUCKETS);
        histogram.max = narrow(get(BUCKETS + 1));
        histogram
    }

    /// The searches in `self` that are not in `earlier`, an older copy of the same histogram.
    ///
    /// Counts and sum are exact. [`max`](Self::max) is the upper bound of the highest bucket that grew, or the maximum
    /// of `self` if that is lower, since the maximum may be older than `earlier`.
    #[must_use]
    pub fn minus(&self, earlier: &Self) -> Self {
        let mut new = Self::new();
        for (new, (later, earlier)) in new.counts.iter_mut().zip(self.counts.iter().zip(&earlier.counts)) {
            *new = later.saturating_sub(*earlier);
        }
        let highest = new.counts.iter().rposition(|&count| count > 0);
        new.max = highest.map_or(0, |bucket| high_of(bucket).min(self.max));
        new.sum = self.sum.saturating_sub(earlier.sum);
        new
    }

    /// The searches of both histograms.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let mut both = *self;
        for (both, other) in both.counts.iter_mut().zip(&other.counts) {
            *both = both.wrapping_add(*other);
        }
        both.sum = both.sum.wrapping_add(other.sum);
        both.max = both.max.max(other.max);
        both
    }
}

impl Default for HopHistogram {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a> IntoIterator for &'a HopHistogram {
    type Item = (usize, usize, u64);
    type IntoIter = HopBuckets<'a>;

    fn into_iter(self) -> HopBuckets<'a> {
        self.iter()
    }
}

impl fmt::Display for HopHistogram {
    /// One line: `mean 1.25, p50 1, p90 3, p99 7, max 9`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| self.quantile(q));
        write!(f, "mean {:.2}, p50 {p50}, p90 {p90}, p99 {p99}, max {}", self.mean(), self.max)
    }
}

/// The non-empty buckets of a [`HopHistogram`]; see [`HopHistogram::iter`].
#[derive(Clone, Debug)]
pub struct HopBuckets<'a> {
    histogram: &'a HopHistogram,
    /// The next bucket to return.
    next: usize,
}

impl Iterator for HopBuckets<'_> {
    type Item = (usize, usize, u64);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let bucket = self.next;
            let count = *self.histogram.counts.get(bucket)?;
            self.next = bucket + 1;
            if count > 0 {
                return Some((low_of(bucket), high_of(bucket).min(self.histogram.max), count));
            }
        }
    }
}

impl FusedIterator for HopBuckets<'_> {}

/// The 1-based rank of the quantile `q` among `count` searches in ascending order.
fn rank_of(q: f64, count: u64) -> u64 {
    let position = q.clamp(0.0, 1.0) * float(count);
    let below = floor(position);
    let rank = if float(below) < position { below.saturating_add(1) } else { below };
    rank.clamp(1, count.max(1))
}

#[inline]
const fn bucket_of(hops: usize) -> usize {
    if hops < EXACT {
        return hops;
    }
    let power = floor_log2(hops);
    if power >= LIMIT_BITS {
        return BUCKETS - 1;
    }
    let quarter = (hops >> (power - SPLIT_BITS)) & ((1 << SPLIT_BITS) - 1);
    EXACT + ((power - EXACT_BITS) << SPLIT_BITS) + quarter
}

/// The lowest hop count of a bucket.
const fn low_of(bucket: usize) -> usize {
    if bucket < EXACT {
        return bucket;
    }
    let above = bucket - EXACT;
    let quarter = above & ((1 << SPLIT_BITS) - 1);
    ((1 << SPLIT_BITS) + quarter) << ((above >> SPLIT_BITS) + EXACT_BITS - SPLIT_BITS)
}

/// The highest hop count of a bucket; the last bucket is unbounded.
const fn high_of(bucket: usize) -> usize {
    if bucket + 1 < BUCKETS { low_of(bucket + 1) - 1 } else { usize::MAX }
}

#[cfg(test)]
#[path = "../../tests/unit/inspect/histogram.rs"]
mod tests;
