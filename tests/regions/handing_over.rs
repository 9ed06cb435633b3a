//! Frees in a region that is not the thread's home: when they take effect, and when misuse is found.

use crate::{Block, REGION, case, elsewhere, home, layout};
use smalloc::{Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

#[test]
fn remote_frees_are_done_before_the_next_search() {
    static HEAP: SmallocGlobal<Linked, 64> = SmallocGlobal::with_region_size(REGION);
    let blocks: Vec<Block> = (0..8).map(|_| Block::new(&HEAP, 48)).collect();
    elsewhere(&HEAP, || [1, 4, 5].map(|index: usize| blocks[index].free(&HEAP)));
    // The first of the holes, then two of them in one.
    let places = [48, 96].map(|size| HEAP.smalloc(layout(size)).1.payload_offset.unwrap());
    assert_eq!(places, [48, 4 * 48]);
    // Growing in place searches too.
    elsewhere(&HEAP, || blocks[7].free(&HEAP));
    let block = std::ptr::with_exposed_provenance_mut(blocks[6].address);
    // SAFETY: the block is in use.
    assert_eq!(unsafe { HEAP.realloc(block, layout(48), 96) }, block);
    let stats = HEAP.region_stats(home(&HEAP)).unwrap();
    assert_eq!((stats.handed_over, stats.live_segments, stats.contended), (4, 6, 0));
    // The fast paths search too.
    let short: [unsafe fn(&SmallocGlobal<Linked, 64>, Layout) -> *mut u8; 2] =
        [GlobalAlloc::alloc, GlobalAlloc::alloc_zeroed];
    for alloc in short {
        elsewhere(&HEAP, || blocks[0].free(&HEAP));
        // SAFETY: the layout is not empty.
        assert_eq!(unsafe { alloc(&HEAP, layout(48)) }.addr(), blocks[0].address);
    }
    assert_eq!(HEAP.check(), Ok(()));
}

#[test]
fn remote_frees_are_done_before_an_inspection() {
    static HEAP: SmallocGlobal<Indexed, 64> = SmallocGlobal::with_region_size(REGION);
    type Look = fn() -> usize;
    let looks: [Look; 3] = [
        || HEAP.stats().live_segments,
        || HEAP.try_stats().unwrap().live_segments,
        || HEAP.snapshots().unwrap().iter().map(|snapshot| snapshot.used_segments().count()).sum(),
    ];
    for look in looks {
        let block = Block::new(&HEAP, 100);
        assert_eq!(look(), 1);
        elsewhere(&HEAP, || block.free(&HEAP));
        assert_eq!(look(), 0);
    }
}

#[test]
fn a_thread_that_finds_the_queue_full_frees_by_itself() {
    static HEAP: SmallocGlobal<Indexed, 64> = SmallocGlobal::with_region_size(REGION);
    // The owner ends before its blocks are freed.
    let blocks: Vec<Block> = elsewhere(&HEAP, || (0..5000).map(|_| Block::new(&HEAP, 32)).collect());
    blocks.into_iter().for_each(|block| block.free(&HEAP));
    let stats = HEAP.stats();
    assert_eq!((stats.used_bytes, stats.allocs, stats.frees), (0, 5002, 5002));
    assert!((4900..=5000).contains(&stats.handed_over), "{}", stats.handed_over);
    assert_eq!(HEAP.check(), Ok(()));
}

#[test]
fn large_blocks_do_not_wait() {
    static HEAP: SmallocGlobal<Indexed, 64> = SmallocGlobal::with_region_size(REGION);
    let block = elsewhere(&HEAP, || Block::new(&HEAP, REGION / 2));
    block.free(&HEAP);
    assert_eq!((HEAP.stats().handed_over, HEAP.stats().used_bytes), (0, 0));
}

static MISUSED: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(REGION);

#[test]
fn misuse_is_found_at_the_next_search() {
    let start = |name: &str| case::run(name);
    for name in ["freed_twice", "freed_twice_by_pointer"] {
        start(name).assert_aborts_as_told("smalloc: double free: ");
    }
    start("wrong_layout").assert_aborts_as_told("smalloc: wrong layout: ");
    start("inside").assert_aborts_as_told("smalloc: interior pointer: ");
}

/// A block of 48 bytes that belongs to another thread.
fn remote_block() -> Block {
    let block = Block::new(&MISUSED, 48);
    Block::new(&MISUSED, 48);
    block
}

pub fn freed_twice() {
    let block = remote_block();
    println!("expect: smalloc: double free: {:#x} is in a free segment (layout of 48 bytes)", block.address);
    elsewhere(&MISUSED, || [block, block].map(|block| block.free(&MISUSED)));
    home(&MISUSED);
}

pub fn freed_twice_by_pointer() {
    let block = remote_block();
    println!("expect: smalloc: double free: {:#x} is in a free segment", block.address);
    // SAFETY: misuse is tested here.
    let free =
        || unsafe { MISUSED.sfree(NonNull::with_exposed_provenance(block.address.try_into().unwrap())) };
    elsewhere(&MISUSED, || [free(), free()]);
    home(&MISUSED);
}

pub fn wrong_layout() {
    let block = remote_block();
    println!(
        "expect: smalloc: wrong layout: {:#x} has a segment of 48 bytes, the layout of 50 bytes (align 1) takes 64",
        block.address
    );
    elsewhere(&MISUSED, || Block { size: 50, ..block }.free(&MISUSED));
    home(&MISUSED);
}

pub fn inside() {
    let block = remote_block();
    let address = block.address + 16;
    println!(
        "expect: smalloc: interior pointer: {address:#x} is inside a segment of 48 bytes, 16 bytes from its start \
         (layout of 48 bytes)"
    );
    elsewhere(&MISUSED, || Block { address, ..block }.free(&MISUSED));
    home(&MISUSED);
}
