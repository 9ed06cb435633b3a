//! Hops are bounded by the logarithm of the heap: for steady churn of the mixes that programs have, at 10^3 to 10^6
//! live blocks, and for mixes designed to be bad.

use proptest::prelude::*;
use smalloc::{Heap, Indexed};
use std::alloc::Layout;
use std::ptr::NonNull;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// The live blocks of a mix have at most so many bytes together. Their payloads are never written.
const MOST_BYTES: usize = 24 << 30;

/// A mix of requests: each has one of `sizes`, and `aligned` in a hundred have one of `alignments`.
#[derive(Clone, Debug)]
struct Mix {
    sizes: Vec<usize>,
    aligned: usize,
    alignments: Vec<usize>,
}

impl Mix {
    fn of(sizes: &[usize]) -> Self {
        Self { sizes: sizes.to_vec(), aligned: 0, alignments: vec![1] }
    }

    fn aligned(sizes: &[usize], aligned: usize, alignments: &[usize]) -> Self {
        Self { sizes: sizes.to_vec(), aligned, alignments: alignments.to_vec() }
    }

    /// The next request.
    fn layout(&self, numbers: &mut Numbers) -> Layout {
        let size = self.sizes[numbers.below(self.sizes.len())];
        let align = if numbers.below(100) < self.aligned {
            self.alignments[numbers.below(self.alignments.len())]
        } else {
            1
        };
        Layout::from_size_align(size, align).expect("a power of two")
    }

    /// The most bytes that a block takes, with those that an alignment may leave free in front of it.
    fn most_bytes(&self) -> usize {
        let align = if self.aligned == 0 { 16 } else { self.alignments.iter().copied().max().unwrap_or(16) };
        self.sizes.iter().max().expect("there are sizes").next_multiple_of(16) + align
    }
}

/// Numbers that are the same on every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).expect("64 bits") % limit
    }
}

/// A heap that is churned, and the hops of its searches.
struct Churn {
    heap: Heap<Indexed>,
    live: Vec<NonNull<u8>>,
    numbers: Numbers,
    hops: Vec<usize>,
}

impl Churn {
    /// A heap with so many live blocks of a mix.
    fn new(mix: &Mix, live: usize) -> Self {
        let heap =
            Heap::with_region_size(2 * live * mix.most_bytes() + 64 * MIB).expect("addresses are free");
        let mut churn =
            Self { heap, live: Vec::new(), numbers: Numbers(0x2545_F491_4F6C_DD1D), hops: Vec::new() };
        (0..live).for_each(|_| churn.take(mix));
        churn.hops.clear();
        churn
    }

    fn take(&mut self, mix: &Mix) {
        let (block, status) = self.heap.smalloc(mix.layout(&mut self.numbers));
        self.live.push(block.expect("there is room"));
        self.hops.push(status.hops);
    }

    /// Frees a random block.
    fn give(&mut self) {
        let index = self.numbers.below(self.live.len());
        let block = self.live.swap_remove(index);
        // SAFETY: the block was live, and nothing uses it any more.
        unsafe { self.heap.sfree(block) };
    }

    /// Replaces random blocks.
    fn replace(&mut self, mix: &Mix, count: usize) {
        for _ in 0..count {
            self.give();
            self.take(mix);
        }
    }

    /// Mean, 99th percentile and maximum of the hops since the last call.
    fn hops(&mut self) -> Hops {
        let mut hops = std::mem::take(&mut self.hops);
        hops.sort_unstable();
        let mean = hops.iter().sum::<usize>() as f64 / hops.len() as f64;
        Hops { mean, p99: hops[hops.len() * 99 / 100], max: hops[hops.len() - 1] }
    }
}

#[derive(Debug)]
struct Hops {
    mean: f64,
    p99: usize,
    max: usize,
}

/// The bounds that are promised for every mix at every number of live blocks.
fn assert_short(mix: &Mix, live: usize, hops: &Hops) {
    let (mean, p99) = match (mix.aligned, mix.sizes.iter().all(|&size| size > KIB)) {
        (0, true) => (5.0, 5),
        (0, false) => (5.0, 40),
        _ => (7.0, 40),
    };
    let is_short = hops.mean <= mean && hops.p99 <= p99 && hops.max <= 400;
    assert!(is_short, "{hops:?} of {mix:?} among {live} blocks");
}

fn assert_steady(mix: &Mix, live: usize) {
    let mut churn = Churn::new(mix, live);
    churn.replace(mix, live);
    churn.hops.clear();
    churn.replace(mix, 2 * live.max(5_000));
    assert_short(mix, live, &churn.hops());
    churn.heap.check().expect("the heap is sound");
}

/// With few live blocks in a debug build, which takes ten times as long.
fn assert_steady_at_all(mixes: &[Mix]) {
    let counts: &[usize] =
        if cfg!(debug_assertions) { &[1_000, 10_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    for mix in mixes {
        for &live in counts.iter().filter(|&&live| live * mix.most_bytes() <= MOST_BYTES) {
            assert_steady(mix, live);
        }
    }
}

/// Sizes from `least` to `most` whose logarithms are spread evenly.
fn log_uniform(least: usize, most: usize) -> Vec<usize> {
    let ratio = most as f64 / least as f64;
    (0..=255).map(|step| (least as f64 * ratio.powf(f64::from(step) / 255.0)) as usize).collect()
}

#[test]
fn two_sizes_that_nearly_miss_each_other() {
    let pairs = [
        [1520, 3024],
        [1500, 1516],
        [4096, 4112],
        [1040, 1056],
        [1500, 9000],
        [16_400, 16_416],
        [48, 64],
        [496, 512],
    ];
    assert_steady_at_all(&pairs.map(|pair| Mix::of(&pair)));
}

#[test]
fn three_sizes_and_the_rests_of_their_splits() {
    let triples = [64, 512, 2048, 65_536].map(|n| Mix::of(&[n - 16, n, n + 16]));
    assert_steady_at_all(&triples);
    assert_steady_at_all(
        &[[1520, 1504, 3024], [1000, 2000, 3000], [16, 48, 2048], [992, 1008, 1024]]
            .map(|sizes| Mix::of(&sizes)),
    );
}

#[test]
fn five_sizes() {
    assert_steady_at_all(&[
        Mix::of(&[16, 32, 64, 128, 256]),
        Mix::of(&[1024, 2048, 4096, 8192, 16_384]),
        Mix::of(&[17, 101, 499, 1013, 2003]),
        Mix::of(&[16, 256, 4096, 65_536, 1_048_576]),
        Mix::of(&[1040, 1056, 1072, 2096, 3136]),
    ]);
}

#[test]
fn many_sizes() {
    assert_steady_at_all(&[
        Mix::of(&log_uniform(16, 2048)),
        Mix::of(&log_uniform(16, MIB)),
        Mix::of(&log_uniform(1040, 65_536)),
    ]);
}

#[test]
fn aligned_requests_among_others() {
    let every = [32, 64, 128, 4096, 65_536];
    assert_steady_at_all(&[
        Mix::aligned(&log_uniform(16, 2048), 25, &[4096]),
        Mix::aligned(&log_uniform(16, 2048), 5, &every),
        Mix::aligned(&[1520, 3024], 50, &[64, 128]),
        Mix::aligned(&[48, 80], 50, &[32, 64]),
        Mix::aligned(&[4096, 4112], 100, &[4096]),
        Mix::aligned(&[65_536, 65_552], 10, &[65_536]),
    ]);
}

/// A mix of two to five sizes that almost fit each other's holes, with or without aligned requests.
fn bad_mix() -> impl Strategy<Value = Mix> {
    let base = prop_oneof![1_usize..64, 64_usize..1024, 1024_usize..4096];
    let near = prop_oneof![
        Just((1, 1)),
        Just((1, 0)),
        Just((1, -1)),
        Just((2, 0)),
        Just((2, -1)),
        Just((2, 1)),
        Just((3, 0))
    ];
    let aligned = prop_oneof![3 => Just(0_usize), 1 => 1_usize..=100];
    let alignments = prop::collection::vec(prop::sample::select(vec![32, 64, 128, 4096, 65_536]), 1..4);
    (base, prop::collection::vec(near, 2..=5), aligned, alignments).prop_map(
        |(base, near, aligned, alignments)| {
            let size = |(times, more): (usize, isize)| 16 * (base * times).saturating_add_signed(more).max(1);
            Mix { sizes: near.into_iter().map(size).collect(), aligned, alignments }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 12 } else { 60 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// Churn of a mix, then bursts of another one, and frees of many blocks in turn.
    #[test]
    fn no_mix_and_no_burst_is_bad(mixes in prop::collection::vec(bad_mix(), 1..4), bursts in prop::collection::vec(1_usize..2_000, 1..6)) {
        let live = 4_000;
        let largest = mixes.iter().max_by_key(|mix| mix.most_bytes()).expect("there is one").clone();
        let mut churn = Churn::new(&largest, live);
        let mut calls = 0;
        for (turn, burst) in bursts.into_iter().enumerate() {
            let mix = &mixes[turn % mixes.len()];
            (0..burst).for_each(|_| churn.give());
            (0..burst).for_each(|_| churn.take(mix));
            churn.replace(mix, 4_000);
            calls += burst + 4_000;
        }
        let hops = churn.hops();
        prop_assert!(hops.mean <= 20.0 && hops.max <= 400, "{hops:?} in {calls} calls");
        churn.heap.check().expect("the heap is sound");
    }
}

/// The map says nothing inside huge segments. An index of an alignment must not read it there.
#[test]
fn an_index_stays_exact_around_huge_segments() {
    let aligned = Mix::aligned(&[256], 86, &[32]);
    let huge = Mix::of(&[32_784, 65_552]);
    let mut churn = Churn::new(&huge, 4_000);
    for (mix, burst) in [(&aligned, 953), (&huge, 1_822), (&aligned, 1)] {
        (0..burst).for_each(|_| churn.give());
        (0..burst).for_each(|_| churn.take(mix));
        for _ in 0..100 {
            churn.replace(mix, 40);
            churn.heap.check().expect("the index is exact");
        }
    }
}
