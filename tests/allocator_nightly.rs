//! The standard library's own collections in heaps of their own, on a nightly Rust.
#![feature(allocator_api, btreemap_alloc)]

use smalloc::{HeapCell, Indexed, SmallocGlobal};
use std::alloc::{Allocator, Layout};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

static GLOBAL: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20);

fn collections(heap: impl Allocator + Copy) {
    let mut numbers = Vec::new_in(heap);
    numbers.extend(0..100_000_u64);
    let mut map = BTreeMap::new_in(heap);
    map.extend(numbers.iter().map(|&number| (number, Box::new_in(number, heap))));
    let queue: VecDeque<u64, _> = VecDeque::from(numbers);
    assert!(queue.iter().all(|number| *map[number] == *number));
    assert_eq!(*Rc::new_in(queue.len(), heap), 100_000);
}

#[test]
fn collections_live_in_any_heap() {
    collections(&GLOBAL);
    let heap = HeapCell::<Indexed>::with_region_size(64 << 20).expect("addresses are free");
    collections(&heap);
    for stats in [GLOBAL.stats(), heap.into_inner().stats()] {
        assert_eq!((stats.used_bytes, stats.free_segments), (0, 1));
        assert!(stats.allocs > 100_000);
    }
}

#[test]
fn growing_keeps_the_place() {
    let layout = |size| Layout::from_size_align(size, 8).expect("a layout");
    let heap = HeapCell::<Indexed>::with_region_size(1 << 20).expect("addresses are free");
    let block = (&heap).allocate(layout(10)).expect("room");
    // SAFETY: the block is live and has this layout.
    let grown = unsafe { (&heap).grow_zeroed(block.cast(), layout(10), layout(1000)) }.expect("room");
    assert_eq!((grown.cast::<u8>(), grown.len()), (block.cast(), 1000));
    // SAFETY: the block is live, and these bytes are zero.
    assert!(unsafe { grown.as_ref() }[10..].iter().all(|&byte| byte == 0));
}
