//! The bytes in RAM that the heap reports are those that `mincore` counts; they follow purges.
#![cfg(all(target_os = "linux", not(feature = "hardened")))]

mod case;

use case::{page, resident, status_bytes};
use smalloc::{FreeList, Heap, Indexed, Linked, Memory, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};

const MIB: usize = 1 << 20;

const CASES: [case::Case; 2] = [("sums", sums), ("without_scan", without_scan)];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

fn counted<L: FreeList>(heap: &Heap<L>) -> usize {
    resident(heap.base(), heap.stats().committed_bytes)
}

/// Every third of 3,000 blocks of 1 to 64 KiB stays, which makes many more ranges than one system call returns.
fn holes<L: FreeList>() {
    let mut heap = Heap::<L>::with_region_size(256 * MIB).expect("addresses are free");
    let size = |number: usize| 1024 * (1 + number * 7 % 64);
    let take = |heap: &mut Heap<L>, number: usize| {
        let block = heap.alloc(layout(size(number)));
        // SAFETY: the block has that many bytes.
        unsafe { block.write_bytes(1, size(number)) };
        (block, number)
    };
    // SAFETY: the block is live and has this layout.
    let give = |heap: &mut Heap<L>, (block, number)| unsafe { heap.dealloc(block, layout(size(number))) };
    let blocks: Vec<_> = (0..3000).map(|number| take(&mut heap, number)).collect();
    let full = heap.memory();
    assert_eq!((full.region, full.kept), (counted(&heap), 0));
    let (kept, freed): (Vec<_>, Vec<_>) = blocks.into_iter().partition(|(_, number)| number % 3 == 0);
    freed.into_iter().for_each(|block| give(&mut heap, block));
    let before = heap.memory();
    assert_eq!(before.region, counted(&heap));
    let trimmed = heap.trim();
    assert_eq!(before.kept, trimmed, "trimming returns what was kept");
    let after = heap.memory();
    assert_eq!((after.region, after.kept), (before.region - trimmed, 0));
    assert_eq!(after.in_use(), before.in_use());
    let committed = heap.stats().metadata_bytes + 4 * page();
    assert!((1..=committed).contains(&after.bookkeeping), "{} of {committed} bytes", after.bookkeeping);
    kept.into_iter().for_each(|block| give(&mut heap, block));
    heap.trim();
    let links = if L::NAME == "linked" { page() } else { 0 };
    assert!(heap.memory().region <= links);
}

#[test]
fn the_numbers_are_those_of_the_system() {
    holes::<Indexed>();
    holes::<Linked>();
}

/// The parts add up to the process's memory, and grow and shrink with it.
fn sums() {
    static HEAP: SmallocGlobal<Indexed, 2> = SmallocGlobal::with_region_size(256 << 20);
    let size = 50 * MIB;
    let grown = |before: &Memory, after: &Memory| after.elsewhere().abs_diff(before.elsewhere());
    let before = HEAP.memory();
    // SAFETY: the layout is not empty; the block has that many bytes.
    let block = unsafe {
        let block = HEAP.alloc(layout(size));
        block.write_bytes(1, size);
        block
    };
    let full = HEAP.memory();
    assert!(full.in_use() >= size && full.in_use() <= size + page(), "{full}");
    assert!(grown(&before, &full) <= MIB, "{before}\n{full}");
    assert!(full.process.abs_diff(status_bytes("VmRSS") as usize) <= MIB, "{full}");
    // SAFETY: the block is live and has this layout.
    unsafe { HEAP.dealloc(block, layout(size)) };
    let freed = HEAP.memory();
    assert_eq!((freed.kept, freed.region), (size, full.region), "{freed}");
    assert_eq!(HEAP.trim(), size);
    let empty = HEAP.memory();
    assert_eq!((empty.kept, empty.region), (0, full.region - size), "{empty}");
    assert!(empty.to_string().contains("\n  kept        0 B, free\n"), "{empty}");
}

#[test]
fn the_parts_add_up_to_the_process() {
    case::run("sums").assert_success();
}

/// On systems without `PAGEMAP_SCAN`.
fn without_scan() {
    case::refuse(libc::SYS_ioctl, 1, u32::MAX, 0xC060_6610);
    holes::<Indexed>();
}

#[test]
fn older_systems_have_the_same_numbers() {
    case::run("without_scan").assert_success();
}
