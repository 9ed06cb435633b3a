//! `Cached`: what its threads' caches do, and what they must not.

use smalloc::{Cached, Indexed, Linked};
use std::alloc::{GlobalAlloc, Layout};

static HEAP: Cached = Cached::with_region_size(64 << 20);

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).unwrap()
}

#[test]
fn hits() {
    let block = unsafe { HEAP.alloc(layout(100)) };
    assert!(!block.is_null());
    unsafe { HEAP.dealloc(block, layout(100)) };
    let again = unsafe { HEAP.alloc(layout(100)) };
    assert_eq!(block, again);
    unsafe { HEAP.dealloc(again, layout(100)) };
    let stats = HEAP.stats();
    println!("{stats}");
    assert!(stats.cache_hits >= 1);
    HEAP.trim();
    let stats = HEAP.stats();
    println!("{stats}");
    assert_eq!(stats.cached_bytes, 0);
    assert_eq!(stats.free_segments, 1);
    let _ = (Cached::<Linked, 2>::new(), Cached::<Indexed>::new());
    HEAP.check().unwrap();
}
