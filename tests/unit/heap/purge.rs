//! The number of times that a heap scans its holes.

use super::{Heap, Purge};
use crate::calls::{self, Own};
use crate::free_list::{FreeList, Indexed, Linked};
use crate::heap::purge_policy::{MIN_INTERVAL, PAUSE_PER_HOLE};
use crate::region::{CHUNK, Granule};
use core::alloc::Layout;
use core::ptr::NonNull;

/// Holes, separated by walls that stay in use.
const HOLES: usize = 1000;
/// Granules per hole.
const HOLE: usize = 32 * CHUNK;
/// Granules per hole and wall. A wall is a chunk.
const PERIOD: usize = HOLE + CHUNK;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

/// A heap with [`HOLES`] dirty holes.
fn heap<L: FreeList>() -> Heap<L> {
    let mut heap = Heap::<L>::with_region_size(64 << 20).unwrap();
    heap.purge_policy.disable();
    let blocks = [(); HOLES].map(|()| {
        let block = heap.smalloc(layout(Granule(HOLE).bytes())).0.unwrap();
        heap.smalloc(layout(Granule(CHUNK).bytes())).0.unwrap();
        block
    });
    for block in blocks.into_iter().rev() {
        // SAFETY: the block is in use and freed once.
        unsafe { heap.sfree(block) };
    }
    assert_eq!(heap.stats().holes(), HOLES);
    heap.purge_policy.interval = MIN_INTERVAL;
    heap
}

fn work<L: FreeList>(heap: &mut Heap<L>, pairs: usize) {
    for _ in 0..pairs {
        let block = heap.smalloc(layout(64)).0.unwrap();
        // SAFETY: the block is in use and freed once.
        unsafe { heap.sfree(block) };
    }
}

#[test]
fn a_scan_in_vain_delays_the_next() {
    let mut heap = heap::<Indexed>();
    heap.trim();
    work(&mut heap, 100_000);
    let pause = heap.purge_policy.pause;
    assert!(pause >= PAUSE_PER_HOLE * HOLES as u64, "{pause}");
    // In the long run, the heap scans its holes as often as the pause allows.
    let (mut scans, begin) = (0, heap.work());
    for _ in 0..2000 {
        let before = heap.purge_policy.scanned_at;
        work(&mut heap, 100);
        scans += u64::from(heap.purge_policy.scanned_at != before);
    }
    let most = (heap.work() - begin) / pause;
    assert!((most / 2..=most + 1).contains(&scans), "{scans} scans, the pause allows {most}");
}

#[test]
fn a_scan_that_finds_much_does_not() {
    let mut heap = heap::<Indexed>();
    assert!(heap.plan_purge().is_none(), "all of it was in use a moment ago");
    assert!(heap.plan_purge().is_none(), "it may be needed again in a window");
    heap.count_calls_elsewhere(10_000);
    let pass = heap.plan_purge().expect("much is due");
    assert_eq!(heap.purge_policy.pause, PAUSE_PER_HOLE);
    calls::purge(Own::new(&mut heap, ()), pass);
    assert!(heap.plan_purge().is_none(), "the next scan is delayed");
}

/// Allocations and frees happen between batches.
fn each_hole_once<L: FreeList>() {
    let mut heap = heap::<L>();
    let (mut pass, mut batches) = (Purge::ALL, 0);
    while let Some(mut pieces) = heap.begin_purge(&mut pass, 0) {
        // SAFETY: the pieces are free, and the heap belongs to this thread.
        unsafe { pieces.discard() };
        heap.end_purge(&mut pass, &pieces);
        work(&mut heap, 1);
        batches += 1;
    }
    assert!(batches > 3 && pass.holes <= HOLES + batches, "{} holes in {batches} batches", pass.holes);
    assert!(heap.check().is_ok());
}

/// Between two batches, a huge segment is placed over the pass's cursor, which is now the start of the segment's last
/// chunk. The map's words in front of that are not valid.
fn huge_segment_over_the_cursor<L: FreeList>(filled_with: u8) {
    let mut heap = heap::<L>();
    let (mut pass, mut batches) = (Purge::ALL, 0);
    while let Some(mut pieces) = heap.begin_purge(&mut pass, 0) {
        // SAFETY: the pieces are free, and the heap belongs to this thread.
        unsafe { pieces.discard() };
        heap.end_purge(&mut pass, &pieces);
        batches += 1;
        if batches == 1 {
            let wall = pass.cursor;
            assert!(wall.bit() == 0 && wall > Granule(2 * PERIOD));
            for freed in [wall.down(PERIOD), wall] {
                let payload = NonNull::new(heap.region().pointer(freed).as_ptr()).unwrap();
                // SAFETY: the wall is in use and freed once.
                unsafe { heap.sfree(payload) };
            }
            let size = Granule(2 * PERIOD - CHUNK + 10).bytes();
            let (block, status) = heap.smalloc(layout(size));
            assert_eq!(status.payload_offset, Some(wall.down(2 * PERIOD - CHUNK).bytes()));
            // SAFETY: the block is in use and has this size.
            unsafe { block.unwrap().as_ptr().write_bytes(filled_with, size) };
        }
    }
    assert!(batches > 3 && heap.check().is_ok());
    let rest = heap.trim();
    assert!(rest < 1 << 16, "the pass has left {rest} bytes, more than the two walls");
}

#[test]
fn a_pass_beside_a_huge_segment_misses_nothing() {
    for filled_with in [0, 0x41, 0xff] {
        huge_segment_over_the_cursor::<Indexed>(filled_with);
        huge_segment_over_the_cursor::<Linked>(filled_with);
    }
}

#[test]
fn a_pass_between_other_calls_scans_each_hole_once() {
    each_hole_once::<Indexed>();
    each_hole_once::<Linked>();
}
