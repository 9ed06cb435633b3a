//! Programs that lock their memory (`mlockall`), as real-time programs do, under a limit on locked memory.
#![cfg(target_os = "linux")]

mod case;

use case::status_bytes;
use smalloc::{Heap, Indexed, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};

/// The program's own heap is mapped before `main`, and small enough to be locked.
#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
static LATE: SmallocGlobal = SmallocGlobal::new();
static SEVERAL: SmallocGlobal<Indexed, 3> = SmallocGlobal::with_region_size(1 << 30);

const MEBIBYTE: usize = 1 << 20;
/// Below 8 MiB, the limit of most systems, which a process without rights cannot raise.
const LIMIT: u64 = 7 << 20;
/// An address at which nothing is mapped.
const PLACE: usize = 0x1000_0000_0000;
const CASES: [case::Case; 2] = [("late", late), ("current", current)];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

/// Sets the limit and gives up the right to exceed it. False if the process may not lock so much.
fn limit(bytes: u64) -> bool {
    let limits = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the call reads the struct that it is given.
    let limited = unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &limits) } == 0;
    // SAFETY: the call gives up rights, and fails for a process that has none.
    unsafe { libc::setuid(65534) };
    limited
}

fn lock(flags: libc::c_int) -> bool {
    // SAFETY: the call has no preconditions.
    unsafe { libc::mlockall(flags) == 0 }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, 16).expect("a layout")
}

/// The region has its whole size, committed memory is locked, and a request that would exceed the limit gets null.
fn late() {
    assert!(limit(LIMIT), "a process may lower its limit");
    assert!(lock(libc::MCL_FUTURE), "locking what is mapped later needs no memory now");
    let before = status_bytes("VmLck");
    LATE.init().expect("the reservation is not what is locked");
    SEVERAL.init().expect("nor this");
    let placed = Heap::<Indexed>::at_base(PLACE, 1 << 30).expect("nor at an address");
    assert_eq!((LATE.stats().region_size, SEVERAL.stats().region_size), (32 << 30, 3 << 30));
    assert_eq!((placed.base().addr(), placed.region_size()), (PLACE, 1 << 30));
    let taken = Heap::<Indexed>::at_base(PLACE, 1 << 30).expect_err("a heap is there");
    assert_eq!(taken.errno, libc::EEXIST);
    let locked = status_bytes("VmLck") - before;
    assert!((1..2 << 20).contains(&locked), "{locked} bytes for three empty heaps");
    // SAFETY: the layout is not empty.
    let block = unsafe { LATE.alloc(layout(MEBIBYTE)) };
    assert!(!block.is_null());
    let locked = status_bytes("VmLck") - before;
    assert!((1 << 20..4 << 20).contains(&locked), "{locked} bytes for 1 MiB");
    // Locked memory is in RAM, and stays there.
    let mut pages = vec![0_u8; MEBIBYTE / case::page()];
    // SAFETY: the block begins the region, at a page, and there is a byte for each of its pages.
    assert_eq!(unsafe { libc::mincore(block.cast(), MEBIBYTE, pages.as_mut_ptr()) }, 0);
    assert!(pages.iter().all(|page| page & 1 == 1));
    // SAFETY: the block is live and has this layout.
    unsafe { LATE.dealloc(block, layout(MEBIBYTE)) };
    assert_eq!(LATE.trim(), 0);
    assert_eq!(status_bytes("VmLck") - before, locked);
    // SAFETY: the layout is not empty.
    assert!(unsafe { LATE.alloc(layout(2 * LIMIT as usize)) }.is_null());
    // SAFETY: as above; the block is where the first one was.
    assert_eq!(unsafe { LATE.alloc(layout(MEBIBYTE)) }, block);
    // SAFETY: as above.
    assert!(!unsafe { SEVERAL.alloc(layout(100)) }.is_null());
    assert_eq!((LATE.check(), SEVERAL.check()), (Ok(()), Ok(())));
}

/// A region that fits into the limit together with the rest of the program can be locked as a whole.
fn current() {
    let words: Vec<String> = (0..100).map(|word| word.to_string()).collect();
    // The system counts all addresses, not only accessible ones: most of them are the stack of the test's thread.
    let mapped = status_bytes("VmSize");
    assert!(mapped < 256 << 20, "{mapped} bytes");
    if limit(mapped + (1 << 20)) {
        assert!(lock(libc::MCL_CURRENT | libc::MCL_FUTURE), "the program fits");
    }
    assert_eq!(words.concat().len(), 190);
    assert_eq!(HEAP.trim(), 0);
}

#[test]
fn used_memory_is_locked_and_the_reservation_is_not() {
    let outcome = case::run("late");
    outcome.assert_success();
    assert_eq!(outcome.stderr, "");
}

#[test]
fn a_small_region_can_be_locked_as_a_whole() {
    case::run("current").assert_success();
}
