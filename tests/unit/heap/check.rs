//! Breaks every invariant by hand and expects the check to name it.

use crate::free_list::{FreeList, Indexed, Linked};
use crate::heap::Heap;
use crate::region::{Extent, Granule};
use core::alloc::Layout;
use core::ptr::NonNull;
use std::vec::Vec;

/// Granules of a block.
const N: usize = 8;
const LAYOUT: Layout = Layout::new::<[u64; 2 * N]>();
const BLOCKS: usize = 16;

/// Blocks side by side from granule 0 on. The third and the sixth are freed: holes at 16 and 40, top at 128.
fn heap<L: FreeList>() -> Heap<L> {
    let mut heap = Heap::<L>::with_region_size(1 << 20).unwrap();
    let blocks: Vec<NonNull<u8>> = (0..BLOCKS).map(|_| heap.smalloc(LAYOUT).0.unwrap()).collect();
    for hole in [2, 5] {
        // SAFETY: the block is in use and freed once.
        unsafe { heap.sfree(blocks[hole]) };
    }
    assert_eq!(heap.check(), Ok(()));
    heap
}

/// A heap with a block, a hole of many chunks, and a block.
fn heap_with_long_hole() -> Heap {
    let mut heap = Heap::<Indexed>::with_region_size(1 << 20).unwrap();
    heap.smalloc(LAYOUT).0.unwrap();
    let long = heap.smalloc(Layout::new::<[u8; 16 << 10]>()).0.unwrap();
    heap.smalloc(LAYOUT).0.unwrap();
    // SAFETY: the block is in use and freed once.
    unsafe { heap.sfree(long) };
    assert_eq!(heap.check(), Ok(()));
    heap
}

/// Expects the check to report this invariant at this offset, with `what` in the message.
#[track_caller]
fn expect<L: FreeList>(heap: &Heap<L>, invariant: &str, offset: usize, what: &str) {
    let found = heap.check().expect_err(what);
    assert_eq!((found.invariant, found.offset, found.region), (invariant, offset, 0), "{found}");
    assert!(found.what.contains(what), "{found}");
}

/// Frees a block in the map and the counters, without telling the list.
fn free_untold<L: FreeList>(heap: &mut Heap<L>, block: usize) -> Granule {
    let at = Granule(N * block);
    heap.tiling.ground.map.give_short(at, N);
    heap.tiling.counters.freed(N);
    heap.tiling.counters.gave(false, false);
    at
}

#[test]
fn segments_do_not_tile() {
    let mut broken = heap::<Indexed>();
    broken.tiling.ground.map.give_short(Granule(0), 1);
    expect(&broken, "M1", 16, "no segment begins");

    let mut broken = heap::<Indexed>();
    broken.tiling.ground.top = broken.tiling.ground.top.down(1);
    expect(&broken, "M1", 16 * N * (BLOCKS - 1), "reaches above top");
}

#[test]
fn tags_of_long_holes() {
    let (start, end) = (Granule(N), Granule(N + 1024));
    // The tag at the hole's end says that the hole begins later.
    let mut broken = heap_with_long_hole();
    broken.tiling.ground.map.note_hole(Extent::new(start.up(192), end));
    expect(&broken, "M1", start.bytes(), "shorter or longer from its end");

    // The tag at the hole's start says that the hole ends earlier.
    let mut broken = heap_with_long_hole();
    broken.tiling.ground.map.note_hole(Extent::new(start, end.down(300)));
    expect(&broken, "M2", end.down(300).bytes(), "both free");
}

#[test]
fn a_hole_at_top() {
    let mut broken = heap::<Indexed>();
    broken.tiling.ground.map.give_short(Granule(N * (BLOCKS - 1)), N);
    expect(&broken, "M3", 16 * N * (BLOCKS - 1), "touches top");
}

#[test]
fn counters() {
    let top = 16 * N * BLOCKS;
    let mut broken = heap::<Indexed>();
    broken.tiling.counters.usage.shrank(1);
    expect(&broken, "H1", top, "bytes in use");

    let mut broken = heap::<Indexed>();
    broken.tiling.counters.freed += 1;
    expect(&broken, "H1", top, "segments in use");

    let mut broken = heap::<Indexed>();
    broken.tiling.counters.splits += 1;
    expect(&broken, "H1", top, "free segments");
}

#[test]
fn above_top() {
    let top = 16 * N * BLOCKS;
    let mut broken = heap::<Indexed>();
    broken.tiling.ready = broken.tiling.ground.top.down(1);
    expect(&broken, "H1", top, "what is open");

    let mut broken = heap::<Indexed>();
    broken.limit = broken.tiling.ready.down(1);
    expect(&broken, "H1", top, "what is open");

    let mut broken = heap::<Indexed>();
    broken.tiling.ground.map.take_short(broken.tiling.ground.top.up(70), 1);
    expect(&broken, "H1", top, "wilderness is in use");
}

#[test]
fn bounds_and_hints() {
    let (first, top) = (16 * N * 2, 16 * N * BLOCKS);
    let spoiled = |spoil: fn(&mut Indexed)| {
        let mut broken = heap::<Indexed>();
        spoil(&mut broken.tiling.list);
        broken
    };
    expect(&spoiled(|list| list.set_bound(0, 0, N as u8 - 1)), "I1", first, "the chunk's bound");
    expect(&spoiled(|list| list.set_bound(1, 0, N as u8 - 1)), "I2", first, "a parent's bound");
    expect(&spoiled(|list| list.set_hint(N, 1)), "I3", first, "the hint for this size");
    expect(&spoiled(|list| list.set_bound(0, 1, 40)), "I4", 1024, "the hint for the chunk's bound");
    expect(&spoiled(|list| list.set_bound(0, 3, 40)), "I5", 3 * 1024, "above top");
    expect(&spoiled(|list| list.set_hint(20, 0)), "I3", top, "do not ascend");
    let too_high = spoiled(|list| {
        list.set_bound(0, 0, N as u8 + 1);
        list.set_hint(N + 1, 0);
    });
    expect(&too_high, "I6", 0, "too high");
    let stale = spoiled(|list| {
        list.set_bound(0, 1, N as u8 | 0x80);
    });
    expect(&stale, "I6", 1024, "not in the ring");
    expect(&spoiled(|list| list.set_bound(2, 0, N as u8 + 1)), "I2", top, "not the maximum of its children");
    // The index does not know of this hole.
    let mut broken = heap::<Indexed>();
    let at = free_untold(&mut broken, 12);
    broken.tiling.list.set_bound(0, at.chunk(), 0);
    expect(&broken, "I1", at.bytes(), "the chunk's bound");
}

#[test]
fn links() {
    let (first, second) = (Granule(N * 2), Granule(N * 5));
    let nil = u32::MAX;
    let spoiled = |at: Granule, links| {
        let broken = heap::<Linked>();
        broken.tiling.ground.region.set_links(at, links);
        broken
    };
    let number = |at: Granule| at.0 as u32;
    expect(&spoiled(first, [nil, nil]), "L1", second.bytes(), "ends before");
    expect(&spoiled(first, [nil, number(second) + 1]), "L1", second.bytes(), "steps over");
    expect(&spoiled(first, [nil, number(first) + 1]), "L2", second.bytes(), "not the next free segment");
    expect(&spoiled(second, [nil, nil]), "L3", second.bytes(), "prev is another");
    expect(&spoiled(second, [number(first), 100]), "L1", 1600, "goes on behind");

    // The list does not know of this hole.
    let mut broken = heap::<Linked>();
    let at = free_untold(&mut broken, 0);
    expect(&broken, "L1", at.bytes(), "steps over");
}

#[test]
fn a_corruption_names_its_place() {
    let mut broken = heap::<Indexed>();
    broken.tiling.counters.usage.shrank(1);
    let text = std::format!("{}", broken.check().unwrap_err());
    assert_eq!(text, "H1: the bytes in use are not what was counted at offset 0x800");
    assert_eq!(Heap::<Indexed>::UNMAPPED.check(), Ok(()));
}
