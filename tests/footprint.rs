//! The number of pages that a heap takes besides those of its payloads, and the memory that payloads take besides their
//! requested bytes.
//!
//! Resident memory is that of the whole process, so the case that reads it has one of its own.

mod case;

use case::page;
use smalloc::{Heap, Indexed, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};

const MIB: usize = 1 << 20;

const CASES: [case::Case; 1] = [("program", program)];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

/// Allocates a block and writes all of it.
fn fill(heap: &SmallocGlobal, size: usize) -> *mut u8 {
    // SAFETY: the size is not 0.
    let block = unsafe { heap.alloc(layout(size)) };
    assert!(!block.is_null(), "{size} bytes");
    // SAFETY: the block is live and has this size.
    unsafe { block.write_bytes(0xA5, size) };
    block
}

/// Resident pages from the end of a heap's region up to the end of what is mapped there, or in the first `MOST` pages.
fn beside(heap: &Heap<Indexed>) -> usize {
    const MOST: usize = 64;
    let mut start = heap.base().wrapping_add(heap.region_size());
    let mut pages = 0;
    for _ in 0..MOST {
        let mut known = 0_u8;
        // SAFETY: there is a byte for the one page; a page that is not mapped is refused.
        if unsafe { libc::mincore(start.cast(), page(), &raw mut known) } != 0 {
            break;
        }
        pages += usize::from(known & 1);
        start = start.wrapping_add(page());
    }
    pages
}

/// A part that a heap rarely writes takes a page when it is written, and none before.
#[test]
fn rarely_written_parts_take_no_memory_until_they_are_written() {
    let mut heap = Heap::<Indexed>::with_region_size(MIB).expect("addresses are free");
    let mut beside_after = |size: usize| {
        let block = heap.alloc(layout(size));
        if !block.is_null() {
            // SAFETY: the block is live and has this layout.
            unsafe { heap.dealloc(block, layout(size)) };
        }
        beside(&heap)
    };
    let tables = beside_after(1);
    assert_eq!(beside_after(1), tables);
    assert_eq!([(); 2].map(|()| beside_after(2 * MIB)), [tables + 1; 2], "failures are counted in one");
    assert_eq!(heap.stats().failed_hops.count(), 2);
}

/// A typical mix: most blocks are small and stay, some come and go, few are large.
fn program() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(256 * MIB);
    const BLOCKS: usize = 60_000;
    let mut blocks: Vec<(*mut u8, usize)> = Vec::with_capacity(BLOCKS);
    // The first reading takes memory itself, which must not count as growth.
    case::resident_bytes();
    // SAFETY: the call changes how memory is backed. With huge pages, more of it would be resident.
    unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
    blocks.resize(BLOCKS, (std::ptr::null_mut(), 0));
    let before = case::resident_bytes();
    let (mut live, mut number) = (0, 0_usize);
    for place in 0..BLOCKS {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = number >> 33;
        let size = match random % 100 {
            0 => 4096 + random / 100 % 12_288,
            1..10 => 256 + random / 100 % 768,
            _ => 24 + 8 * (random / 100 % 24),
        };
        blocks[place] = (fill(&HEAP, size), size);
        live += size;
        if place % 4 == 3 {
            let (block, size) =
                std::mem::replace(&mut blocks[place - random / 100 % 4], (std::ptr::null_mut(), 0));
            if !block.is_null() {
                // SAFETY: the block is live and has this layout.
                unsafe { HEAP.dealloc(block, layout(size)) };
                live -= size;
            }
        }
    }
    let grown = case::resident_bytes() - before;
    let top = HEAP.stats().top.next_multiple_of(page());
    assert!(grown <= top + top / 50 + 8 * page(), "{grown} bytes are resident for a top of {top}");
    let allowed = live / 20 * 21 + 8 * (page() - 4096);
    assert!(grown <= allowed, "{grown} bytes are resident for {live} that are live");
}

#[test]
fn a_typical_program_takes_a_twentieth_more_than_its_live_bytes() {
    case::run("program").assert_success();
}
