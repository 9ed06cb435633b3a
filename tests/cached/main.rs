//! `Cached`: what caches of threads do, what they keep, and what they must never do.
//!
//! A thread has one cache, of the first such heap that it uses, so this program has another global allocator.

mod bounds;
#[path = "../case/mod.rs"]
mod case;
mod depot;
mod ends;
mod limits;
mod misuse;
mod model;
mod watched;

use case::Case;
use smalloc::{Cached, FreeList};
use std::alloc::{GlobalAlloc, Layout};

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

fn take(heap: &impl GlobalAlloc, size: usize) -> *mut u8 {
    // SAFETY: no test asks for nothing.
    let payload = unsafe { heap.alloc(layout(size, 1)) };
    assert!(!payload.is_null());
    payload
}

fn give(heap: &impl GlobalAlloc, payload: *mut u8, size: usize) {
    // SAFETY: the payload is live and has this layout, or misuse is what is tested.
    unsafe { heap.dealloc(payload, layout(size, 1)) }
}

/// The addresses of payloads, which other threads may have.
fn take_many(heap: &impl GlobalAlloc, count: usize, size: usize) -> Vec<usize> {
    (0..count).map(|_| take(heap, size).expose_provenance()).collect()
}

fn give_many(heap: &impl GlobalAlloc, payloads: &[usize], size: usize) {
    payloads.iter().for_each(|&payload| give(heap, std::ptr::with_exposed_provenance_mut(payload), size));
}

/// A heap of which nothing is in use, once its caches are empty.
fn assert_all_free<L: FreeList, const REGIONS: usize>(heap: &Cached<L, REGIONS>) {
    heap.trim();
    let stats = heap.stats();
    assert_eq!((stats.used_bytes, stats.cached_bytes, stats.free_segments), (0, 0, 1), "{stats}");
    assert_eq!(heap.check(), Ok(()));
}

/// Not a test: what tests start in a process of its own.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    let cases: Vec<Case> = [&misuse::CASES[..], &limits::CASES, &ends::CASES].concat();
    case::act(&cases);
}
