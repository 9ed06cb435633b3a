//! The choice of requests whose call stacks are taken: one in so many bytes on average.
//!
//! The distance between two samples is exponentially distributed, as if every byte were chosen on its own. So requests
//! that repeat in a pattern are not missed, and each sample stands for a known number of requests of its size.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The interval of a heap that has not been given any, in bytes.
const DEFAULT_INTERVAL: usize = 512 << 10;
/// An interval that has not been set.
const UNSET: usize = usize::MAX;
/// The step of the generator: 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Shared by threads that hold no lock.
pub(crate) struct Sampler {
    /// Mean distance in bytes: 1 takes every request, 0 none.
    interval: AtomicUsize,
    /// Bytes up to the next sample.
    left: AtomicUsize,
    random: AtomicU64,
}

impl Sampler {
    pub(crate) const fn unset() -> Self {
        Self { interval: AtomicUsize::new(UNSET), left: AtomicUsize::new(1), random: AtomicU64::new(0) }
    }

    /// Mean distance in bytes; the default is `given`, or else 512 KiB.
    pub(crate) fn interval_or(&self, given: impl FnOnce() -> Option<usize>) -> usize {
        if self.interval.load(Ordering::Relaxed) == UNSET {
            self.set_interval(given().unwrap_or(DEFAULT_INTERVAL));
        }
        self.interval()
    }

    /// Mean distance in bytes; 0 if it was not set.
    pub(crate) fn interval(&self) -> usize {
        let interval = self.interval.load(Ordering::Relaxed);
        if interval == UNSET { 0 } else { interval }
    }

    pub(crate) fn set_interval(&self, bytes: usize) {
        self.interval.store(bytes.min(isize::MAX as usize), Ordering::Relaxed);
        self.left.store(self.distance(), Ordering::Relaxed);
    }

    /// Whether the stack of a request of so many bytes is taken.
    pub(crate) fn is_due(&self, bytes: usize) -> bool {
        match self.interval() {
            0 => return false,
            1 => return true,
            _ => {}
        }
        let bytes = bytes.clamp(1, isize::MAX as usize);
        let left = self.left.fetch_sub(bytes, Ordering::Relaxed);
        // Beyond `isize::MAX` the counter has wrapped: another thread is about to set it.
        if bytes < left && left <= isize::MAX as usize {
            return false;
        }
        self.left.store(self.distance(), Ordering::Relaxed);
        true
    }

    /// A random distance in bytes, at least 1.
    fn distance(&self) -> usize {
        let mean = self.interval() as u128;
        // The fraction has 64 bits, and the product is far below 2^128: a whole part of 2^64 is never drawn.
        let drawn = exponential(|| self.draw());
        let whole = (drawn >> 64).saturating_mul(mean);
        let part = u128::from(drawn as u64).saturating_mul(mean);
        whole.saturating_add(part >> 64).saturating_add(1).min(isize::MAX as u128) as usize
    }

    /// A random number, by the generator `splitmix64`.
    fn draw(&self) -> u64 {
        let state = self.random.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// An exponentially distributed number of mean 1, in units of 2^-64, by comparisons alone (von Neumann, 1951): numbers
/// are drawn while they descend. After an odd count the first is the fraction; after an even one, one is added and all
/// is drawn again.
fn exponential(mut random: impl FnMut() -> u64) -> u128 {
    let mut whole = 0_u128;
    loop {
        let first = random();
        let (mut last, mut odd) = (first, true);
        loop {
            let next = random();
            if next >= last {
                break;
            }
            (last, odd) = (next, !odd);
        }
        if odd {
            return whole << 64 | u128::from(first);
        }
        whole = whole.saturating_add(1);
    }
}

/// The requests that a sampled one of `bytes` bytes stands for: 1 by the chance of being sampled, `1 - e^-x` of the
/// `x` intervals that it spans.
pub(crate) fn weight(bytes: usize, interval: usize) -> f64 {
    /// Halvings that make `x` small enough for the series.
    const HALVINGS: u32 = 10;
    if interval <= 1 {
        return 1.0;
    }
    let x = bytes.max(1) as f64 / interval as f64;
    if x > 40.0 {
        return 1.0;
    }
    let part = x / f64::from(1_u32 << HALVINGS);
    // The series of `1 - e^-x`, whose next term is below 10^-9 of the first.
    let mut chance = part * (1.0 - part / 2.0 * (1.0 - part / 3.0 * (1.0 - part / 4.0 * (1.0 - part / 5.0))));
    for _ in 0..HALVINGS {
        // 1 - (1 - c)^2
        chance = chance * (2.0 - chance);
    }
    1.0 / chance
}

#[cfg(test)]
#[path = "../../tests/unit/sites/sampler.rs"]
mod tests;
