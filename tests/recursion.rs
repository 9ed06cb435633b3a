//! Re-entry on the thread that holds the lock: a signal handler that uses the heap ends the process, and never hangs.
//!
//! The signal is provoked, so that it arrives while the lock is held: the heap's own memory is closed, the next call
//! faults in the middle of its work, and the handler of that fault enters the heap again.

mod case;

use case::{Outcome, RECURSION, mappings, on_signal};
use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

static INDEXED: SmallocGlobal<Indexed> = SmallocGlobal::with_region_size(REGION);
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(REGION);
static PURGED: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20);

const REGION: usize = 1 << 20;
const PIECE: Layout = Layout::new::<[u8; 64]>();
/// Too large for any hole in these cases.
const LARGER: Layout = Layout::new::<[u8; 2000]>();
/// A file that no call reaches.
const FILE: &str = "/dev/null";
/// The exit code of a handler whose call has returned.
const RETURNED: i32 = 77;

/// A call that takes the lock: its name, and its use of a block.
type Call<L> = (&'static str, fn(&SmallocGlobal<L>, *mut u8));

fn calls<L: FreeList>() -> [Call<L>; 24] {
    [
        // SAFETY: layouts are not empty, and the block is live and has the layout PIECE.
        ("alloc", |heap, _| _ = unsafe { heap.alloc(PIECE) }),
        ("alloc_large", |heap, _| _ = unsafe { heap.alloc(LARGER) }),
        ("alloc_zeroed", |heap, _| _ = unsafe { heap.alloc_zeroed(PIECE) }),
        ("dealloc", |heap, block| unsafe { heap.dealloc(block, PIECE) }),
        ("realloc_down", |heap, block| _ = unsafe { heap.realloc(block, PIECE, 16) }),
        ("realloc_up", |heap, block| _ = unsafe { heap.realloc(block, PIECE, 1000) }),
        ("smalloc", |heap, _| _ = heap.smalloc(PIECE)),
        ("sfree", |heap, block| unsafe { heap.sfree(NonNull::new(block).expect("a block")) }),
        ("stats", |heap, _| _ = heap.stats()),
        ("snapshot", |heap, _| _ = heap.snapshot()),
        ("check", |heap, _| _ = heap.check()),
        ("init", |heap, _| _ = heap.init()),
        ("realloc_zeroed", |heap, block| _ = unsafe { heap.realloc_zeroed(block, PIECE, 1000) }),
        ("trim", |heap, _| _ = heap.trim()),
        ("set_limit", |heap, _| _ = heap.set_limit(REGION)),
        ("huge_pages", |heap, _| _ = heap.huge_pages(false)),
        ("region_stats", |heap, _| _ = heap.region_stats(0)),
        ("snapshots", |heap, _| _ = heap.snapshots()),
        ("measure", |heap, _| _ = heap.measure(|| ())),
        ("reset_peaks", |heap, _| heap.reset_peaks()),
        ("record_to", |heap, _| _ = heap.record_to(FILE)),
        ("stop_recording", |heap, _| _ = heap.stop_recording()),
        ("publish_to", |heap, _| _ = heap.publish_to(FILE)),
        ("stop_publishing", |heap, _| _ = heap.stop_publishing()),
    ]
}

/// The calls that read the segment map while they hold the lock, and so can be made to fault.
const FAULTING: [&str; 12] = [
    "alloc",
    "alloc_large",
    "alloc_zeroed",
    "dealloc",
    "realloc_up",
    "smalloc",
    "sfree",
    "snapshot",
    "snapshots",
    "check",
    "realloc_zeroed",
    "trim",
];

/// The call that the handler makes, and its block.
static IN_HANDLER: AtomicUsize = AtomicUsize::new(0);
static BLOCK: AtomicUsize = AtomicUsize::new(0);

/// The handler makes the call in `IN_HANDLER`, or `try_stats`, which must not wait and so must return.
fn reenter<L: FreeList>(heap: &SmallocGlobal<L>) -> ! {
    let number = IN_HANDLER.load(Ordering::Relaxed);
    let block = ptr::with_exposed_provenance_mut(BLOCK.load(Ordering::Relaxed));
    let code = match calls().get(number) {
        Some((_, call)) => {
            call(heap, block);
            RETURNED
        }
        None => i32::from(heap.try_stats().is_some()),
    };
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(code) }
}

extern "C" fn reenter_indexed(_: libc::c_int) {
    reenter(&INDEXED);
}

extern "C" fn reenter_linked(_: libc::c_int) {
    reenter(&LINKED);
}

/// Makes a call that faults while it holds the lock. `inner` is the number of the call that the handler makes.
fn enter_twice<L: FreeList>(
    heap: &SmallocGlobal<L>,
    handler: extern "C" fn(libc::c_int),
    outer: &str,
    inner: usize,
) {
    let blocks: Vec<NonNull<u8>> = (0..30).map(|_| heap.smalloc(PIECE).0.expect("there is room")).collect();
    for block in blocks.iter().step_by(3) {
        // SAFETY: the block is live.
        unsafe { heap.sfree(*block) };
    }
    let (_, outer) = calls().into_iter().find(|(name, _)| *name == outer).expect("there is such a call");
    IN_HANDLER.store(inner, Ordering::Relaxed);
    BLOCK.store(blocks[16].as_ptr().expose_provenance(), Ordering::Relaxed);
    on_signal(libc::SIGSEGV, handler);
    on_signal(libc::SIGBUS, handler);
    close_tables(blocks[0].as_ptr().addr());
    outer(heap, blocks[13].as_ptr());
}

/// Closes the committed tables of a heap, which lie behind its region and take less than a sixteenth of it.
fn close_tables(base: usize) {
    let (from, to) = (base + REGION, base + REGION + REGION / 16);
    let open = mappings()
        .into_iter()
        .filter(|(start, end, permissions)| permissions == "rw-p" && *start >= from && *end <= to);
    let mut closed = 0;
    for (start, end, _) in open {
        let start = ptr::with_exposed_provenance_mut(start);
        // SAFETY: only the heap uses this memory, and its next use is meant to fault.
        assert_eq!(unsafe { libc::mprotect(start, end - start.addr(), libc::PROT_NONE) }, 0);
        closed += 1;
    }
    assert!(closed > 0, "no table found behind {base:#x}");
}

/// Reads the statistics in a loop and in the handler of a timer, until it fires while the lock is held.
fn storm() {
    INDEXED.init().expect("a small region can be mapped");
    strike(take_numbers);
    loop {
        let _ = INDEXED.stats();
    }
}

/// Purges in a loop, and in the handler requests memory that is being purged: the lock is free then, but the thread
/// would wait for itself.
fn purge_storm() {
    const BLOCK: Layout = Layout::new::<[u8; 16 << 20]>();
    strike(take_and_give);
    loop {
        // SAFETY: the layout is not empty.
        let block = unsafe { PURGED.alloc(BLOCK) };
        assert!(!block.is_null());
        // SAFETY: the block is live and has this size.
        unsafe { block.write_bytes(1, BLOCK.size()) };
        // SAFETY: the block is live and has this layout.
        unsafe { PURGED.dealloc(block, BLOCK) };
        PURGED.trim();
    }
}

/// Leaves the heap alone while its lock is held, which is another case.
extern "C" fn take_and_give(_: libc::c_int) {
    if PURGED.try_stats().is_none() {
        return;
    }
    if let (Some(block), _) = PURGED.smalloc(PIECE) {
        // SAFETY: the block is live.
        unsafe { PURGED.sfree(block) };
    }
}

/// Makes the system call a handler twenty thousand times a second.
fn strike(handler: extern "C" fn(libc::c_int)) {
    on_signal(libc::SIGALRM, handler);
    let tick = libc::timeval { tv_sec: 0, tv_usec: 50 };
    let timer = libc::itimerval { it_interval: tick, it_value: tick };
    // SAFETY: the timer is valid, and the old one is not requested.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) }, 0);
}

extern "C" fn take_numbers(_: libc::c_int) {
    let _ = INDEXED.stats();
}

/// Not a test: the tests below start it, with `<list>/<call>/<number of the call in the handler>` as the name of a
/// case.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    let name = std::env::var(case::CASE).expect("the test that starts this names a case");
    case::leave_no_core();
    let parts: Vec<&str> = name.split('/').collect();
    match parts[..] {
        ["storm"] => storm(),
        ["purge_storm"] => purge_storm(),
        ["indexed", outer, inner] => {
            enter_twice(&INDEXED, reenter_indexed, outer, inner.parse().expect("a number"));
        }
        ["linked", outer, inner] => {
            enter_twice(&LINKED, reenter_linked, outer, inner.parse().expect("a number"));
        }
        _ => panic!("no such case: {name}"),
    }
}

fn run(list: &str, outer: &str, inner: usize) -> Outcome {
    case::run(&format!("{list}/{outer}/{inner}"))
}

fn assert_recursion(outcome: &Outcome) {
    outcome.assert_aborts(RECURSION);
    assert!(outcome.took < Duration::from_secs(10), "{}: {:?}", outcome.name, outcome.took);
}

/// Every call in a handler that interrupts another call.
#[test]
fn every_call_that_reenters_aborts() {
    for inner in 0..calls::<Indexed>().len() {
        assert_recursion(&run("indexed", "smalloc", inner));
        assert_recursion(&run("linked", "dealloc", inner));
    }
}

/// A handler that interrupts every call.
#[test]
fn every_call_that_is_reentered_aborts() {
    // A hardened heap neither purges nor checks whether it should.
    let looks = |outer: &&str| !(cfg!(feature = "hardened") && *outer == "trim");
    for outer in FAULTING.into_iter().filter(looks) {
        assert_recursion(&run("indexed", outer, 0));
        assert_recursion(&run("linked", outer, 3));
    }
}

/// `try_stats` finds the lock held, returns `None`, and the program continues.
#[test]
fn try_stats_never_waits_for_its_own_thread() {
    for list in ["indexed", "linked"] {
        run(list, "smalloc", usize::MAX).assert_success();
    }
}

/// A timer that fires at any moment, as those of real programs do.
#[test]
fn timer_that_reenters_aborts() {
    for _ in 0..5 {
        assert_recursion(&case::run("storm"));
        if !cfg!(feature = "hardened") {
            assert_recursion(&case::run("purge_storm"));
        }
    }
}
