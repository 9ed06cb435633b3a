//! Threads that end, processes that fork, and signal handlers that allocate.

use crate::{assert_all_free, case, case::Case, give, give_many, take, take_many};
use smalloc::{Cached, Indexed};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

pub const CASES: [Case; 3] =
    [("fork", fork_with_full_caches), ("signals", handlers_allocate), ("late", destructors_allocate)];

#[test]
fn ended_threads_leave_nothing() {
    static HEAP: Cached = Cached::with_region_size(64 << 20);
    give(&HEAP, take(&HEAP, 1000), 1000);
    for _ in 0..2000 {
        let work = || {
            for size in [24, 100, 500] {
                let payloads = take_many(&HEAP, 20, size);
                give_many(&HEAP, &payloads, size);
            }
        };
        thread::spawn(work).join().unwrap();
    }
    let stats = HEAP.stats();
    assert_eq!((stats.used_bytes, stats.cached_bytes), (0, 0), "{stats}");
    assert!(stats.cache_hits > 2000 * 20, "{stats}");
}

#[test]
fn more_threads_than_caches() {
    static HEAP: Cached = Cached::with_region_size(64 << 20);
    let all = Barrier::new(200);
    thread::scope(|scope| {
        for _ in 0..200 {
            scope.spawn(|| {
                let payloads = take_many(&HEAP, 20, 100);
                all.wait();
                give_many(&HEAP, &payloads, 100);
            });
        }
    });
    assert_all_free(&HEAP);
}

/// Heaps that come and go use the same few caches.
#[test]
fn dropped_heaps_leave_their_caches() {
    for round in 0..500 {
        let heap = Cached::<Indexed>::with_region_size(1 << 20);
        let payloads = take_many(&heap, 20, 100);
        give_many(&heap, &payloads[..10], 100);
        assert!(heap.stats().cache_hits > 0, "{round}");
    }
}

/// A thread's last destructors allocate and free: nothing stays in a cache.
fn destructors_allocate() {
    static HEAP: Cached = Cached::with_region_size(4 << 20);
    static ROUNDS: AtomicU64 = AtomicU64::new(0);
    unsafe extern "C" fn again(key: *mut libc::c_void) {
        let round = ROUNDS.fetch_add(1, Ordering::Relaxed);
        let payloads = take_many(&HEAP, 40, 64 + 16 * round as usize);
        give_many(&HEAP, &payloads, 64 + 16 * round as usize);
        // SAFETY: the key exists.
        unsafe { libc::pthread_setspecific((key.addr() - 1) as libc::pthread_key_t, key) };
    }
    // One key is older than that of the caches, one is younger.
    for used in [false, true] {
        if used {
            thread::spawn(|| give(&HEAP, take(&HEAP, 64), 64)).join().unwrap();
        }
        let mut key = 0;
        // SAFETY: the key is writable.
        assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(again)) }, 0);
        let value = std::ptr::without_provenance_mut::<libc::c_void>(key as usize + 1);
        let value = value.expose_provenance();
        thread::spawn(move || {
            give(&HEAP, take(&HEAP, 200), 200);
            // SAFETY: the key exists.
            unsafe { libc::pthread_setspecific(key, std::ptr::with_exposed_provenance(value)) };
        })
        .join()
        .unwrap();
        let stats = HEAP.stats();
        assert_eq!((stats.used_bytes, stats.cached_bytes), (0, 0), "{stats}");
    }
    assert!(ROUNDS.load(Ordering::Relaxed) >= 8);
}

#[test]
fn the_last_destructors_leave_nothing() {
    case::run("late").assert_success();
}

/// The child has the whole heap: what threads that it does not have had cached is free.
fn fork_with_full_caches() {
    static HEAP: Cached = Cached::with_region_size(4 << 20);
    let kept = take_many(&HEAP, 10, 100);
    let stop = AtomicBool::new(false);
    let running = Barrier::new(4);
    thread::scope(|scope| {
        for thread in 0..3 {
            let (stop, running) = (&stop, &running);
            scope.spawn(move || {
                let size = 64 << thread;
                give_many(&HEAP, &take_many(&HEAP, 20, size), size);
                running.wait();
                while !stop.load(Ordering::Relaxed) {
                    // Hits, refills and spills, so that forks come in the middle of each.
                    give_many(&HEAP, &take_many(&HEAP, 3, size), size);
                    give_many(&HEAP, &take_many(&HEAP, 40, size), size);
                }
            });
        }
        running.wait();
        let mut children = (0..100).map(|_| {
            let child = case::fork(|| {
                // At most 40 payloads of each thread were its own.
                let bound = 10 * 112 + 40 * (64 + 128 + 256);
                let stats = HEAP.stats();
                let in_use = stats.used_bytes - stats.cached_bytes;
                let own = take_many(&HEAP, 100, 100);
                give_many(&HEAP, &own, 100);
                HEAP.trim();
                let after = HEAP.stats();
                let whole = HEAP.check().is_ok() && after.cached_bytes == 0 && after.used_bytes <= bound;
                i32::from(!(whole && in_use <= bound && after.used_bytes == in_use))
            });
            case::wait(child)
        });
        let failed = children.any(|status| status != 0);
        stop.store(true, Ordering::Relaxed);
        assert!(!failed);
    });
    give_many(&HEAP, &kept, 100);
    assert_all_free(&HEAP);
}

#[test]
fn forked_children_have_the_whole_heap() {
    case::run("fork").assert_success();
}

static SIGNALLED: Cached = Cached::with_region_size(4 << 20);
static HANDLED: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);
/// The payload that the handler keeps until the next signal.
static KEPT: AtomicPtr<[u64; 8]> = AtomicPtr::new(std::ptr::null_mut());

/// Takes a payload and frees the one that it has kept since the last signal, so that a hit which it interrupts finds
/// another payload on top.
extern "C" fn allocate(_: libc::c_int) {
    let payload: *mut [u64; 8] = take(&SIGNALLED, 64).cast();
    // SAFETY: the payload has 64 bytes and is this handler's.
    unsafe { payload.write([u64::MAX; 8]) };
    release(KEPT.swap(payload, Ordering::Relaxed));
    HANDLED.fetch_add(1, Ordering::Relaxed);
}

fn release(kept: *mut [u64; 8]) {
    if !kept.is_null() {
        // SAFETY: the payload has 64 bytes and is the handler's.
        let lost = unsafe { kept.read_volatile() } != [u64::MAX; 8];
        LOST.fetch_add(u64::from(lost), Ordering::Relaxed);
        give(&SIGNALLED, kept.cast(), 64);
    }
}

/// Signals arrive in the middle of hits, whose handlers hit too: no payload has two owners.
fn handlers_allocate() {
    case::on_signal(libc::SIGUSR1, allocate);
    // Warm: no call below needs the heap's lock, but those of handlers that interrupt a hit.
    give_many(&SIGNALLED, &take_many(&SIGNALLED, 12, 64), 64);
    give_many(&SIGNALLED, &take_many(&SIGNALLED, 6, 64), 64);
    // SAFETY: the call has no preconditions.
    let (thread, stop) = (unsafe { libc::pthread_self() }, AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: the thread lives until this one has ended.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                thread::sleep(Duration::from_micros(20));
            }
        });
        let start = Instant::now();
        let mut round = 0_u64;
        while start.elapsed() < Duration::from_millis(1500) {
            for _ in 0..1000 {
                round += 1;
                let payload = take(&SIGNALLED, 64);
                let words = payload.cast::<[u64; 8]>();
                // SAFETY: the payload has 64 bytes and is this thread's.
                unsafe { words.write([round; 8]) };
                std::hint::black_box(payload);
                // SAFETY: as above.
                assert_eq!(unsafe { words.read_volatile() }, [round; 8]);
                give(&SIGNALLED, payload, 64);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    release(KEPT.load(Ordering::Relaxed));
    assert_eq!(LOST.load(Ordering::Relaxed), 0);
    assert!(HANDLED.load(Ordering::Relaxed) > 1000, "{HANDLED:?}");
    assert_eq!(SIGNALLED.stats().used_bytes, SIGNALLED.stats().cached_bytes);
    assert_all_free(&SIGNALLED);
}

#[test]
fn handlers_that_interrupt_hits_are_safe() {
    case::run("signals").assert_success();
}
