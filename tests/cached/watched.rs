//! Recordings and measurements see every call: caches are bypassed meanwhile, in all threads.

use crate::{assert_all_free, give, give_many, take, take_many};
use smalloc::{Cached, Indexed, SmallocGlobal};
use std::sync::Barrier;
use std::thread;

#[test]
fn a_recording_has_every_call_of_every_thread() {
    static HEAP: Cached = Cached::with_region_size(4 << 20);
    let path = std::env::temp_dir().join(format!("smalloc-cached-{}", std::process::id()));
    let (filled, recording, done) = (Barrier::new(3), Barrier::new(3), Barrier::new(3));
    let work = || {
        let payloads = take_many(&HEAP, 20, 100);
        give_many(&HEAP, &payloads, 100);
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                work();
                filled.wait();
                recording.wait();
                work();
                done.wait();
            });
        }
        filled.wait();
        assert!(HEAP.stats().cached_bytes > 0);
        HEAP.record_to(path.to_str().unwrap()).unwrap();
        assert_eq!((HEAP.stats().cached_bytes, HEAP.stats().live_segments), (0, 0));
        let hits = HEAP.stats().cache_hits;
        recording.wait();
        done.wait();
        let recorded = HEAP.stop_recording().unwrap();
        assert_eq!((recorded.records, recorded.complete), (2 * 40, true));
        assert_eq!(HEAP.stats().cache_hits, hits);
    });
    std::fs::remove_file(&path).unwrap();
    // Caches serve again.
    thread::spawn(work).join().unwrap();
    let payload = take(&HEAP, 100);
    give(&HEAP, payload, 100);
    let hits = HEAP.stats().cache_hits;
    give(&HEAP, take(&HEAP, 100), 100);
    assert_eq!(HEAP.stats().cache_hits, hits + 1);
    assert_all_free(&HEAP);
}

/// A recording that cannot begin leaves the caches as they are.
#[test]
fn a_refused_recording_changes_nothing() {
    static HEAP: Cached = Cached::with_region_size(4 << 20);
    give(&HEAP, take(&HEAP, 100), 100);
    assert!(HEAP.record_to("/nowhere/at/all").is_err());
    let hits = HEAP.stats().cache_hits;
    give(&HEAP, take(&HEAP, 100), 100);
    give(&HEAP, take(&HEAP, 100), 100);
    assert!(HEAP.stats().cache_hits > hits);
}

#[test]
fn a_measured_thread_uses_no_cache() {
    static HEAP: Cached = Cached::with_region_size(4 << 20);
    let work = || give_many(&HEAP, &take_many(&HEAP, 20, 100), 100);
    work();
    let hits = HEAP.stats().cache_hits;
    let ((), measured) = HEAP.measure_thread(|| {
        work();
        thread::spawn(work).join().unwrap();
    });
    assert_eq!((measured.allocs, measured.frees, HEAP.stats().cache_hits), (20, 20, hits));
    work();
    assert!(HEAP.stats().cache_hits > hits);
}

/// In a region of its own, a closure's payloads lie in that region.
#[test]
fn a_scope_uses_no_cache() {
    static HEAP: Cached<Indexed, 2> = Cached::over(SmallocGlobal::with_region_size(4 << 20).with_homes(1));
    give_many(&HEAP, &take_many(&HEAP, 20, 100), 100);
    let payloads = HEAP.in_region(1, || take_many(&HEAP, 20, 100));
    assert_eq!(HEAP.region_stats(1).unwrap().used_bytes, 20 * 112);
    give_many(&HEAP, &payloads, 100);
    let hits = HEAP.stats().cache_hits;
    give(&HEAP, take(&HEAP, 100), 100);
    assert_eq!((HEAP.region_stats(1).unwrap().used_bytes, HEAP.stats().cache_hits), (0, hits + 1));
}
