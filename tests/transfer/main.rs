//! Large payloads move by their pages: the pages that this takes, the mappings that it makes, and that the contents of
//! payloads never change by it.
#![cfg(target_os = "linux")]

#[path = "../case/mod.rs"]
mod case;
mod locked;
mod refused;
mod threads;

use case::{page, resident};
use smalloc::{FreeList, Heap, Indexed, Linked};
use std::alloc::Layout;
use std::ptr::{self, NonNull};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// One open and one closed mapping, and three for each of 48 ranges that were moved, which is two more each.
const MOST_MAPPINGS: usize = 2 + 2 * 48;

const CASES: [case::Case; 9] = [
    ("first_step_refused", || refused::refused(libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP)),
    ("second_step_refused", || refused::refused(libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED)),
    ("addresses_run_out", refused::addresses_run_out),
    ("mappings_run_out", refused::mappings_run_out),
    ("faults", faults),
    ("all_is_locked", all_is_locked),
    ("neighbours_stay_locked", locked::neighbours_stay_locked),
    ("parts_stay_locked", locked::parts_stay_locked),
    ("forking", threads::forking),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

fn heap<L: FreeList>() -> Heap<L> {
    Heap::with_region_size(4 << 30).expect("addresses are free")
}

/// The number of mappings in the region.
fn mappings<L: FreeList>(heap: &Heap<L>) -> usize {
    mappings_in(heap.base().addr(), heap.base().addr() + heap.region_size())
}

fn mappings_in(start: usize, end: usize) -> usize {
    case::mappings().iter().filter(|mapping| mapping.0 < end && start < mapping.1).count()
}

/// A word that depends on its place and on the payload.
fn word(index: usize, seed: usize) -> usize {
    (index + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Writes the bytes `from..to` of a payload, multiples of eight.
fn write(payload: *mut u8, from: usize, to: usize, seed: usize) {
    for index in from / 8..to / 8 {
        // SAFETY: the caller's payload has these bytes, and is aligned like every payload.
        unsafe { payload.cast::<usize>().add(index).write(word(index, seed)) };
    }
}

fn holds(payload: *mut u8, to: usize, seed: usize) -> bool {
    // SAFETY: the caller's payload has these bytes, and they have been written.
    (0..to / 8).all(|index| unsafe { payload.cast::<usize>().add(index).read() } == word(index, seed))
}

/// Live blocks that are never written, and their sizes.
type Between = Vec<(*mut u8, usize)>;

/// Doubles a payload from `size` up to `last` bytes, and checks all of it. Each time, a block of the same size plus
/// `more` lies behind it, so that it has to move.
fn grow<L: FreeList>(
    heap: &mut Heap<L>,
    (size, last): (usize, usize),
    more: usize,
    seed: usize,
) -> (*mut u8, Between) {
    let (mut size, mut between) = (size, Vec::new());
    let mut payload = heap.alloc(layout(size));
    write(payload, 0, size, seed);
    while size < last {
        between.push((heap.alloc(layout(size + more)), size + more));
        // SAFETY: the payload is live and has this size.
        let moved = unsafe { heap.realloc(payload, layout(size), 2 * size) };
        assert!(!moved.is_null() && moved != payload && holds(moved, size, seed), "{size} bytes");
        payload = moved;
        write(payload, size, 2 * size, seed);
        size *= 2;
    }
    (payload, between)
}

fn give<L: FreeList>(heap: &mut Heap<L>, (payload, between): (*mut u8, Between), size: usize) {
    // SAFETY: the payload is live and has this size.
    unsafe { heap.dealloc(payload, layout(size)) };
    // SAFETY: as above.
    between.into_iter().for_each(|(block, size)| unsafe { heap.dealloc(block, layout(size)) });
}

/// Page faults of this process so far.
fn pages_taken() -> usize {
    // SAFETY: all zeros are a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the call writes to the struct that it is given.
    assert_eq!(unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) }, 0);
    usize::try_from(usage.ru_minflt).expect("a number")
}

/// Growing to 256 MiB takes a page for each page that is written; copying would take two.
fn faults() {
    let mut heap = heap::<Indexed>();
    let (before, size) = (pages_taken(), 256 * MIB);
    let grown = grow(&mut heap, (64 * KIB, size), 0, 1);
    let taken = pages_taken() - before;
    assert!(taken * page() <= size / 100 * 104, "{taken} pages for {size} bytes");
    give(&mut heap, grown, size);
}

#[test]
fn growing_takes_each_page_once() {
    case::run("faults").assert_success();
}

/// The old place of a payload takes no memory any more, and is known to be zero.
#[test]
fn the_old_place_is_empty_and_known_to_be_zero() {
    // The new place begins at the same offset in a page as the old one, or at another one.
    for behind in [page(), 16, 1000] {
        old_place::<Indexed>(behind);
        old_place::<Linked>(behind);
    }
}

fn old_place<L: FreeList>(behind: usize) {
    let mut heap = heap::<L>();
    let first = heap.alloc(layout(8 * MIB));
    write(first, 0, 8 * MIB, 1);
    let small = heap.alloc(layout(behind));
    // SAFETY: the payload is live and has this size.
    let second = unsafe { heap.realloc(first, layout(8 * MIB), 16 * MIB) };
    assert_eq!(second.addr() - first.addr(), 8 * MIB + behind.next_multiple_of(16));
    assert!(holds(second, 8 * MIB, 1));
    assert_eq!(mappings(&heap), 4);
    assert!(resident(first, 8 * MIB) <= 2 * page() && resident(second, 8 * MIB) >= 8 * MIB);
    assert_eq!(heap.trim(), 0, "nothing is left to be given back");
    let zeroed = heap.alloc_zeroed(layout(8 * MIB));
    assert_eq!(zeroed, first);
    assert!(resident(first, 8 * MIB) <= 3 * page());
    assert!(is_zero(zeroed, 8 * MIB));
    // SAFETY: the payloads are live and have these sizes.
    unsafe {
        heap.dealloc(zeroed, layout(8 * MIB));
        heap.dealloc(small, layout(behind));
        heap.dealloc(second, layout(16 * MIB));
    }
    heap.check().expect("the heap is sound");
}

/// If the new place has its pages already, all is copied, and both places keep their pages.
#[test]
fn pages_stay_where_there_are_others() {
    let mut heap = heap::<Indexed>();
    let all = heap.alloc(layout(32 * MIB));
    write(all, 0, 32 * MIB, 1);
    // SAFETY: the block is live and has this size.
    unsafe { heap.dealloc(all, layout(32 * MIB)) };
    let first = heap.alloc(layout(8 * MIB));
    write(first, 0, 8 * MIB, 2);
    heap.alloc(layout(page()));
    // SAFETY: the payload is live and has this size.
    let second = unsafe { heap.realloc(first, layout(8 * MIB), 16 * MIB) };
    assert!(second != first && holds(second, 8 * MIB, 2));
    assert_eq!((resident(first, 8 * MIB), mappings(&heap)), (8 * MIB, 2));
}

/// The bytes from `from` on, for a payload that does not end with a word.
fn write_bytes(payload: *mut u8, bytes: usize, seed: usize) {
    write(payload, 0, bytes, seed);
    for index in bytes / 8 * 8..bytes {
        // SAFETY: the caller's payload has this byte.
        unsafe { payload.add(index).write(word(index, seed) as u8) };
    }
}

fn holds_bytes(payload: *mut u8, bytes: usize, seed: usize) -> bool {
    // SAFETY: the caller's payload has this byte, and it has been written.
    holds(payload, bytes, seed)
        && (bytes / 8 * 8..bytes).all(|index| unsafe { payload.add(index).read() } == word(index, seed) as u8)
}

/// At whatever offset in a page the old and the new place begin, whichever is the lower, and however little larger the
/// new one is, all bytes arrive, and the neighbours of both keep theirs.
#[test]
fn payloads_arrive_wherever_they_lie() {
    let page = page();
    let places = [0, 16, page / 2 + 16, page - 16];
    for (size, new_size) in
        [(MIB, 2 * MIB), (MIB + 16, MIB + 32), (MIB + 999, MIB + 1009), (3 * MIB - 1, 3 * MIB + 2 * page + 1)]
    {
        for (old, new) in places.into_iter().flat_map(|old| places.map(|new| (old, new))) {
            arrives::<Indexed>((old, size), (new, new_size), true);
            arrives::<Indexed>((old, size), (new, new_size), false);
            arrives::<Linked>((old, size), (new, new_size), true);
        }
    }
}

/// A block filled with a pattern of its size.
fn take<L: FreeList>(heap: &mut Heap<L>, size: usize) -> (*mut u8, usize) {
    let block = heap.alloc(layout(size));
    write_bytes(block, size, size);
    (block, size)
}

/// Moves a payload of `old.1` bytes, which begins `old.0` bytes behind the start of a page, to a hole of exactly
/// `new.1` bytes, which begins `new.0` bytes behind the start of a page, above it or below.
fn arrives<L: FreeList>(old: (usize, usize), new: (usize, usize), above: bool) {
    let mut heap = Heap::<L>::with_region_size(64 * MIB).expect("addresses are free");
    let (lower, upper) = if above { (old, new) } else { (new, old) };
    let below = take(&mut heap, page() + lower.0);
    let lower_block = heap.alloc(layout(lower.1));
    let end = (lower.0 + lower.1).next_multiple_of(16) % page();
    let between = take(&mut heap, 2 * page() - end + upper.0);
    let upper_block = heap.alloc(layout(upper.1));
    let around = [below, between, take(&mut heap, page())];
    let (first, hole) = if above { (lower_block, upper_block) } else { (upper_block, lower_block) };
    write_bytes(first, old.1, old.1);
    // SAFETY: the block is live and has this size.
    unsafe { heap.dealloc(hole, layout(new.1)) };
    heap.trim();
    let (before, size) = (resident(first, old.1), old.1);
    // SAFETY: the payload is live and has this size.
    let second = unsafe { heap.realloc(first, layout(size), new.1) };
    assert_eq!((second, first.addr() % page(), second.addr() % page()), (hole, old.0, new.0));
    assert!(holds_bytes(second, size, size), "{size} bytes from {} to {}", old.0, new.0);
    assert!(before > size - page() && resident(first, size) <= 2 * page(), "the pages have gone");
    assert!(around.iter().all(|&(block, size)| holds_bytes(block, size, size)), "{old:?} to {new:?}");
    let zeroed = heap.alloc_zeroed(layout(size));
    assert!(zeroed == first && is_zero(zeroed, size) && holds_bytes(second, size, size));
    assert!(around.iter().all(|&(block, size)| holds_bytes(block, size, size)));
    heap.check().expect("the heap is sound");
}

/// Whether a payload is zero that was allocated as zeroed and not written since.
fn is_zero(payload: *mut u8, bytes: usize) -> bool {
    // SAFETY: the caller's payload has these bytes.
    unsafe { std::slice::from_raw_parts(payload, bytes) }
        .chunks(KIB)
        .all(|chunk| *chunk == [0; KIB][..chunk.len()])
}

/// The pages of lent memory stay where they are.
#[test]
fn lent_memory_is_copied() {
    let bytes = 64 * MIB;
    let (open, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping replaces nothing.
    let start = unsafe { libc::mmap(ptr::null_mut(), bytes, open, kind, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    let lent = NonNull::new(start.cast::<u8>()).expect("a mapping");
    // SAFETY: the memory belongs to this test, and nothing else uses it.
    let mut heap = unsafe { Heap::<Indexed>::from_raw_parts(lent, bytes) }.expect("there is room");
    let before = mappings(&heap);
    let grown = grow(&mut heap, (64 * KIB, 16 * MIB), 0, 1);
    assert_eq!(mappings(&heap), before);
    give(&mut heap, grown, 16 * MIB);
    heap.check().expect("the heap is sound");
}

/// If the limit leaves no room for a new place, the payload stays as it is. It moves once there is room.
#[test]
fn a_limit_holds_for_what_moves() {
    let mut heap = heap::<Indexed>();
    let first = heap.alloc(layout(8 * MIB));
    write(first, 0, 8 * MIB, 1);
    heap.alloc(layout(page()));
    heap.set_limit(20 * MIB);
    // SAFETY: the payload is live and has this size.
    assert!(unsafe { heap.realloc(first, layout(8 * MIB), 16 * MIB) }.is_null());
    assert!(holds(first, 8 * MIB, 1) && mappings(&heap) == 2);
    assert_eq!(heap.set_limit(24 * MIB + page()), 24 * MIB + page());
    // SAFETY: as above.
    let second = unsafe { heap.realloc(first, layout(8 * MIB), 16 * MIB) };
    assert!(!second.is_null() && holds(second, 8 * MIB, 1) && mappings(&heap) > 2);
    heap.check().expect("the heap is sound");
}

/// Mappings that were made by moving disappear when the memory is purged, and their number is bounded.
#[test]
fn mappings_are_bounded_and_removed() {
    let mut heap = heap::<Indexed>();
    let grown = grow(&mut heap, (64 * KIB, 64 * MIB), 0, 1);
    assert!((4..=20).contains(&mappings(&heap)), "{}", mappings(&heap));
    give(&mut heap, grown, 64 * MIB);
    heap.trim();
    assert_eq!(mappings(&heap), 2);
    let mut most = 0;
    let mut grown = Vec::new();
    for number in 0..120 {
        let size = MIB + 8 * KIB * (number % 16);
        grown.push((grow(&mut heap, (size, 2 * size), 0, number), 2 * size));
        most = most.max(mappings(&heap));
        if number % 4 == 3 {
            let (payload, size) = grown.swap_remove(number % grown.len());
            give(&mut heap, payload, size);
        }
    }
    assert!((MOST_MAPPINGS / 2..=MOST_MAPPINGS).contains(&most), "{most} mappings");
    for (payload, size) in grown {
        give(&mut heap, payload, size);
    }
    heap.check().expect("the heap is sound");
    heap.trim();
    assert_eq!((heap.stats().used_bytes, mappings(&heap)), (0, 2));
}

/// `huge_pages` applies to the whole region, whether it asks for huge pages or for none: no pages move any more.
#[test]
fn huge_pages_keep_the_region_whole() {
    let mut heap = heap::<Indexed>();
    if heap.huge_pages(false) {
        let grown = grow(&mut heap, (64 * KIB, 16 * MIB), 0, 1);
        assert_eq!(mappings(&heap), 2);
        give(&mut heap, grown, 16 * MIB);
    }
}

/// A locked part of a payload is a mapping of its own, out of which the system does not move the rest.
#[test]
fn locked_parts_are_copied() {
    let mut heap = heap::<Indexed>();
    let first = heap.alloc(layout(8 * MIB));
    write(first, 0, 8 * MIB, 1);
    // SAFETY: the page belongs to the payload.
    if unsafe { libc::mlock(first.add(4 * MIB).cast(), page()) } != 0 {
        return;
    }
    heap.alloc(layout(page()));
    // SAFETY: the payload is live and has this size.
    let second = unsafe { heap.realloc(first, layout(8 * MIB), 16 * MIB) };
    assert!(second != first && holds(second, 8 * MIB, 1));
    // It still has its contents, and is not taken for zero.
    let zeroed = heap.alloc_zeroed(layout(8 * MIB));
    assert_eq!(zeroed, first);
    assert!(is_zero(zeroed, 8 * MIB));
    heap.check().expect("the heap is sound");
}

/// The sizes of all mappings that are locked.
fn locked_kibibytes() -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("the system tells");
    let (mut size, mut locked) = (0, 0);
    for line in maps.lines() {
        if let Some(number) = line.strip_prefix("Size:") {
            size = number.trim().strip_suffix(" kB").and_then(|number| number.parse().ok()).expect("a size");
        }
        if line.starts_with("VmFlags:") && line.split(' ').any(|flag| flag == "lo") {
            locked += size;
        }
    }
    locked
}

/// A program that has locked all of its memory finds all of it locked after a payload has moved, and after a purge.
fn all_is_locked() {
    let mut heap = heap::<Indexed>();
    let first = heap.alloc(layout(8 * MIB));
    write(first, 0, 8 * MIB, 1);
    heap.alloc(layout(page()));
    // SAFETY: the call has no preconditions.
    if unsafe { libc::mlockall(libc::MCL_CURRENT) } != 0 {
        return;
    }
    let locked = locked_kibibytes();
    // SAFETY: the payload is live and has this size.
    let second = unsafe { heap.realloc(first, layout(8 * MIB), 16 * MIB) };
    assert!(second != first && holds(second, 8 * MIB, 1));
    assert_eq!(heap.trim(), 0);
    assert!(locked_kibibytes() >= locked, "something was unlocked");
    heap.check().expect("the heap is sound");
}

#[test]
fn locked_memory_stays_locked() {
    case::run("all_is_locked").assert_success();
    case::run("neighbours_stay_locked").assert_success();
    case::run("parts_stay_locked").assert_success();
}
