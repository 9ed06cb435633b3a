//! Every system call that the heap makes. A filter stops all others, as the sandboxes of real programs do.
#![cfg(target_os = "linux")]

mod case;

use case::{install, step};
use smalloc::{FreeList, Heap, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

/// Calls that map the region, below the limit of addresses, commit more of it, and make room for a snapshot.
const MAPPING: [libc::c_long; 5] = [
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mprotect,
    libc::SYS_prlimit64,
    // Calls while the heap is registered for `fork`.
    libc::SYS_rt_sigprocmask,
];
/// Calls that purge, and that say what core files contain.
const GIVING: [libc::c_long; 1] = [libc::SYS_madvise];
/// Calls that move large payloads by their pages, if they are not locked.
const MOVING: [libc::c_long; 2] = [libc::SYS_mremap, libc::SYS_msync];
/// Calls that measure how long a snapshot held the lock, if the clock cannot be read without a call.
const CLOCK: [libc::c_long; 1] = [libc::SYS_clock_gettime];
/// Calls of a thread that waits for the lock.
const WAITING: [libc::c_long; 2] = [libc::SYS_nanosleep, libc::SYS_clock_nanosleep];
/// Calls that write why the process ends, and end it: one line, and the calls of the C library's `abort`.
const DYING: [libc::c_long; 6] = [
    libc::SYS_write,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigaction,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_tgkill,
];

static INDEXED: SmallocGlobal<Indexed> = SmallocGlobal::new();
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::new();

const CASES: [case::Case; 13] = [
    ("ready", ready),
    ("lent", lent),
    ("growing", || filtered(&[&MAPPING, &GIVING, &MOVING], || grow(&INDEXED) && grow(&LINKED))),
    ("steady", steady),
    ("coming_and_going", coming_and_going),
    ("growing_again", growing_again),
    ("trimming", || filtered(&[&MAPPING, &GIVING, &MOVING], trim)),
    ("inspecting", || {
        filtered(&[&MAPPING, &GIVING, &MOVING, &CLOCK], || inspect(&INDEXED) && inspect(&LINKED))
    }),
    ("publishing", publishing),
    ("waiting", waiting),
    ("misusing", || filtered(&[&DYING], misuse)),
    ("planted", || filtered(&[&MAPPING, &CLOCK, &WAITING, &DYING], planted)),
    ("mapping_unfiltered", || filtered(&[&CLOCK, &WAITING, &DYING], || grow(&INDEXED))),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

// ---- the filter --------------------------------------------------------------------------------------------------

/// Runs `work` on this thread with a filter that allows only these system calls, and ends the process: with 0 if `work`
/// returns true, with 2 if it returns false, and otherwise as `name_call` does.
fn filtered(allowed: &[&[libc::c_long]], work: impl FnOnce() -> bool) {
    let action = libc::sigaction {
        sa_sigaction: name_call as *const () as usize,
        // SAFETY: no signal is an empty set, which is all zeros.
        sa_mask: unsafe { std::mem::zeroed() },
        sa_flags: libc::SA_SIGINFO,
        sa_restorer: None,
    };
    // SAFETY: the action is valid, and the old one is not requested.
    assert_eq!(unsafe { libc::sigaction(libc::SIGSYS, &action, ptr::null_mut()) }, 0);
    install(&filter(&allowed.concat()));
    let done = work();
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(if done { 0 } else { 2 }) };
}

/// Ends the process with a code that names the system call that was stopped.
extern "C" fn name_call(_: libc::c_int, info: *const libc::siginfo_t, _: *const libc::c_void) {
    // SAFETY: the system passes its information about the signal; the number of the call is its seventh 32-bit word.
    let number = unsafe { info.cast::<i32>().add(6).read() };
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(exit_code(number.into())) };
}

/// Never 0 to 2.
fn exit_code(call: libc::c_long) -> i32 {
    3 + i32::try_from(call % 250).expect("a small number")
}

/// Loads the call's number, compares it with each that is allowed, and traps if it is none of them.
fn filter(allowed: &[libc::c_long]) -> Vec<libc::sock_filter> {
    let always = [libc::SYS_exit_group];
    let calls: Vec<u32> =
        allowed.iter().chain(&always).map(|&call| call.try_into().expect("a number")).collect();
    let mut steps = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        // An allowed call skips all further comparisons and the trap.
        steps.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, calls.len() - index, 0, *call));
    }
    steps.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_TRAP));
    steps.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    steps
}

// ---- what is filtered --------------------------------------------------------------------------------------------

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// Every call, from the first on, for some tens of mebibytes.
fn grow<L: FreeList>(heap: &SmallocGlobal<L>) -> bool {
    let mut good = true;
    for size in [1, 100, 5_000, 300_000, 20 << 20] {
        // SAFETY: layouts are not empty; blocks are live when they are used, and have these layouts.
        unsafe {
            let plain = heap.alloc(layout(size));
            let zeroed = heap.alloc_zeroed(layout(size));
            good &= !plain.is_null() && !zeroed.is_null();
            let moved = heap.realloc(plain, layout(size), 2 * size + 16);
            let kept = heap.realloc(moved, layout(2 * size + 16), size);
            good &= !kept.is_null();
            heap.dealloc(zeroed, layout(size));
            heap.dealloc(kept, layout(size));
        }
        let (block, status) = heap.smalloc(layout(size));
        good &= status.success;
        // SAFETY: the block is live.
        block.into_iter().for_each(|block| unsafe { heap.sfree(block) });
    }
    good && heap.stats().used_bytes == 0
}

/// A heap that does not grow any more asks the system for nothing.
fn steady() {
    assert!(grow(&INDEXED) && grow(&LINKED));
    // Otherwise it would purge memory that the small blocks below do not need.
    assert!(INDEXED.trim() + LINKED.trim() > 0);
    filtered(&[], || (0..1000).all(|_| churn(&INDEXED) && churn(&LINKED)));
}

/// A heap that publishes asks for the time, and for nothing else once its page is there.
fn publishing() {
    let path = std::env::temp_dir().join(format!("smalloc-syscalls-{}", std::process::id()));
    let path = path.to_str().expect("a temporary path is text");
    assert!(grow(&INDEXED));
    INDEXED.publish_to(path).expect("it can be published");
    let live = smalloc::Live::open(path).expect("there is a page");
    std::fs::remove_file(path).expect("the page stays mapped without its name");
    filtered(&[&CLOCK, &GIVING], || (0..1000).all(|_| churn(&INDEXED)) && live.read().calls == 32_000);
}

fn churn<L: FreeList>(heap: &SmallocGlobal<L>) -> bool {
    let mut blocks: [Option<NonNull<u8>>; 16] = [None; 16];
    for (number, place) in blocks.iter_mut().enumerate() {
        *place = heap.smalloc(layout(1 << number)).0;
    }
    for block in blocks.iter().step_by(2).chain(blocks.iter().skip(1).step_by(2)) {
        let Some(block) = *block else { return false };
        // SAFETY: the block is live.
        unsafe { heap.sfree(block) };
    }
    true
}

/// Allocates and frees 64 MiB in blocks of one size.
fn come_and_go(size: usize, blocks: &mut Vec<*mut u8>) -> bool {
    // SAFETY: the layout is not empty.
    blocks.extend((0..(64 << 20) / size).map(|_| unsafe { INDEXED.alloc(layout(size)) }));
    let good = blocks.iter().all(|block| !block.is_null());
    // SAFETY: the blocks are live and have this layout.
    blocks.drain(..).for_each(|block| unsafe { INDEXED.dealloc(block, layout(size)) });
    good
}

/// Memory that is freed and allocated again, as one block or as many, is not purged in between once the heap has seen
/// that.
fn coming_and_going() {
    const SIZES: [usize; 3] = [64 << 20, 100 << 10, 1 << 10];
    let mut blocks = Vec::with_capacity(64 << 10);
    let round = |blocks: &mut Vec<*mut u8>| {
        SIZES.iter().all(|&size| come_and_go(size, blocks) && come_and_go(size, blocks))
    };
    assert!((0..5).all(|_| round(&mut blocks)));
    filtered(&[], || (0..10).all(|_| round(&mut blocks)));
}

/// A payload is doubled from 64 KiB to 32 MiB again and again, in the same places, past blocks as large as itself. Once
/// each place has had pages for a while, they stay, and the payload is copied.
fn growing_again() {
    let round = || {
        let (mut size, mut good) = (64 << 10, true);
        let mut between = [(ptr::null_mut(), 0); 9];
        // SAFETY: layouts are not empty; blocks are live when they are used, and have these layouts.
        unsafe {
            let mut block = INDEXED.alloc(layout(size));
            for (behind, its_size) in &mut between {
                block.write_bytes(1, size);
                (*behind, *its_size) = (INDEXED.alloc(layout(size)), size);
                let moved = INDEXED.realloc(block, layout(size), 2 * size);
                good &= !moved.is_null() && !behind.is_null() && moved != block;
                (block, size) = (moved, 2 * size);
            }
            between.iter().for_each(|&(behind, size)| INDEXED.dealloc(behind, layout(size)));
            INDEXED.dealloc(block, layout(size));
        }
        good
    };
    assert!((0..20).all(|_| round()));
    filtered(&[&GIVING], || (0..20).all(|_| round()));
}

/// Memory made ready is handed out, resized and freed without a system call, from the first time on.
fn ready() {
    static REGIONS: SmallocGlobal<Indexed, 2> = SmallocGlobal::with_region_size(256 << 20);
    const BLOCK: usize = 70_000;
    let mut blocks = Vec::with_capacity(1000);
    assert!(INDEXED.make_ready(128 << 20) && REGIONS.make_ready(1 << 20));
    assert!(!REGIONS.make_ready(1 << 30), "larger than a region");
    filtered(&[], || {
        // SAFETY: layouts are not empty; blocks are live when they are used, and have these layouts.
        let round = |blocks: &mut Vec<*mut u8>| unsafe {
            blocks.extend((0..1000).map(|_| INDEXED.alloc(layout(BLOCK))));
            let good = blocks.iter().all(|block| !block.is_null());
            blocks.iter().for_each(|block| block.write_bytes(1, BLOCK));
            blocks.drain(..).for_each(|block| INDEXED.dealloc(block, layout(BLOCK)));
            let (mut block, mut size) = (INDEXED.alloc(layout(BLOCK)), BLOCK);
            let wall = INDEXED.alloc(layout(1));
            while !block.is_null() && size < 32 << 20 {
                block = INDEXED.realloc(block, layout(size), 2 * size);
                size *= 2;
            }
            INDEXED.dealloc(block, layout(size));
            INDEXED.dealloc(wall, layout(1));
            let other = REGIONS.alloc(layout(1 << 19));
            REGIONS.dealloc(other, layout(1 << 19));
            good && !other.is_null()
        };
        (0..5).all(|_| round(&mut blocks)) && (0..10_000).all(|_| churn(&INDEXED))
    });
}

/// A heap in lent memory makes no system call.
fn lent() {
    let mut memory = vec![0xAA_u8; 8 << 20];
    let start = NonNull::new(memory.as_mut_ptr()).expect("memory");
    filtered(&[], move || {
        // SAFETY: the memory outlives the heap, and nothing else uses it.
        let heap = unsafe { Heap::<Indexed>::from_raw_parts(start, 8 << 20) };
        let Ok(mut heap) = heap else { return false };
        let blocks = [1, 5_000, 4 << 20].map(|size| (heap.alloc_zeroed(layout(size)), layout(size)));
        let good = blocks.iter().all(|block| !block.0.is_null());
        // SAFETY: the blocks are live and have these layouts.
        blocks.iter().for_each(|&(block, layout)| unsafe { heap.dealloc(block, layout) });
        good && heap.trim() == 0 && heap.check().is_ok()
    });
}

fn trim() -> bool {
    let grown = grow(&INDEXED);
    let (given, again) = (INDEXED.trim(), INDEXED.trim());
    grown && given > 0 && again == 0
}

fn inspect<L: FreeList>(heap: &SmallocGlobal<L>) -> bool {
    let grown = grow(heap);
    let copied = heap.snapshot().is_ok_and(|snapshot| snapshot.free_segments().count() == 1);
    grown && copied && heap.check().is_ok() && heap.try_stats().is_some()
}

/// This thread waits for others, which have no filter.
fn waiting() {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    for _ in 0..2 {
        std::thread::spawn(|| {
            while !ENOUGH.load(Ordering::Relaxed) {
                assert!(INDEXED.check().is_ok() && churn(&INDEXED));
            }
        });
    }
    let kept: Vec<_> = (0..500).map(|number| INDEXED.smalloc(layout(1 + number % 100)).0).collect();
    assert!(kept.iter().all(Option::is_some));
    filtered(&[&MAPPING, &GIVING, &WAITING], || {
        // If that takes for ever, no thread waits, and the case counts as hanging.
        let enough = INDEXED.stats().contended + 20;
        let mut churned = true;
        while INDEXED.stats().contended < enough {
            churned &= churn(&INDEXED);
        }
        churned
    });
}

fn misuse() -> bool {
    // SAFETY: none; this ends the process.
    unsafe { INDEXED.dealloc(ptr::without_provenance_mut(1), layout(1)) };
    false
}

fn planted() -> bool {
    // SAFETY: the call has no preconditions.
    unsafe { libc::getppid() > 0 }
}

// ---- the tests ---------------------------------------------------------------------------------------------------

fn assert_filtered(case: &str) {
    let outcome = case::run(case);
    let code = outcome.status.code();
    let stopped = (0..250).find(|&call| code == Some(exit_code(call)));
    assert!(
        code == Some(0),
        "{case}: {}, call {stopped:?}, or that and 250\n{}",
        outcome.status,
        outcome.stderr
    );
}

#[test]
fn growing_maps_commits_and_purges() {
    assert_filtered("growing");
}

#[test]
fn steady_heaps_make_no_call() {
    assert_filtered("steady");
}

#[test]
fn recurring_memory_makes_no_call() {
    assert_filtered("coming_and_going");
}

#[test]
fn a_payload_that_grows_again_finds_its_pages() {
    assert_filtered("growing_again");
}

#[test]
fn memory_made_ready_makes_no_call() {
    assert_filtered("ready");
}

#[test]
fn lent_memory_needs_no_system() {
    assert_filtered("lent");
}

#[test]
fn trimming_advises() {
    assert_filtered("trimming");
}

#[test]
fn inspecting_maps_memory_and_reads_the_clock() {
    assert_filtered("inspecting");
}

#[test]
fn publishing_reads_the_clock() {
    assert_filtered("publishing");
}

#[test]
fn waiting_sleeps() {
    assert_filtered("waiting");
}

#[test]
fn misuse_writes_and_aborts() {
    let line = "smalloc: foreign pointer: 0x1 is not from this heap, which has allocated nothing yet (layout of 1 bytes)\n";
    case::run("misusing").assert_aborts(line);
}

/// The filter stops other calls, and the test knows which call it was, so the tests above mean something.
#[test]
fn the_filter_stops_other_calls() {
    assert_eq!(case::run("planted").status.code(), Some(exit_code(libc::SYS_getppid)));
    assert_eq!(case::run("mapping_unfiltered").status.code(), Some(exit_code(libc::SYS_prlimit64)));
}
