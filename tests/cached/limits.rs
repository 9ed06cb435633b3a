//! No request fails while a cache holds what would serve it, even if the cache's thread sleeps.

use crate::{assert_all_free, case, case::Case, depot, give, give_many, layout, take, take_many};
use smalloc::Cached;
use std::alloc::GlobalAlloc;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

const REGION: usize = 256 << 10;
/// Payloads that a thread frees into its cache, of each of these sizes.
const SIZES: [usize; 4] = [64, 128, 256, 512];
const EACH: usize = 8;

pub const CASES: [Case; 1] = [("no_barrier", || {
    case::refuse(libc::SYS_membarrier, 0, 0, 0);
    without_barrier();
    depot_without_barrier();
})];

/// Threads that fill their caches in a region, which is then full of payloads and of cached ones, and sleep until
/// `work` is done: it gets the bytes that caches hold.
fn with_sleepers(heap: &Cached, threads: usize, work: impl FnOnce(usize), then: impl Fn() + Sync) {
    let (filled, done) = (Barrier::new(threads + 1), Barrier::new(threads + 1));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for size in SIZES {
                    let payloads = take_many(heap, EACH, size);
                    give_many(heap, &payloads, size);
                }
                filled.wait();
                done.wait();
                then();
            });
        }
        filled.wait();
        let cached = heap.stats().cached_bytes;
        let result = panic::catch_unwind(AssertUnwindSafe(|| work(cached)));
        // Also if the test fails, or it would hang.
        done.wait();
        result.unwrap_or_else(|failure| panic::resume_unwind(failure));
    });
}

/// The largest request that fits.
fn largest(heap: &Cached) -> usize {
    let fits = |size: usize| {
        // SAFETY: the layout is not empty.
        let payload = unsafe { heap.alloc(layout(size, 1)) };
        let fits = !payload.is_null();
        if fits {
            give(heap, payload, size);
        }
        fits
    };
    let (mut low, mut high) = (0, REGION / 16 + 1);
    while high - low > 1 {
        let middle = usize::midpoint(low, high);
        if fits(middle * 16) { low = middle } else { high = middle }
    }
    low * 16
}

#[test]
fn a_request_empties_the_caches_of_sleeping_threads() {
    static HEAP: Cached = Cached::with_region_size(REGION);
    with_sleepers(
        &HEAP,
        4,
        |cached| {
            assert!(cached > 4 * 2000, "{cached}");
            // The whole region: every byte that caches hold is needed.
            let all = take(&HEAP, REGION);
            assert_eq!(HEAP.stats().cached_bytes, 0);
            give(&HEAP, all, REGION);
        },
        || give(&HEAP, take(&HEAP, 64), 64),
    );
    assert_all_free(&HEAP);
}

#[test]
fn a_realloc_empties_the_caches_of_sleeping_threads() {
    static HEAP: Cached = Cached::with_region_size(REGION);
    let payload = take(&HEAP, 1000);
    with_sleepers(
        &HEAP,
        4,
        |_| {
            // SAFETY: the payload is live and has this layout.
            let payload = unsafe { HEAP.realloc(payload, layout(1000, 1), REGION) };
            assert!(!payload.is_null());
            give(&HEAP, payload, REGION);
        },
        || (),
    );
    assert_all_free(&HEAP);
}

#[test]
fn a_request_over_several_regions_empties_caches() {
    static HEAP: Cached<smalloc::Indexed, 2> = Cached::with_region_size(REGION);
    let (filled, done) = (Barrier::new(3), Barrier::new(3));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let payloads = take_many(&HEAP, 20, 512);
                give_many(&HEAP, &payloads, 512);
                filled.wait();
                done.wait();
            });
        }
        filled.wait();
        let both = [take(&HEAP, REGION), take(&HEAP, REGION)];
        both.iter().for_each(|&all| give(&HEAP, all, REGION));
        done.wait();
    });
    HEAP.trim();
    assert_eq!(HEAP.stats().used_bytes, 0);
}

#[test]
fn a_limit_is_as_exact_as_without_caches() {
    static HEAP: Cached = Cached::with_region_size(REGION);
    with_sleepers(
        &HEAP,
        3,
        |_| {
            assert_eq!(HEAP.set_limit(100 << 10), 100 << 10);
            assert_eq!(largest(&HEAP), 100 << 10);
            HEAP.set_limit(usize::MAX);
        },
        || (),
    );
    assert_all_free(&HEAP);
}

/// Small requests too: all of them fit, down to the last granule.
#[test]
fn a_region_can_be_filled_to_the_last_granule() {
    static HEAP: Cached = Cached::with_region_size(REGION);
    with_sleepers(
        &HEAP,
        4,
        |_| {
            let payloads = take_many(&HEAP, REGION / 64, 64);
            // SAFETY: the layout is not empty.
            assert!(unsafe { HEAP.alloc(layout(64, 1)) }.is_null());
            give_many(&HEAP, &payloads, 64);
        },
        || (),
    );
    assert_all_free(&HEAP);
}

/// The callback for low memory is called only if emptying the caches does not help.
#[test]
fn caches_are_emptied_before_the_callback() {
    static HEAP: Cached = Cached::with_region_size(REGION);
    static CALLED: AtomicUsize = AtomicUsize::new(0);
    HEAP.on_low_memory(Some(|_| {
        CALLED.fetch_add(1, Ordering::Relaxed);
        false
    }));
    with_sleepers(
        &HEAP,
        2,
        |_| {
            let all = take(&HEAP, REGION);
            assert_eq!(CALLED.load(Ordering::Relaxed), 0);
            // SAFETY: the layout is not empty.
            assert!(unsafe { HEAP.alloc(layout(64, 1)) }.is_null());
            assert_eq!(CALLED.load(Ordering::Relaxed), 1);
            give(&HEAP, all, REGION);
        },
        || (),
    );
}

/// The callback frees small payloads, which its thread's cache takes: they serve the request all the same.
#[test]
fn what_a_callback_frees_is_found() {
    static HEAP: Cached = Cached::with_region_size(REGION);
    static KEPT: std::sync::Mutex<Vec<usize>> = std::sync::Mutex::new(Vec::new());
    KEPT.lock().unwrap().extend(take_many(&HEAP, 4, 512));
    HEAP.on_low_memory(Some(|_| {
        let kept = std::mem::take(&mut *KEPT.lock().unwrap());
        give_many(&HEAP, &kept, 512);
        !kept.is_empty()
    }));
    let all = take(&HEAP, REGION);
    give(&HEAP, all, REGION);
    let first = take(&HEAP, 100);
    KEPT.lock().unwrap().extend(take_many(&HEAP, 4, 512));
    // SAFETY: the payload is live and has this layout.
    let grown = unsafe { HEAP.realloc(first, layout(100, 1), REGION) };
    assert!(!grown.is_null());
    give(&HEAP, grown, REGION);
    HEAP.on_low_memory(None);
    assert_all_free(&HEAP);
}

/// Many threads in a heap that is too small for all: each request fails for lack of memory alone, and none hangs.
#[test]
fn exhaustion_ends() {
    static HEAP: Cached = Cached::with_region_size(64 << 10);
    thread::scope(|scope| {
        for thread in 0..8 {
            scope.spawn(move || {
                for round in 0..300 {
                    let size = 16 + (thread * 37 + round * 11) % 800;
                    // SAFETY: the layout is not empty.
                    let payloads: Vec<_> = (0..60).map(|_| unsafe { HEAP.alloc(layout(size, 1)) }).collect();
                    payloads.iter().filter(|payload| !payload.is_null()).for_each(|&payload| {
                        give(&HEAP, payload, size);
                    });
                }
            });
        }
    });
    assert_all_free(&HEAP);
}

/// Without `membarrier`, threads are asked to empty their caches, and do so in their next call.
fn without_barrier() {
    static HEAP: Cached = Cached::with_region_size(REGION);
    let both = Barrier::new(2);
    with_sleepers(
        &HEAP,
        2,
        |cached| {
            assert!(cached > 0);
            HEAP.trim();
            assert_eq!(HEAP.stats().cached_bytes, cached);
        },
        || {
            give(&HEAP, take(&HEAP, 64), 64);
            // Both threads have made a call: each cache holds what that call left, one batch at most.
            both.wait();
            let cached = HEAP.stats().cached_bytes;
            assert!(cached <= 2 * 16 * 64, "{cached}");
            both.wait();
        },
    );
    HEAP.trim();
    let payload = take(&HEAP, 64);
    give(&HEAP, payload, 64);
    assert_eq!(HEAP.check(), Ok(()));
    assert!(HEAP.stats().used_bytes < 3000, "{}", HEAP.stats());
}

/// The first thread that empties its cache then empties the depot too.
fn depot_without_barrier() {
    static HEAP: Cached = Cached::with_region_size(REGION);
    depot::with_deposits(&HEAP, |payloads| {
        HEAP.trim();
        let lowest = take(&HEAP, 64);
        assert_eq!(lowest.expose_provenance(), payloads[0]);
        give(&HEAP, lowest, 64);
    });
}

#[test]
fn threads_are_asked_where_they_cannot_be_stopped() {
    case::run("no_barrier").assert_success();
}
