//! Returning free memory to the system: how many pages are resident, what trimming returns, and what it leaves alone.
//!
//! Pages are counted by `mincore`, in heaps that are not the program's own.

mod case;

use case::{page, resident};
use smalloc::{FreeList, Heap, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const CASES: [case::Case; 2] = [("locked", locked), ("locked_page", locked_page)];

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
fn fill<L: FreeList>(heap: &mut Heap<L>, size: usize) -> (*mut u8, usize) {
    let start = heap.alloc(layout(size));
    assert!(!start.is_null(), "{size} bytes");
    // SAFETY: the block is live and has this size.
    unsafe { start.write_bytes(0xA5, size) };
    (start, size)
}

fn give<L: FreeList>(heap: &mut Heap<L>, (start, size): (*mut u8, usize)) {
    assert!(is_filled(start, size, 0xA5));
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(start, layout(size)) };
}

fn is_filled(block: *mut u8, size: usize, with: u8) -> bool {
    let expected = [with; 4096];
    // SAFETY: the caller's block is live, has this size, and all of it has been written.
    let bytes = unsafe { std::slice::from_raw_parts(block, size) };
    bytes.chunks(expected.len()).all(|part| *part == expected[..part.len()])
}

fn all_resident<L: FreeList>(heap: &Heap<L>) -> usize {
    resident(heap.base(), heap.stats().peak_top.next_multiple_of(page()))
}

/// Pseudo-random numbers.
fn scramble(number: usize) -> usize {
    let mixed = (number as u64 ^ 0x9E37_79B9).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    ((mixed ^ mixed >> 32).wrapping_mul(0xD6E8_FEB8_6659_FD93) >> 33) as usize
}

// ---- by itself ---------------------------------------------------------------------------------------------------

/// Objects of 500 to 1,500 bytes are freed in the order of `key`, except for ten. Returns the resident bytes at the
/// peak and at the end.
fn all_but_ten<L: FreeList>(count: usize, key: fn(usize) -> usize) -> (usize, usize) {
    let mut heap = Heap::<L>::with_region_size(512 * MIB).expect("addresses are free");
    let objects: Vec<_> = (0..count).map(|number| fill(&mut heap, 500 + scramble(number) % 1001)).collect();
    let peak = all_resident(&heap);
    assert!(peak >= heap.stats().used_bytes);
    let mut order: Vec<usize> = (0..count).filter(|number| number % (count / 10) != count / 20).collect();
    order.sort_by_key(|&number| key(number));
    for number in order {
        give(&mut heap, objects[number]);
    }
    assert_eq!(heap.stats().live_segments, 10);
    heap.check().expect("the heap is sound");
    (peak, all_resident(&heap))
}

#[test]
fn ten_objects_do_not_pin_the_memory_of_the_others() {
    // In a debug build so many objects take a minute.
    let objects = if cfg!(debug_assertions) { 50_000 } else { 200_000 };
    for key in [|number| number, |number: usize| !number, scramble] {
        let (peak, left) = all_but_ten::<Indexed>(objects, key);
        println!("{left} of {peak} bytes are resident");
        assert!(left * 20 <= peak, "{left} of {peak} bytes are resident");
    }
    // A walk over the linked list takes its time, and far more in other orders.
    let (peak, left) = all_but_ten::<Linked>(objects, |number| !number);
    assert!(left * 20 <= peak, "linked: {left} of {peak} bytes are resident");
}

/// A list whose last block is freed first: each free lowers top, and none makes a hole.
#[test]
fn small_blocks_freed_from_the_top_down_are_purged_too() {
    const BLOCK: usize = 48;
    let heap = SmallocGlobal::<Indexed>::with_region_size(64 * MIB);
    // SAFETY: the layout is not empty.
    let take = || unsafe { heap.alloc(layout(BLOCK)) };
    let base = take();
    let blocks: Vec<_> = (0..32 * MIB / BLOCK).map(|_| take()).collect();
    for block in blocks.into_iter().rev() {
        // SAFETY: the block is live, and has this layout.
        unsafe {
            block.write_bytes(1, BLOCK);
            heap.dealloc(block, layout(BLOCK));
        }
    }
    let left = resident(base, 32 * MIB);
    assert!(left <= MIB || cfg!(feature = "hardened"), "{left} bytes are resident");
}

/// Memory that is allocated and freed again and again stays resident, as one block or as many, after a round or two in
/// which it was purged too early.
#[test]
fn recurring_memory_stays() {
    for size in [64 * MIB, 100 * KIB, KIB] {
        let mut heap = Heap::<Indexed>::with_region_size(256 * MIB).expect("addresses are free");
        let round = |heap: &mut Heap<Indexed>| {
            let blocks: Vec<_> = (0..64 * MIB / size).map(|_| fill(heap, size)).collect();
            blocks.into_iter().for_each(|block| give(heap, block));
            heap.stats().purged_total
        };
        let learned = (0..6).map(|_| round(&mut heap)).last();
        println!("{size}: {learned:?}");
        assert_eq!((0..10).map(|_| round(&mut heap)).last(), learned, "blocks of {size} bytes");
    }
}

/// It also stays if much happens in little memory before it is needed again, as in a compiler between two files.
#[test]
fn recurring_memory_stays_through_a_quiet_time() {
    for (size, calls) in [(KIB, 200_000), (64 * KIB, 50_000)] {
        let mut heap = Heap::<Indexed>::with_region_size(64 * MIB).expect("addresses are free");
        let round = |heap: &mut Heap<Indexed>| {
            let blocks: Vec<_> = (0..8 * MIB / size).map(|_| fill(heap, size)).collect();
            blocks.into_iter().for_each(|block| give(heap, block));
            for _ in 0..calls {
                let block = heap.alloc(layout(size));
                // SAFETY: the block is live and has this layout.
                unsafe { heap.dealloc(block, layout(size)) };
            }
            heap.stats().purged_total
        };
        let learned = (0..4).map(|_| round(&mut heap)).last();
        assert_eq!((0..4).map(|_| round(&mut heap)).last(), learned, "blocks of {size} bytes");
    }
}

/// A heap that has shrunk keeps at most 256 KiB or a sixteenth, and its reserve only for a while: for small and large
/// blocks alike, and also if a little of the reserve is needed.
#[test]
fn an_unneeded_reserve_is_purged() {
    for (memory, stays, size, calls) in [
        (8 * MIB, 0, 100 * KIB, 150_000),
        (8 * MIB, MIB, 100 * KIB, 150_000),
        (8 * MIB, 0, MIB, 20_000),
        (2 * MIB, 0, 16, 4_000_000),
    ] {
        let mut heap = Heap::<Indexed>::with_region_size(256 * MIB).expect("addresses are free");
        for _ in 0..4 {
            let blocks: Vec<_> = (0..memory / KIB).map(|_| fill(&mut heap, KIB)).collect();
            blocks.into_iter().for_each(|block| give(&mut heap, block));
        }
        assert!(all_resident(&heap) > memory / 2, "the reserve is kept");
        let lasting = (stays > 0).then(|| fill(&mut heap, stays));
        for _ in 0..calls {
            let block = heap.alloc(layout(size));
            // SAFETY: the block is live and has this layout.
            unsafe { heap.dealloc(block, layout(size)) };
        }
        let (left, allowed) = (all_resident(&heap), stays + size + 3 * MIB / 4);
        assert!(left <= allowed, "{left} bytes are resident after {calls} calls of {size} bytes");
        lasting.into_iter().for_each(|block| give(&mut heap, block));
    }
}

// ---- on demand ---------------------------------------------------------------------------------------------------

fn trims<L: FreeList>() {
    let mut heap = Heap::<L>::with_region_size(64 * MIB).expect("addresses are free");
    let mut blocks: Vec<_> =
        (0..1000).map(|number| fill(&mut heap, 1 + scramble(number) % (20 * KIB))).collect();
    let peak = all_resident(&heap);
    assert_eq!(heap.trim(), 0, "nothing is free but what was never used");
    let mut freed = Vec::new();
    for number in (0..1000).rev().filter(|number| number % 3 != 0) {
        freed.push(blocks.swap_remove(number));
    }
    freed.into_iter().for_each(|block| give(&mut heap, block));
    let before = heap.stats().purged_total;
    let given = heap.trim();
    assert_eq!(heap.stats().purged_total, before + given as u64);
    let left = all_resident(&heap);
    assert!(given > 0);
    assert_eq!(peak as u64, before + given as u64 + left as u64);
    // At most a page at either end of each free segment stays.
    let stats = heap.stats();
    assert!(left <= stats.used_bytes + 2 * page() * (stats.free_segments + 1), "{left} bytes: {stats}");
    assert_eq!(heap.trim(), 0);
    // Blocks keep their contents, before and after the holes are used again.
    let more: Vec<_> = (0..500).map(|number| fill(&mut heap, 1 + scramble(number) % (10 * KIB))).collect();
    blocks.into_iter().chain(more).for_each(|block| give(&mut heap, block));
    heap.trim();
    heap.check().expect("the heap is sound");
    let links = if L::NAME == "linked" { page() } else { 0 };
    assert!(all_resident(&heap) <= links, "an empty heap takes nothing");
}

#[test]
fn trimming_returns_every_free_page() {
    trims::<Indexed>();
    trims::<Linked>();
}

/// The system refuses to purge locked memory: it stays, is not counted, and `errno` is unchanged.
fn locked() {
    let mut heap = Heap::<Indexed>::with_region_size(16 * MIB).expect("addresses are free");
    let block = fill(&mut heap, 32 * KIB);
    let small = fill(&mut heap, 1);
    // SAFETY: the pages are mapped.
    assert_eq!(unsafe { libc::mlock(block.0.cast(), block.1) }, 0);
    give(&mut heap, block);
    case::set_errno(libc::EDOM);
    assert_eq!(heap.trim(), 0);
    assert_eq!(case::errno(), libc::EDOM);
    // The heap does not take the locked pages for zero.
    let zeroed = heap.alloc_zeroed(layout(32 * KIB));
    assert_eq!(zeroed, block.0);
    assert!(is_filled(zeroed, 32 * KIB, 0));
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(zeroed, layout(32 * KIB)) };
    // SAFETY: the pages are mapped.
    assert_eq!(unsafe { libc::munlock(block.0.cast(), block.1) }, 0);
    assert_eq!(heap.trim(), 32 * KIB);
    give(&mut heap, small);
}

/// Locked memory stays, and nothing else does.
fn locked_page() {
    let mut heap = Heap::<Indexed>::with_region_size(256 * MIB).expect("addresses are free");
    // Automatic purges keep the lowest free memory, which is in this hole.
    let [bottom, wall, key, other_wall] = [MIB, 1, 64 * KIB, 1].map(|size| fill(&mut heap, size));
    // SAFETY: the pages are mapped.
    assert_eq!(unsafe { libc::mlock(key.0.cast(), key.1) }, 0);
    give(&mut heap, bottom);
    give(&mut heap, key);
    let blocks: Vec<_> = (0..128).map(|_| fill(&mut heap, MIB)).collect();
    blocks.into_iter().for_each(|block| give(&mut heap, block));
    let left = all_resident(&heap);
    assert!(left <= 4 * MIB, "{left} bytes are resident");
    heap.trim();
    assert!(all_resident(&heap) <= 64 * KIB + 4 * page());
    give(&mut heap, wall);
    give(&mut heap, other_wall);
}

#[test]
fn locked_memory_stays() {
    case::run("locked").assert_success();
    case::run("locked_page").assert_success();
}

// ---- zeros -------------------------------------------------------------------------------------------------------

#[test]
fn zeroed_memory_of_a_fresh_heap_is_not_touched() {
    let mut heap = Heap::<Indexed>::with_region_size(1 << 30).expect("addresses are free");
    let start = heap.alloc_zeroed(layout(512 * MIB));
    assert!(!start.is_null());
    assert!(all_resident(&heap) < MIB);
    // SAFETY: the block is live and has this layout.
    let start = unsafe { heap.realloc_zeroed(start, layout(512 * MIB), 600 * MIB) };
    assert!(!start.is_null() && all_resident(&heap) < MIB);
}

/// The calls of the global allocator clear payloads without the lock, and have a way of their own to know which memory
/// is zero.
#[test]
fn zeroed_memory_of_a_fresh_global_heap_is_not_touched() {
    let heap = SmallocGlobal::<Indexed>::with_region_size(1 << 30);
    // SAFETY: layouts are not empty; the block is live and has the layout that it is given.
    unsafe {
        let start = heap.alloc_zeroed(layout(512 * MIB));
        assert!(!start.is_null() && resident(start, 512 * MIB) < MIB);
        let start = heap.realloc_zeroed(start, layout(512 * MIB), 600 * MIB);
        assert!(!start.is_null() && resident(start, 600 * MIB) < MIB);
        start.write_bytes(7, 16 * MIB);
        heap.dealloc(start, layout(600 * MIB));
        heap.trim();
        let again = heap.alloc_zeroed(layout(600 * MIB));
        assert!(again == start && resident(again, 600 * MIB) < MIB);
        assert!(is_filled(again, 32 * MIB, 0));
    }
}

/// 32 MiB in a hole, of which the lower half was purged and the upper half is dirty, or the other way round.
#[test]
fn only_dirty_memory_is_cleared() {
    for dirty_first in [true, false] {
        let mut heap = Heap::<Indexed>::with_region_size(1 << 30).expect("addresses are free");
        let lower = fill(&mut heap, 16 * MIB);
        let upper = fill(&mut heap, 16 * MIB);
        let above = fill(&mut heap, 1);
        let (purged, dirty) = if dirty_first { (upper, lower) } else { (lower, upper) };
        give(&mut heap, purged);
        heap.trim();
        give(&mut heap, dirty);
        let start = heap.alloc_zeroed(layout(32 * MIB));
        assert_eq!(start, lower.0);
        assert!(resident(purged.0, 16 * MIB) <= 2 * page());
        assert_eq!(resident(dirty.0, 16 * MIB), 16 * MIB);
        assert!(is_filled(start, 32 * MIB, 0));
        give(&mut heap, above);
    }
}

/// A purged hole that becomes part of the wilderness is still known to be zero.
#[test]
fn purged_memory_stays_known_to_be_zero_when_top_falls() {
    let mut heap = Heap::<Indexed>::with_region_size(1 << 30).expect("addresses are free");
    let lower = fill(&mut heap, 64 * MIB);
    let upper = fill(&mut heap, MIB);
    give(&mut heap, lower);
    heap.trim();
    give(&mut heap, upper);
    assert_eq!(heap.stats().top, 0);
    assert!(!heap.alloc_zeroed(layout(64 * MIB)).is_null());
    assert!(all_resident(&heap) <= MIB + page());
}

// ---- huge pages --------------------------------------------------------------------------------------------------

/// The flags of the mapping that holds an address.
fn flags(address: *mut u8) -> Vec<String> {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("the system tells");
    let mut inside = false;
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        if let Some((start, end)) = range.and_then(|(start, end)| Some((number(start)?, number(end)?))) {
            inside = (start..end).contains(&address.addr());
        }
        if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| inside) {
            return flags.split_whitespace().map(str::to_owned).collect();
        }
    }
    panic!("no mapping holds {address:p}")
}

/// Both settings apply to what is committed and to what will be, and the number of mappings stays the same.
#[test]
fn huge_pages_can_be_switched() {
    if !std::path::Path::new("/sys/kernel/mm/transparent_hugepage/enabled").exists() {
        return;
    }
    let mut heap = Heap::<Indexed>::with_region_size(64 * MIB).expect("addresses are free");
    let (first, _) = fill(&mut heap, 100);
    let has = |address, flag: &str| flags(address).iter().any(|known| known == flag);
    assert!(!has(first, "hg") && !has(first, "nh"), "nothing is asked for by itself");
    for (wanted, flag, other) in [(true, "hg", "nh"), (false, "nh", "hg")] {
        assert!(heap.huge_pages(wanted));
        let later = heap.alloc(layout(20 * MIB));
        assert!(!later.is_null());
        // SAFETY: the block ends inside the region, and its last byte may be read.
        for address in [first, unsafe { later.add(20 * MIB - 1) }] {
            assert!(has(address, flag) && !has(address, other), "{:?}", flags(address));
        }
    }
}

/// A huge page is resident as a whole once a byte of it was written, and is returned as a whole.
#[test]
fn huge_pages_are_purged_as_a_whole() {
    let mut heap = Heap::<Indexed>::with_region_size(64 * MIB).expect("addresses are free");
    let wall = fill(&mut heap, 16);
    if !heap.huge_pages(true) {
        return;
    }
    let small = all_resident(&heap);
    for size in (1..16).rev().map(|huge| 2 * MIB * huge + 16) {
        let block = heap.alloc(layout(size));
        // SAFETY: the block has the byte, is live, and has this layout.
        unsafe {
            block.add(size - 1).write(1);
            heap.dealloc(block, layout(size));
        }
        heap.trim();
    }
    let left = resident(heap.base(), 36 * MIB);
    assert!(left <= small, "{left} bytes are resident, {small} before");
    give(&mut heap, wall);
}

// ---- threads -----------------------------------------------------------------------------------------------------

static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(256 << 20);

/// Tells other threads to stop when it is dropped, so that a failing test ends too.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Allocates and frees blocks until told to stop, half of them zeroed, and checks each byte.
fn work(number: u8, stop: &AtomicBool) {
    let mut blocks: Vec<(*mut u8, usize)> = Vec::new();
    for turn in 0.. {
        let size =
            1 + scramble(turn * 7 + usize::from(number)) % if turn % 4 == 0 { 300 * KIB } else { 2 * KIB };
        // SAFETY: the layout is not empty, and the block has this size.
        unsafe {
            let block =
                if turn % 2 == 0 { HEAP.alloc(layout(size)) } else { HEAP.alloc_zeroed(layout(size)) };
            assert!(!block.is_null());
            assert!(turn % 2 == 0 || is_filled(block, size, 0), "a zeroed block of {size} bytes is not");
            block.write_bytes(number, size);
            blocks.push((block, size));
        }
        let most = if turn % 512 < 256 { 64 } else { 4 };
        while blocks.len() > most {
            let (block, size) = blocks.swap_remove(scramble(turn) % blocks.len());
            assert!(is_filled(block, size, number), "{size} bytes changed");
            // SAFETY: the block is live and has this layout.
            let block = unsafe { HEAP.realloc(block, layout(size), 2 * size) };
            assert!(is_filled(block, size, number), "{size} bytes changed");
            // SAFETY: as above.
            unsafe { HEAP.dealloc(block, layout(2 * size)) };
        }
        if turn >= 3000 && stop.load(Ordering::Relaxed) {
            break;
        }
    }
    for (block, size) in blocks {
        assert!(is_filled(block, size, number), "{size} bytes changed");
        // SAFETY: the block is live and has this layout.
        unsafe { HEAP.dealloc(block, layout(size)) };
    }
}

/// One thread purges memory that others get at the same time. Children have the whole heap.
#[test]
fn threads_reuse_pages_that_others_purge() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for number in 1..=3 {
            let stop = &stop;
            scope.spawn(move || work(number, stop));
        }
        let _at_the_end = Stop(&stop);
        let mut given = 0;
        for turn in 0..400 {
            given += HEAP.trim();
            if turn % 10 == 0 {
                let child = case::fork(|| {
                    // SAFETY: the layout is not empty.
                    let good = unsafe { HEAP.alloc_zeroed(layout(8 * MIB)) };
                    let zero = !good.is_null() && is_filled(good, 8 * MIB, 0);
                    HEAP.trim();
                    i32::from(!(zero && HEAP.check().is_ok()))
                });
                assert_eq!(case::wait(child), 0, "the child's end");
            }
        }
        assert!(given > MIB, "{given} bytes were given back");
    });
    assert_eq!(HEAP.stats().used_bytes, 0);
    HEAP.check().expect("the heap is sound");
    HEAP.trim();
    let (block, status) = HEAP.smalloc(layout(1));
    assert_eq!(status.payload_offset, Some(0));
    let base = block.expect("there is room").as_ptr();
    assert!(resident(base, HEAP.stats().peak_top.next_multiple_of(page())) <= page());
}
