//! The queue of remote frees lies between two regions. A write below the second region must not reach it. If the system
//! has no memory for a queue, remote frees wait for the lock.

mod case;

use case::page;
use smalloc::{Indexed, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;
use std::sync::Barrier;
use std::thread;

const REGION: usize = 1 << 20;
/// Bytes from one region to the next.
const STRIDE: usize = 2 << 20;
const LAYOUT: Layout = Layout::new::<[u8; 64]>();

static HEAP: SmallocGlobal<Indexed, 2> = SmallocGlobal::with_region_size(REGION);

const CASES: [case::Case; 2] = [("write_below", write_below), ("refused", refused)];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn alloc() -> usize {
    // SAFETY: the layout has a size.
    unsafe { HEAP.alloc(LAYOUT) }.expose_provenance()
}

fn free(block: usize) {
    // SAFETY: the block is live and has this layout.
    unsafe { HEAP.dealloc(std::ptr::with_exposed_provenance_mut(block), LAYOUT) };
}

/// Runs `work` in a thread whose home is the second region. Homes are assigned in order, and the caller has the first.
fn elsewhere<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| scope.spawn(work).join().expect("the thread ends"))
}

/// Writes below the first block of the second region.
fn write_below() {
    let first = alloc();
    let second = elsewhere(alloc);
    assert_eq!(second, first + STRIDE);
    let below = std::ptr::with_exposed_provenance_mut::<u8>(second - 1);
    println!("the last line");
    // SAFETY: none; misuse is tested here.
    unsafe { below.write_volatile(1) };
    println!("nothing has stopped it");
}

#[test]
fn writes_below_a_region_fault() {
    let outcome = case::run("write_below");
    assert_eq!(outcome.status.signal(), Some(libc::SIGSEGV), "{}{}", outcome.stdout, outcome.stderr);
    assert!(outcome.stdout.contains("the last line"), "{}", outcome.stdout);
}

/// Without a queue, frees wait for the lock.
fn refused() {
    let mask = u32::try_from(STRIDE - 1).expect("a mask");
    let ring = u32::try_from(STRIDE - 2 * page()).expect("an offset");
    // The filter applies to this thread alone. The stack of another thread may be at such an address.
    elsewhere(|| {
        case::refuse(libc::SYS_mprotect, 0, mask, ring);
        HEAP.init().expect("the regions are mapped");
    });
    let [blocks, threads] = [1000, 4];
    let start = Barrier::new(threads);
    let all: Vec<usize> = (0..blocks).map(|_| alloc()).collect();
    thread::scope(|scope| {
        for part in all.chunks(blocks / threads) {
            scope.spawn(|| {
                start.wait();
                part.iter().for_each(|&block| free(block));
            });
        }
    });
    let stats = HEAP.stats();
    assert_eq!((stats.allocs, stats.frees, stats.handed_over), (blocks as u64, blocks as u64, 0));
    assert_eq!(HEAP.check(), Ok(()));
}

#[test]
fn frees_wait_if_there_is_no_queue() {
    case::run("refused").assert_success();
}

/// With a queue frees are handed over, so the case above means something.
#[test]
fn frees_are_handed_over() {
    static HELD: SmallocGlobal<Indexed, 2> = SmallocGlobal::with_region_size(REGION);
    // SAFETY: the layout has a size.
    let block = unsafe { HELD.alloc(LAYOUT) }.expose_provenance();
    // SAFETY: the block is live and has this layout.
    elsewhere(|| unsafe {
        HELD.alloc(LAYOUT);
        HELD.dealloc(std::ptr::with_exposed_provenance_mut(block), LAYOUT);
    });
    assert_eq!(HELD.stats().handed_over, 1);
}
