//! The worst single call: a million calls of a steady churn, each timed by itself.

use std::alloc::{GlobalAlloc, Layout};
use std::io;
use std::time::{Duration, Instant};

use crate::allocators::{self, Kind, Visitor};
use crate::clean::free_all;
use crate::options::Options;
use crate::report::{Comparison, Sample};
use crate::rng::Rng;

/// Live blocks.
const LIVE: usize = 100_000;

/// Pairs that bring the heap to its steady state.
const WARM: usize = 200_000;

/// Pairs that are timed: a million calls.
const PAIRS: usize = 500_000;

/// The sizes of the blocks, in bytes; their logarithms are evenly spread.
const SIZES: (usize, usize) = (16, 2048);

/// The size of the region in bytes.
const REGION: usize = 256 << 20;

/// A round may take this many times the limit: the clock is read two million times.
const PATIENCE: u32 = 3;

/// The reported quantiles of each kind of call.
const QUANTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "max")];

fn layout(size: usize) -> Layout {
    // SAFETY: sizes are small and the alignment is a power of two.
    unsafe { Layout::from_size_align_unchecked(size, 8) }
}

/// The nanoseconds between two readings of the clock with nothing in between.
fn clock_cost() -> u64 {
    let mut costs: Vec<u64> = (0..1000).map(|_| since(Instant::now())).collect();
    costs.sort_unstable();
    costs[costs.len() / 2]
}

fn since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Times of single calls in nanoseconds, in the order of the calls.
struct Times {
    alloc: Vec<u64>,
    free: Vec<u64>,
}

impl Times {
    /// Keeps the shorter time of each call. The calls of all rounds are the same, so the allocator's own time shows in
    /// every round, and an interruption in one only.
    fn keep_least(&mut self, other: &Self) {
        for (times, others) in [(&mut self.alloc, &other.alloc), (&mut self.free, &other.free)] {
            for (time, other) in times.iter_mut().zip(others) {
                *time = (*time).min(*other);
            }
        }
    }

    /// The quantiles of the allocations, then those of the frees.
    fn quantiles(mut self, clock: u64) -> Vec<Sample> {
        let mut samples = Vec::new();
        for times in [&mut self.alloc, &mut self.free] {
            times.sort_unstable();
            for (quantile, _) in QUANTILES {
                let index = ((times.len() as f64 * quantile) as usize).min(times.len() - 1);
                samples.push(Sample::Full(times[index].saturating_sub(clock) as f64));
            }
        }
        samples
    }
}

/// The churn.
struct Churn {
    limit: Duration,
}

impl Churn {
    /// None if a request fails or the time is up.
    fn times<A: GlobalAlloc>(&self, heap: &A, blocks: &mut Vec<(*mut u8, usize)>) -> Option<Times> {
        let mut rng = Rng::new(7);
        let mut times = Times { alloc: Vec::with_capacity(PAIRS), free: Vec::with_capacity(PAIRS) };
        let start = Instant::now();
        for _ in 0..LIVE {
            let size = rng.log_uniform(SIZES.0, SIZES.1);
            // SAFETY: no size is 0.
            blocks.push((unsafe { heap.alloc(layout(size)) }, size));
        }
        for pair in 0..WARM + PAIRS {
            let index = rng.below(LIVE);
            let (address, size) = blocks[index];
            let new_size = rng.log_uniform(SIZES.0, SIZES.1);
            if address.is_null() || (pair % 1024 == 0 && start.elapsed() > self.limit) {
                return None;
            }
            let clock = Instant::now();
            // SAFETY: the block is live, and its place in the table is overwritten below.
            unsafe { heap.dealloc(address, layout(size)) };
            let free = since(clock);
            let clock = Instant::now();
            // SAFETY: no size is 0.
            let address = unsafe { heap.alloc(layout(new_size)) };
            let alloc = since(clock);
            blocks[index] = (address, new_size);
            if pair >= WARM {
                times.free.push(free);
                times.alloc.push(alloc);
            }
        }
        Some(times)
    }
}

impl Visitor for Churn {
    type Output = Option<Times>;

    fn visit<K: Kind>(&self) -> Option<Times> {
        let heap = K::create(REGION);
        let mut blocks = Vec::with_capacity(LIVE);
        let times = self.times(&*heap, &mut blocks);
        let blocks = blocks.into_iter().map(|(address, size)| (address, layout(size)));
        // SAFETY: the blocks of the table are live, with their sizes beside them.
        unsafe { free_all(&*heap, blocks, self.limit) };
        times
    }
}

/// The least time of each call over all rounds, by allocator; none for one that was too slow.
fn least_times(options: &Options) -> Vec<Option<Times>> {
    let churn = Churn { limit: PATIENCE * options.limit };
    let mut least: Vec<Option<Times>> = options.only.iter().map(|_| None).collect();
    let mut failed = vec![false; least.len()];
    for _ in 0..options.rounds_or(5) {
        for (index, name) in options.only.iter().enumerate() {
            if failed[index] {
                continue;
            }
            match (allocators::visit(name, &churn), &mut least[index]) {
                (None, least) => (*least, failed[index]) = (None, true),
                (Some(times), Some(least)) => least.keep_least(&times),
                (Some(times), least) => *least = Some(times),
            }
        }
    }
    least
}

/// The quantiles of each kind of call.
///
/// # Errors
///
/// If a CSV file cannot be written.
pub fn run(options: &Options) -> io::Result<()> {
    let clock = clock_cost();
    let missing = || vec![Sample::Missing; 2 * QUANTILES.len()];
    let results: Vec<Vec<Sample>> = least_times(options)
        .into_iter()
        .map(|times| times.map_or_else(missing, |times| times.quantiles(clock)))
        .collect();
    let unit = "ns per single call, least over the rounds, the clock's own time taken off";
    let mut table = Comparison::new("latency", unit, &options.only, &options.base).with_decimals(0);
    for (kind, word) in ["alloc", "free"].into_iter().enumerate() {
        for (quantile, (_, name)) in QUANTILES.iter().enumerate() {
            let column = kind * QUANTILES.len() + quantile;
            let samples = results.iter().map(|quantiles| vec![quantiles[column]]).collect();
            table.push(format!("{word} {name}"), samples);
        }
    }
    table.finish(options.out.as_deref())
}
