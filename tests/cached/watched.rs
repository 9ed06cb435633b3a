//! Whoever must see every call sees every call: caches are bypassed meanwhile, in all threads.

use crate::{assert_all_free, give, give_many, take, take_many};
use smalloc::Cached;
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
