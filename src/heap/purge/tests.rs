//! How often a heap goes through its holes.

use super::{EACH_HOLE, Heap, Purge, SHORTEST_INTERVAL};
use crate::free_list::{FreeList, Indexed, Linked};
use core::alloc::Layout;

/// Between blocks that stay, there are so many holes.
const HOLES: usize = 1000;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

/// A heap with so many dirty holes of 32 KiB.
fn heap<L: FreeList>() -> Heap<L> {
    let mut heap = Heap::<L>::with_region_size(64 << 20).unwrap();
    heap.never_purge();
    let blocks = [(); HOLES].map(|()| {
        let block = heap.smalloc(layout(32 << 10)).0.unwrap();
        heap.smalloc(layout(16)).0.unwrap();
        block
    });
    for block in blocks.into_iter().rev() {
        // SAFETY: the block is in use, and freed once.
        unsafe { heap.sfree(block) };
    }
    assert_eq!(heap.stats().holes(), HOLES);
    heap.thrift.interval = SHORTEST_INTERVAL;
    heap
}

fn work<L: FreeList>(heap: &mut Heap<L>, pairs: usize) {
    for _ in 0..pairs {
        let block = heap.smalloc(layout(64)).0.unwrap();
        // SAFETY: the block is in use, and freed once.
        unsafe { heap.sfree(block) };
    }
}

#[test]
fn a_look_in_vain_puts_off_the_next() {
    let mut heap = heap::<Indexed>();
    heap.trim();
    work(&mut heap, 100_000);
    let pause = heap.thrift.pause;
    assert!(pause >= EACH_HOLE * HOLES as u64, "{pause}");
    // In the long run, it goes through the holes as often as that allows.
    let (mut visits, begin) = (0, heap.work());
    for _ in 0..2000 {
        let visited = heap.thrift.visited;
        work(&mut heap, 100);
        visits += u64::from(heap.thrift.visited != visited);
    }
    let most = (heap.work() - begin) / pause;
    assert!((most / 2..=most + 1).contains(&visits), "{visits} visits, {most} are paid for");
}

#[test]
fn a_look_that_finds_much_does_not() {
    let mut heap = heap::<Indexed>();
    assert!(heap.look().is_none(), "all of it was in use a moment ago");
    let pass = heap.look().expect("much is due");
    assert_eq!(heap.thrift.pause, EACH_HOLE);
    heap.purge(pass);
    assert!(heap.look().is_none(), "it is put off");
}

/// Others allocate and free between one batch and the next.
fn each_hole_once<L: FreeList>() {
    let mut heap = heap::<L>();
    let (mut pass, mut batches) = (Purge::ALL, 0);
    while let Some(mut pieces) = heap.begin_purge(&mut pass, 0) {
        // SAFETY: the pieces are free, and the heap is this thread's.
        unsafe { pieces.discard() };
        heap.end_purge(&mut pass, &pieces);
        work(&mut heap, 1);
        batches += 1;
    }
    assert!(batches > 3 && pass.holes <= HOLES + batches, "{} holes in {batches} batches", pass.holes);
    assert!(heap.check().is_ok());
}

#[test]
fn a_pass_beside_others_goes_through_each_hole_once() {
    each_hole_once::<Indexed>();
    each_hole_once::<Linked>();
}
