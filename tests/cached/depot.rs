//! Depots: payloads that threads with the same home leave for each other.

use crate::{assert_all_free, give_many, take, take_many};
use smalloc::Cached;
use std::sync::Barrier;
use std::thread;

/// Has another thread free 40 payloads of 64 bytes, of which its cache holds at most 30, and stay until `work` is done
/// with their addresses.
pub fn with_deposits(heap: &Cached, work: impl FnOnce(&[usize])) {
    let payloads = take_many(heap, 40, 64);
    let (freed, done) = (Barrier::new(2), Barrier::new(2));
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            give_many(heap, &payloads, 64);
            freed.wait();
            done.wait();
        });
        freed.wait();
        work(&payloads);
        done.wait();
        // The end of the scope would not wait for the thread's destructors.
        other.join().unwrap();
    });
}

#[test]
fn threads_get_what_others_leave() {
    static HEAP: Cached = Cached::with_region_size(1 << 20);
    let mut taken = Vec::new();
    with_deposits(&HEAP, |payloads| {
        let before = HEAP.stats();
        taken = take_many(&HEAP, 30, 64);
        let found = taken.iter().filter(|payload| payloads.contains(payload)).count();
        let placed = HEAP.stats().allocs - before.allocs;
        assert!(found >= 15, "{found}");
        assert!(placed <= 16, "{placed}");
    });
    give_many(&HEAP, &taken, 64);
    assert_all_free(&HEAP);
}

#[test]
fn the_last_thread_leaves_no_depot() {
    static HEAP: Cached = Cached::with_region_size(1 << 20);
    let mut before = 0;
    with_deposits(&HEAP, |_| before = HEAP.stats().cached_bytes);
    let after = HEAP.stats();
    assert!(after.cached_bytes + 40 * 64 <= before, "{after}");
    assert_eq!(after.used_bytes, after.cached_bytes);
    // A thread alone leaves nothing in it either: all that is cached is its own.
    let alone = take_many(&HEAP, 100, 64);
    give_many(&HEAP, &alone, 64);
    assert!(HEAP.stats().cached_bytes <= after.cached_bytes + 30 * 64);
    // Two threads use it again.
    let mut again = 0;
    with_deposits(&HEAP, |_| again = HEAP.stats().cached_bytes);
    assert!(again >= HEAP.stats().cached_bytes + 40 * 64);
    assert_all_free(&HEAP);
}

#[test]
fn trim_empties_the_depot() {
    static HEAP: Cached = Cached::with_region_size(1 << 20);
    with_deposits(&HEAP, |payloads| {
        HEAP.trim();
        let stats = HEAP.stats();
        assert_eq!((stats.used_bytes, stats.cached_bytes), (0, 0), "{stats}");
        // It serves afterwards.
        let first = take(&HEAP, 64).expose_provenance();
        assert_eq!(first, payloads[0]);
        give_many(&HEAP, &[first], 64);
    });
    assert_all_free(&HEAP);
}
