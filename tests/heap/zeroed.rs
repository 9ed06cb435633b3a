//! `alloc_zeroed` over memory that was never used, that was used, that was used in part, and that was purged.

use crate::{KIB, MIB};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use smalloc::{FreeList, Heap};
use std::alloc::Layout;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

fn heap<L: FreeList>() -> Heap<L> {
    Heap::with_region_size(16 * MIB).expect("a small region can be mapped")
}

/// Allocates a zeroed block, asserts that it is zero, and leaves it dirty.
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

/// Resizes a dirty block, asserts that the bytes added are zero, and leaves them dirty too.
fn grow_zeroed<L: FreeList>(heap: &mut Heap<L>, (start, old): (*mut u8, usize), new: usize) -> *mut u8 {
    // SAFETY: the block is live, has this layout, and the size is not zero.
    let start = unsafe { heap.realloc_zeroed(start, layout(old), new) };
    assert!(!start.is_null(), "{old} to {new} bytes");
    // SAFETY: the block is live, has this size, and all of it may be read.
    let bytes = unsafe { std::slice::from_raw_parts(start, new) };
    let kept = old.min(new);
    assert!(bytes[..kept].iter().all(|&byte| byte == 0xA5), "{old} to {new} bytes");
    assert_eq!(bytes[kept..].iter().position(|&byte| byte != 0), None, "{old} to {new} bytes");
    // SAFETY: the block is live and has this size.
    unsafe { start.write_bytes(0xA5, new) };
    start
}

/// In place over the rest of a smaller block, over a hole, over the wilderness, and by moving.
fn growth_is_zero<L: FreeList>() {
    let mut heap = heap::<L>();
    let dirt = take_zeroed(&mut heap, 4 * MIB);
    give(&mut heap, dirt, 4 * MIB);
    let sizes = [0, 1, 5, 16, 17, 40, 4096, 5000, 70_000, MIB, 3 * MIB + 1, 100, 16, 8];
    for second in [false, true] {
        let mut block = (take_zeroed(&mut heap, 0), 0);
        let mut others = Vec::new();
        for size in sizes.into_iter().filter(|&size| size > 0) {
            block = (grow_zeroed(&mut heap, block, size), size);
            if second {
                others.push(take_zeroed(&mut heap, 3000));
            }
            if others.len() == 4 {
                others.drain(..2).for_each(|other| give(&mut heap, other, 3000));
                heap.trim();
            }
        }
        give(&mut heap, block.0, block.1);
        others.into_iter().for_each(|other| give(&mut heap, other, 3000));
    }
    assert_eq!(heap.stats().used_bytes, 0);
}

/// Each size three times over the dirty memory of the one before.
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

/// Memory becomes dirty not only by `alloc`, but also by growing in place, by moving, and by padding.
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

/// A full region has no free memory above top.
fn whole_region<L: FreeList>() {
    let mut heap = heap::<L>();
    for _again in 0..2 {
        let start = take_zeroed(&mut heap, 16 * MIB);
        give(&mut heap, start, 16 * MIB);
    }
}

/// The links of a hole stay behind at its start, in a page that was purged, when it is wilderness again.
fn links_in_clean_pages<L: FreeList>() {
    let page = 64 * KIB;
    let mut heap = heap::<L>();
    let (lower, hole) = (take_zeroed(&mut heap, page), take_zeroed(&mut heap, 4 * page));
    let above = take_zeroed(&mut heap, 16);
    give(&mut heap, hole, 4 * page);
    heap.trim();
    let first = take_zeroed(&mut heap, page);
    assert_eq!(first, hole);
    give(&mut heap, above, 16);
    give(&mut heap, first, page);
    assert_eq!(take_zeroed(&mut heap, 4 * page), hole);
    give(&mut heap, hole, 4 * page);
    give(&mut heap, lower, page);
}

/// A heap with one block of 16 bytes and dirty memory above it: small blocks are freed by the fast path and leave no
/// mark.
fn unmarked_dirt<L: FreeList>() -> (Heap<L>, *mut u8) {
    let mut heap = heap::<L>();
    let blocks: Vec<_> = (0..20_000).map(|_| take_zeroed(&mut heap, 16)).collect();
    for &block in blocks[1..].iter().rev() {
        give(&mut heap, block, 16);
    }
    (heap, blocks[0])
}

fn growth_over_unmarked_dirt<L: FreeList>() {
    let (mut heap, block) = unmarked_dirt::<L>();
    assert_eq!(grow_zeroed(&mut heap, (block, 16), 500_000), block);
}

/// Padding makes it a hole.
fn padding_over_unmarked_dirt<L: FreeList>() {
    let (mut heap, _) = unmarked_dirt::<L>();
    let aligned = heap.alloc(Layout::from_size_align(16, MIB).unwrap());
    assert_eq!(aligned.addr() - heap.base().addr(), MIB);
    take_zeroed(&mut heap, 300_000);
}

/// Random calls in a heap that purges all the time. Every free page was either written since its last purge or is zero,
/// and the heap knows which.
fn given_back_at_random<L: FreeList>() {
    for seed in 0..60 {
        let mut random = SmallRng::seed_from_u64(seed);
        let mut heap = heap::<L>();
        let mut live: Vec<(*mut u8, usize)> = Vec::new();
        let sizes = [200, 900, 5_000, 20_000, 150_000];
        let often = random.random_range(4..40);
        for _ in 0..800 {
            let most = sizes[random.random_range(0..sizes.len())];
            let size = random.random_range(1..=most);
            match random.random_range(0..often) {
                0 => drop(heap.trim()),
                1 => live.push((take_zeroed(&mut heap, size), size)),
                2 if !live.is_empty() && size % 2 == 0 => {
                    let (start, old) = live.swap_remove(random.random_range(0..live.len()));
                    let grown = grow_zeroed(&mut heap, (start, old), old + size);
                    live.push((grown, old + size));
                }
                2 if !live.is_empty() => {
                    let (start, old) = live.swap_remove(random.random_range(0..live.len()));
                    // SAFETY: the block is live, has this layout, and gets this size.
                    let moved = unsafe { heap.realloc(start, layout(old), size) };
                    // SAFETY: as above.
                    unsafe { moved.write_bytes(0xA5, size) };
                    live.push((moved, size));
                }
                3 => {
                    let aligned = Layout::from_size_align(size, 1 << random.random_range(5..17)).unwrap();
                    let start = heap.alloc(aligned);
                    // SAFETY: the block is live and has this size and this layout.
                    unsafe {
                        start.write_bytes(0xA5, size);
                        heap.dealloc(start, aligned);
                    }
                }
                number if number % 2 == 0 && live.len() < 60 => {
                    live.push((take_zeroed(&mut heap, size), size))
                }
                _ if !live.is_empty() => {
                    let (start, size) = live.swap_remove(random.random_range(0..live.len()));
                    give(&mut heap, start, size);
                }
                _ => {}
            }
        }
        assert_eq!(heap.check(), Ok(()));
    }
}

on_both_lists! {
    given_back_at_random
    growth_is_zero
    links_in_clean_pages
    growth_over_unmarked_dirt
    padding_over_unmarked_dirt
    dirty_memory
    half_dirty_memory
    dirty_by_realloc
    whole_region
}
