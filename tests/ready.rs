//! Memory that is committed, or brought into RAM, in advance.
#![cfg(not(feature = "hardened"))]

mod case;

use case::{page, resident};
use smalloc::{Heap, Indexed};
use std::alloc::Layout;

const MIB: usize = 1 << 20;
const KIB: usize = 1 << 10;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

/// Whether the first `bytes` bytes of the heap are in memory.
fn all_in_memory(heap: &Heap<Indexed>, bytes: usize) -> bool {
    resident(heap.base(), bytes) == bytes.next_multiple_of(page())
}

#[test]
fn memory_made_resident_stays() {
    let mut heap = Heap::<Indexed>::with_region_size(64 * MIB).expect("addresses are free");
    let wall = heap.alloc(layout(100));
    assert!(!wall.is_null() && heap.make_resident(32 * MIB));
    // The block in front takes the first page.
    // SAFETY: the block is live.
    unsafe { wall.write_bytes(1, 100) };
    assert!(all_in_memory(&heap, 32 * MIB));
    let zeroed = heap.alloc_zeroed(layout(MIB));
    // SAFETY: the block is live and has this size and layout.
    unsafe {
        assert!(std::slice::from_raw_parts(zeroed, MIB).iter().all(|&byte| byte == 0));
        heap.dealloc(zeroed, layout(MIB));
    }
    for _ in 0..3 {
        let blocks: Vec<_> = (0..30 * MIB / KIB).map(|_| heap.alloc(layout(KIB))).collect();
        for block in blocks {
            // SAFETY: the block is live and has this size and layout.
            unsafe {
                block.write_bytes(1, KIB);
                heap.dealloc(block, layout(KIB));
            }
        }
    }
    assert!(all_in_memory(&heap, 32 * MIB));
    assert!(heap.trim() > 29 * MIB);
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(wall, layout(100)) };
}

#[test]
fn making_ready_more_than_fits_fails() {
    let mut heap = Heap::<Indexed>::with_region_size(64 * MIB).expect("addresses are free");
    assert!(heap.make_ready(64 * MIB) && !heap.make_ready(64 * MIB + 1));
    assert_eq!(heap.set_limit(MIB), MIB);
    assert!(heap.make_ready(MIB) && !heap.make_ready(MIB + 1));
}
