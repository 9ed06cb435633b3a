//! `alloc_zeroed` over memory that was never used, that was, and that was in part.

use crate::MIB;
use smalloc::{FreeList, Heap};
use std::alloc::Layout;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

fn heap<L: FreeList>() -> Heap<L> {
    Heap::with_region_size(16 * MIB).expect("a small region can be mapped")
}

/// Takes a zeroed block, asserts that it is, and leaves it dirty.
fn take_zeroed<L: FreeList>(heap: &mut Heap<L>, size: usize) -> *mut u8 {
    let start = heap.alloc_zeroed(layout(size));
    assert!(!start.is_null(), "{size} bytes");
    // SAFETY: the block is live, and zeroed memory may be read.
    let bytes = unsafe { std::slice::from_raw_parts(start, size) };
    assert_eq!(bytes.iter().position(|&byte| byte != 0), None, "{size} bytes");
    // SAFETY: the block is live and has this size.
    unsafe { start.write_bytes(0xA5, size) };
    start
}

fn give<L: FreeList>(heap: &mut Heap<L>, start: *mut u8, size: usize) {
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(start, layout(size)) };
}

/// Each size three times over the dirt of the one before.
fn dirty_memory<L: FreeList>() {
    let mut heap = heap::<L>();
    let large = [65_535, 65_536, 65_537, 1_000_003, MIB, 3 * MIB + 1];
    for size in (1..=600).chain((601..20_000).step_by(509)).chain(large) {
        for _again in 0..3 {
            let start = take_zeroed(&mut heap, size);
            assert_eq!(start, heap.base());
            give(&mut heap, start, size);
        }
    }
}

/// The block spans dirty memory below and memory above that was never handed out.
fn half_dirty_memory<L: FreeList>() {
    for dirty in [1, 16, 1000, 4095, 4096, 4097, 70_000] {
        let mut heap = heap::<L>();
        let start = take_zeroed(&mut heap, dirty);
        give(&mut heap, start, dirty);
        for size in [dirty + 1, 2 * dirty, dirty + 5000, dirty + 300_000] {
            let start = take_zeroed(&mut heap, size);
            assert_eq!(start, heap.base());
            give(&mut heap, start, size);
        }
    }
}

/// What dirtied the memory need not be `alloc`: growing in place, moving, and padding do as well.
fn dirty_by_realloc<L: FreeList>() {
    let mut heap = heap::<L>();
    let start = heap.alloc(layout(16));
    // SAFETY: the block is live and has this layout.
    let start = unsafe { heap.realloc(start, layout(16), 500_000) };
    // SAFETY: the block is live and has this size.
    unsafe { start.write_bytes(0xFF, 500_000) };
    // SAFETY: the block is live and has this layout.
    let start = unsafe { heap.realloc(start, layout(500_000), 16) };
    let rest = take_zeroed(&mut heap, 499_984);
    // SAFETY: the block is live and has this layout.
    let moved = unsafe { heap.realloc(start, layout(16), 600_000) };
    // SAFETY: the block is live and has this size.
    unsafe { moved.write_bytes(0xFF, 600_000) };
    give(&mut heap, rest, 499_984);
    give(&mut heap, moved, 600_000);
    let all = take_zeroed(&mut heap, 2 * MIB);
    give(&mut heap, all, 2 * MIB);
    assert_eq!(heap.stats().free_segments, 1);
}

/// A full region has no rest above top to be careful about.
fn whole_region<L: FreeList>() {
    let mut heap = heap::<L>();
    for _again in 0..2 {
        let start = take_zeroed(&mut heap, 16 * MIB);
        give(&mut heap, start, 16 * MIB);
    }
}

on_both_lists! {
    dirty_memory
    half_dirty_memory
    dirty_by_realloc
    whole_region
}
