//! `fork` in a signal handler that has interrupted a call on a heap: parent and child go on, and each finishes the
//! call.
//!
//! The program's own allocator is another heap, which `fork` can interrupt too.

mod case;

use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::thread::JoinHandleExt;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// The handler may interrupt an allocation of the test itself. The C library must not serve it, because its `fork`
/// would wait for the lock that the interrupted call holds.
#[global_allocator]
static TESTS_OWN: SmallocGlobal = SmallocGlobal::new();

static INDEXED: SmallocGlobal = SmallocGlobal::with_region_size(1 << 30);
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(1 << 30);
static SEVERAL: SmallocGlobal<Indexed, 3> = SmallocGlobal::with_region_size(256 << 20);
static FIRST_USED: [SmallocGlobal; 24] = [const { SmallocGlobal::with_region_size(64 << 20) }; 24];

/// Forks in each case.
const FORKS: u32 = 150;
const CASES: [case::Case; 7] = [
    ("indexed", || interrupted(&INDEXED, || {})),
    ("linked", || interrupted(&LINKED, || {})),
    ("several_regions", || interrupted(&SEVERAL, || {})),
    ("recorded", recorded),
    ("first_calls", first_calls),
    ("beside_others", || beside_others(|| interrupted(&SEVERAL, || {}))),
    ("two_that_fork", || beside_others(two_that_fork)),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

#[test]
fn both_processes_finish_the_interrupted_call() {
    case::run("indexed").assert_success();
    case::run("linked").assert_success();
    case::run("several_regions").assert_success();
}

#[test]
fn an_interrupted_recording_stays_the_parents() {
    case::run("recorded").assert_success();
}

#[test]
fn first_calls_can_be_interrupted() {
    case::run("first_calls").assert_success();
}

#[test]
fn other_threads_do_not_block_the_fork() {
    case::run("beside_others").assert_success();
}

/// Each of them holds a lock that the other one waits for.
#[test]
fn two_threads_can_fork_at_once() {
    case::run("two_that_fork").assert_success();
}

// ---- the handler -------------------------------------------------------------------------------------------------

/// Number of forks so far.
static COUNT: AtomicU32 = AtomicU32::new(0);
/// Set in a child that has returned from the handler.
static IN_CHILD: AtomicBool = AtomicBool::new(false);
/// The first status of a child that failed.
static BAD_STATUS: AtomicI32 = AtomicI32::new(0);

/// The thread to be interrupted.
static TARGET: AtomicU64 = AtomicU64::new(0);

extern "C" fn fork_here(signal: libc::c_int) {
    let target = TARGET.load(Ordering::Relaxed);
    // SAFETY: the call has no preconditions.
    if unsafe { libc::pthread_self() } != target {
        // SAFETY: the thread lives as long as the timer runs.
        unsafe { libc::pthread_kill(target, signal) };
        return;
    }
    // SAFETY: this test is about such a fork; the child uses only the heap.
    let child = unsafe { libc::fork() };
    if child == 0 {
        case::on_signal(libc::SIGALRM, end_hanging_child);
        // SAFETY: the call has no preconditions.
        unsafe { libc::alarm(20) };
        return IN_CHILD.store(true, Ordering::Relaxed);
    }
    let mut status = 0;
    // SAFETY: the child is this process's own, and the status may be written.
    while unsafe { libc::waitpid(child, &mut status, 0) } < 0 && case::errno() == libc::EINTR {}
    if status != 0 || child < 0 {
        let _ = BAD_STATUS.compare_exchange(
            0,
            status | i32::from(child < 0),
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }
    COUNT.fetch_add(1, Ordering::Relaxed);
    set_timer(PAUSE.load(Ordering::Relaxed));
}

/// Microseconds from one signal to the next.
static PAUSE: AtomicI64 = AtomicI64::new(0);

extern "C" fn end_hanging_child(_: libc::c_int) {
    // SAFETY: ends the child at once.
    unsafe { libc::_exit(4) };
}

/// Makes the system send a signal to this thread after so many microseconds, and again so long after each handler; 0
/// stops it.
fn set_timer(microseconds: i64) {
    // SAFETY: the call has no preconditions.
    TARGET.store(unsafe { libc::pthread_self() }, Ordering::Relaxed);
    PAUSE.store(microseconds, Ordering::Relaxed);
    let (none, time) =
        (libc::timeval { tv_sec: 0, tv_usec: 0 }, libc::timeval { tv_sec: 0, tv_usec: microseconds });
    let timer = libc::itimerval { it_interval: none, it_value: time };
    // SAFETY: the times are valid, and the old ones are not requested.
    assert_eq!(unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) }, 0);
}

fn is_enough() -> bool {
    COUNT.load(Ordering::Relaxed) >= FORKS || BAD_STATUS.load(Ordering::Relaxed) != 0
}

/// A block and its layout.
type Block = (*mut u8, Layout);

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// A few calls of each kind, most of them short. Some grow the heap, move a payload by its pages, or purge.
fn calls<L: FreeList, const REGIONS: usize>(
    heap: &SmallocGlobal<L, REGIONS>,
    step: usize,
    kept: &mut [Block; 64],
) {
    let size = if step.is_multiple_of(500) { 3 << 20 } else { 16 + step * 37 % 2000 };
    let (block, old) = kept[step % 64];
    // SAFETY: layouts are not empty; blocks are live when they are used, and have these layouts.
    unsafe {
        if step.is_multiple_of(3) && !block.is_null() {
            kept[step % 64] = (heap.realloc(block, old, size), layout(size));
        } else {
            if !block.is_null() {
                heap.dealloc(block, old);
            }
            let zeroed = heap.alloc_zeroed(layout(size));
            assert!(*zeroed == 0 && *zeroed.add(size - 1) == 0);
            kept[step % 64] = (zeroed, layout(size));
        }
        let (block, layout) = kept[step % 64];
        assert!(!block.is_null());
        // The first page and the last byte, which are found dirty later.
        block.write_bytes(1, layout.size().min(4096));
        block.add(layout.size() - 1).write(1);
    }
    if step.is_multiple_of(1000) {
        heap.trim();
        assert_eq!(heap.stats().failures, 0);
    }
}

/// Ends a child, with 0 if the heap is consistent and works.
fn end_child<L: FreeList, const REGIONS: usize>(
    heap: &SmallocGlobal<L, REGIONS>,
    kept: &mut [Block; 64],
) -> ! {
    (0..200).for_each(|step| calls(heap, step, kept));
    let threaded = thread::scope(|scope| {
        scope.spawn(|| (1..200).for_each(|step| calls(heap, step, &mut NONE.clone()))).join().is_ok()
    });
    let whole = heap.check().is_ok() && threaded;
    // SAFETY: ends the child at once.
    unsafe { libc::_exit(if whole { 0 } else { 3 }) };
}

const NONE: [Block; 64] = [(ptr::null_mut(), Layout::new::<u8>()); 64];

/// Calls a heap until enough forks have interrupted it.
fn interrupted<L: FreeList, const REGIONS: usize>(heap: &SmallocGlobal<L, REGIONS>, in_child: impl Fn()) {
    case::on_signal(libc::SIGALRM, fork_here);
    let (mut kept, mut step) = (NONE, 0);
    set_timer(300);
    while !is_enough() {
        calls(heap, step, &mut kept);
        step += 1;
        if IN_CHILD.load(Ordering::Relaxed) {
            in_child();
            end_child(heap, &mut kept);
        }
    }
    set_timer(0);
    assert_eq!(BAD_STATUS.load(Ordering::Relaxed), 0, "a child's status");
    assert_eq!(heap.check(), Ok(()));
}

fn recorded() {
    let file = |name: &str| {
        let path = std::env::temp_dir().join(format!("smalloc-{name}-{}", std::process::id()));
        path.to_str().expect("a temporary path is text").to_owned()
    };
    let (recording, page) = (file("handler"), file("handler-live"));
    SEVERAL.record_to(&recording).expect("it can be recorded");
    SEVERAL.publish_to(&page).expect("it can be published");
    interrupted(&SEVERAL, || ());
    let recorded = SEVERAL.stop_recording().expect("it is recorded");
    assert!(recorded.complete && SEVERAL.stop_publishing());
    let bytes = std::fs::metadata(&recording).expect("it was written").len();
    let head = smalloc::recording::HEAD_BYTES as u64;
    assert_eq!(bytes, head + recorded.records * smalloc::recording::RECORD_BYTES as u64);
    std::fs::remove_file(recording).expect("it was made here");
    std::fs::remove_file(page).expect("it was made here");
}

/// First calls on heaps, which register and map them.
fn first_calls() {
    case::on_signal(libc::SIGALRM, fork_here);
    set_timer(50);
    for heap in &FIRST_USED {
        let mut kept = NONE;
        for step in 1..20 {
            calls(heap, step, &mut kept);
            if IN_CHILD.load(Ordering::Relaxed) {
                end_child(heap, &mut kept);
            }
        }
    }
    set_timer(0);
    assert_eq!(BAD_STATUS.load(Ordering::Relaxed), 0, "a child's status");
    assert!(COUNT.load(Ordering::Relaxed) > 5);
}

/// Runs `work` beside a thread that takes all locks, and one that forks on its own.
fn beside_others(work: impl FnOnce()) {
    let done = AtomicBool::new(false);
    let mut signals = std::mem::MaybeUninit::uninit();
    // SAFETY: the set may be written. Threads inherit the signals that are blocked here.
    let signals = unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), ptr::null_mut());
        signals.assume_init()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut kept = NONE;
            for step in 1.. {
                calls(&SEVERAL, step, &mut kept);
                assert_eq!(SEVERAL.stats().failures, 0);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(case::wait(case::fork(|| i32::from(SEVERAL.check().is_err()))), 0);
                thread::sleep(Duration::from_millis(3));
            }
        });
        // SAFETY: the set was filled above.
        unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &signals, ptr::null_mut()) };
        work();
        done.store(true, Ordering::Relaxed);
    });
}

/// Forks and ends the child at once, as a program that starts a debugger does: the other thread may have been inside a
/// call.
extern "C" fn fork_and_end(_: libc::c_int) {
    // SAFETY: the child does nothing.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's own, and the status may be written.
    while unsafe { libc::waitpid(child, &mut status, 0) } < 0 && case::errno() == libc::EINTR {}
    assert_eq!(status, 0);
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// Two threads with regions of their own, both interrupted at the same time.
fn two_that_fork() {
    case::on_signal(libc::SIGUSR1, fork_and_end);
    let threads = [1, 2].map(|_| {
        thread::spawn(|| {
            let mut kept = NONE;
            for step in 1.. {
                calls(&SEVERAL, step, &mut kept);
                if is_enough() {
                    break;
                }
            }
        })
    });
    while !is_enough() {
        for thread in &threads {
            // SAFETY: the thread has not been joined.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), libc::SIGUSR1) };
        }
        thread::sleep(Duration::from_millis(2));
    }
    threads.into_iter().for_each(|thread| thread.join().expect("it ends well"));
    assert_eq!(SEVERAL.check(), Ok(()));
}
