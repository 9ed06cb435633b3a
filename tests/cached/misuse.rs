//! Misuse of cached payloads ends with the lines that it ends with without caches.

use crate::{case, case::Case, depot, give, layout, take};
use smalloc::Cached;
use std::alloc::GlobalAlloc;
use std::ptr::NonNull;
use std::thread;

static HEAP: Cached = Cached::with_region_size(1 << 20);

pub const CASES: [Case; 15] = [
    ("double_own", || twice(|payload| give(&HEAP, payload, 100))),
    ("double_own_buried", || {
        let others: Vec<_> = (0..4).map(|_| take(&HEAP, 100)).collect();
        twice(|payload| {
            others.iter().for_each(|&other| give(&HEAP, other, 100));
            give(&HEAP, payload, 100);
        });
    }),
    ("double_other_thread", || twice(|payload| elsewhere(payload, |payload| give(&HEAP, payload, 100)))),
    ("double_first_in_other_thread", || {
        let payload = take(&HEAP, 100);
        let hold = std::sync::Barrier::new(2);
        thread::scope(|scope| {
            let address = payload.expose_provenance();
            let hold = &hold;
            scope.spawn(move || {
                give(&HEAP, std::ptr::with_exposed_provenance_mut(address), 100);
                hold.wait();
                hold.wait();
            });
            hold.wait();
            give(&HEAP, payload, 100);
        });
    }),
    ("double_in_depot", || {
        depot::with_deposits(&HEAP, |payloads| {
            give(&HEAP, std::ptr::with_exposed_provenance_mut(payloads[0]), 64);
        });
    }),
    ("double_after_trim", || {
        twice(|payload| {
            HEAP.trim();
            give(&HEAP, payload, 100);
        });
    }),
    ("double_by_realloc", || {
        twice(|payload| {
            // SAFETY: misuse is what is tested.
            unsafe { HEAP.realloc(payload, layout(100, 1), 300) };
        });
    }),
    ("double_by_sfree", || {
        twice(|payload| {
            // SAFETY: misuse is what is tested.
            unsafe { HEAP.sfree(NonNull::new(payload).expect("a payload")) };
        });
    }),
    ("smaller", || give(&HEAP, warm(), 84)),
    ("larger", || give(&HEAP, warm(), 132)),
    ("realloc_larger", || {
        // SAFETY: misuse is what is tested.
        unsafe { HEAP.realloc(warm(), layout(132, 1), 300) };
    }),
    ("interior", || give(&HEAP, warm().wrapping_add(16), 100)),
    ("unaligned", || give(&HEAP, warm().wrapping_add(8), 100)),
    ("foreign", || {
        warm();
        give(&HEAP, Box::leak(Box::new([0_u128; 8])).as_mut_ptr().cast(), 100);
    }),
    ("alignment", || {
        let payload = warm();
        let wrong = if payload.addr().is_multiple_of(64) { take(&HEAP, 100) } else { payload };
        // SAFETY: misuse is what is tested.
        unsafe { HEAP.dealloc(wrong, layout(100, 64)) };
    }),
];

/// Frees a payload, then does `again` with it.
fn twice(again: impl FnOnce(*mut u8)) {
    let payload = warm();
    give(&HEAP, payload, 100);
    again(payload);
}

/// A payload from a cache that has served before, walled in by others.
fn warm() -> *mut u8 {
    let payloads: Vec<_> = (0..8).map(|_| take(&HEAP, 100)).collect();
    give(&HEAP, payloads[3], 100);
    take(&HEAP, 100)
}

fn elsewhere(payload: *mut u8, work: impl FnOnce(*mut u8) + Send) {
    let address = payload.expose_provenance();
    thread::scope(|scope| {
        scope.spawn(move || work(std::ptr::with_exposed_provenance_mut(address)));
    });
}

#[test]
fn misuse_ends_the_process_at_once() {
    let lines = [
        ("double", "smalloc: double free: 0x"),
        ("smaller", "smalloc: wrong layout: 0x"),
        ("larger", "smalloc: wrong layout: 0x"),
        ("realloc_larger", "smalloc: wrong layout: 0x"),
        ("interior", "smalloc: interior pointer: 0x"),
        ("unaligned", "smalloc: unaligned pointer: 0x"),
        ("foreign", "smalloc: foreign pointer: 0x"),
        ("alignment", "smalloc: wrong layout: 0x"),
    ];
    for (name, _) in CASES {
        let (_, line) = lines.iter().find(|(start, _)| name.starts_with(start)).expect("a line");
        let outcome = case::run(name);
        assert!(outcome.stderr.starts_with(line), "{name}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), 1, "{name}: {}", outcome.stderr);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&outcome.status), Some(libc::SIGABRT));
    }
}

/// A payload that looks cached, and is not, is freed like any other.
#[test]
fn a_mark_alone_is_no_double_free() {
    let payload = take(&HEAP, 100);
    let words: *mut [u64; 2] = payload.cast();
    give(&HEAP, payload, 100);
    // SAFETY: the memory is mapped, and this thread alone uses the heap.
    let marked = unsafe { words.read() };
    assert_eq!(take(&HEAP, 100), payload);
    // SAFETY: the payload is live and this thread's.
    unsafe { words.write(marked) };
    give(&HEAP, payload, 100);
    crate::assert_all_free(&HEAP);
}

/// The bytes of freed payloads, wholly overwritten, change nothing.
#[test]
fn writes_after_a_free_damage_nothing() {
    static OTHER: Cached = Cached::with_region_size(1 << 20);
    let payloads: Vec<_> = (0..50).map(|_| take(&OTHER, 48)).collect();
    for round in 0..20 {
        payloads.iter().for_each(|&payload| give(&OTHER, payload, 48));
        // SAFETY: the memory is mapped, and this thread alone uses the heap.
        payloads.iter().for_each(|&payload| unsafe { payload.write_bytes(round ^ 0xA5, 48) });
        let mut again: Vec<_> = (0..50).map(|_| take(&OTHER, 48)).collect();
        again.sort_unstable();
        again.dedup();
        assert_eq!(again.len(), 50);
        let mut sorted = payloads.clone();
        sorted.sort_unstable();
        assert_eq!(again, sorted);
    }
    payloads.iter().for_each(|&payload| give(&OTHER, payload, 48));
    crate::assert_all_free(&OTHER);
}
