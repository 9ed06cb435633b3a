//! The bounds of caches, the payloads that they give back on their own, and the counters.

use crate::{assert_all_free, give, give_many, take, take_many};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use smalloc::Cached;
use std::alloc::GlobalAlloc;

/// Bytes that a cache may hold while little is in use.
const LEAST: usize = 128 << 10;

#[test]
fn a_cache_stays_within_its_budget() {
    static HEAP: Cached = Cached::with_region_size(64 << 20);
    let mut random = SmallRng::seed_from_u64(7);
    let mut most = 0;
    for _ in 0..60 {
        let sizes: Vec<usize> = (0..500).map(|_| random.random_range(1..=896)).collect();
        let payloads: Vec<_> = sizes.iter().map(|&size| take(&HEAP, size)).collect();
        payloads.iter().zip(&sizes).for_each(|(&payload, &size)| give(&HEAP, payload, size));
        most = HEAP.stats().cached_bytes.max(most);
    }
    assert!((LEAST / 4..=LEAST).contains(&most), "{most}");
    assert_all_free(&HEAP);
}

#[test]
fn the_budget_follows_what_is_in_use() {
    static HEAP: Cached = Cached::with_region_size(64 << 20);
    let large = take(&HEAP, 32 << 20);
    let mut most = 0;
    for _ in 0..30 {
        for size in (16..=896).step_by(16) {
            let payloads = take_many(&HEAP, 60, size);
            give_many(&HEAP, &payloads, size);
            most = HEAP.stats().cached_bytes.max(most);
        }
    }
    assert!((LEAST + 1..=4 * LEAST).contains(&most), "{most}");
    give(&HEAP, large, 32 << 20);
    assert_all_free(&HEAP);
}

#[test]
fn idle_stacks_go_back() {
    static HEAP: Cached = Cached::with_region_size(64 << 20);
    let payloads = take_many(&HEAP, 30, 64);
    give_many(&HEAP, &payloads, 64);
    let before = HEAP.stats().cached_bytes;
    assert!(before >= 8 * 64, "{before}");
    // Work on another size, of which the cache holds one or two.
    for _ in 0..2000 {
        let payloads = take_many(&HEAP, 40, 880);
        give_many(&HEAP, &payloads, 880);
    }
    let of_other = take_many(&HEAP, 40, 880);
    let after = HEAP.stats().cached_bytes;
    assert!(after <= 64 + 30 * 880 && before > 64, "{before} {after}");
    // The last of the 64-byte payloads went back: the next one is placed first fit.
    let hits = HEAP.stats().cache_hits;
    let payload = take(&HEAP, 64);
    assert_eq!(HEAP.stats().cache_hits, hits);
    give(&HEAP, payload, 64);
    give_many(&HEAP, &of_other, 880);
    assert_all_free(&HEAP);
}

#[test]
fn hits_and_placements_add_up() {
    static HEAP: Cached = Cached::with_region_size(64 << 20);
    let payloads = take_many(&HEAP, 1000, 100);
    let stats = HEAP.stats();
    let cached = stats.cached_bytes / 112;
    assert_eq!(
        stats.allocs + stats.cache_hits,
        1000 + stats.cache_hits * 2 + cached as u64 - stats.cache_hits
    );
    assert_eq!(stats.used_bytes, stats.cached_bytes + 1000 * 112);
    assert!(stats.cache_hits > 800, "{stats}");
    assert!(stats.to_string().contains("caches"), "{stats}");
    give_many(&HEAP, &payloads, 100);
    assert_all_free(&HEAP);
}

/// A batch is so many first-fit placements: payloads come in ascending order, and fill holes before they raise top.
#[test]
fn a_batch_is_placed_first_fit() {
    static HEAP: Cached = Cached::with_region_size(64 << 20);
    let large: Vec<_> = (0..8).map(|_| (take(&HEAP, 1008), take(&HEAP, 1008))).collect();
    large.iter().for_each(|&(hole, _)| give(&HEAP, hole, 1008));
    let payloads = take_many(&HEAP, 8 * 9, 112);
    assert!(payloads.is_sorted());
    let (first, last) = (large[0].0.addr(), large[7].1.addr());
    assert!(payloads.iter().all(|payload| (first..last).contains(payload)));
    give_many(&HEAP, &payloads, 112);
    large.iter().for_each(|&(_, wall)| give(&HEAP, wall, 1008));
    assert_all_free(&HEAP);
}

/// Aligned requests take cached payloads that happen to be aligned.
#[test]
fn aligned_payloads_are_cached() {
    static HEAP: Cached = Cached::with_region_size(64 << 20);
    let layout = crate::layout(512, 64);
    for _ in 0..100 {
        // SAFETY: the layout is not empty.
        let payload = unsafe { HEAP.alloc(layout) };
        assert_eq!(payload.addr() % 64, 0);
        // SAFETY: the payload is live and has this layout.
        unsafe { HEAP.dealloc(payload, layout) };
    }
    let stats = HEAP.stats();
    assert_eq!((stats.cache_hits, stats.allocs), (99, 1));
    assert_all_free(&HEAP);
}
