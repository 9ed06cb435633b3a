//! No call of the heap is a cancellation point of `pthread_cancel`: a cancelled thread ends where its program expects
//! it.
//!
//! Each thread cancels itself before it begins, so that the first cancellation point ends it.
#![cfg(all(target_os = "linux", target_env = "gnu"))]

mod case;

use smalloc::{Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(1 << 30);
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(64 << 20);
static SEVERAL: SmallocGlobal<Indexed, 3> = SmallocGlobal::with_region_size(64 << 20);

const PIECE: Layout = Layout::new::<[u8; 100]>();
const LARGE: Layout = Layout::new::<[u8; 4 << 20]>();
/// The return value of a thread that was not cancelled.
const FINISHED: usize = 77;

const CASES: [case::Case; 3] =
    [("every_call", every_call), ("every_wait", every_wait), ("last_words", last_words)];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

#[test]
fn no_call_ends_a_cancelled_thread() {
    case::run("every_call").assert_success();
}

#[test]
fn no_wait_ends_a_cancelled_thread() {
    case::run("every_wait").assert_success();
}

#[test]
fn misuse_in_a_cancelled_thread_is_reported() {
    let outcome = case::run("last_words");
    assert!(outcome.stderr.starts_with("smalloc: foreign pointer: 0x1 "), "{}", outcome.stderr);
    outcome.assert_aborts(&outcome.stderr);
}

type Start = extern "C-unwind" fn(*mut c_void) -> *mut c_void;

/// Starts a thread.
fn start(work: Start) -> libc::pthread_t {
    // SAFETY: all zeros are a valid value.
    let mut thread = unsafe { std::mem::zeroed() };
    // SAFETY: both types of function are called in the same way; the C library ends threads by unwinding.
    let work = unsafe { std::mem::transmute::<Start, extern "C" fn(*mut c_void) -> *mut c_void>(work) };
    // SAFETY: the function takes and returns a pointer, of which nothing is read.
    assert_eq!(unsafe { libc::pthread_create(&mut thread, ptr::null(), work, ptr::null_mut()) }, 0);
    thread
}

/// The return value of a thread.
fn join(thread: libc::pthread_t) -> usize {
    let mut returned = ptr::null_mut();
    // SAFETY: the thread was started by `start`, and is joined once.
    assert_eq!(unsafe { libc::pthread_join(thread, &mut returned) }, 0);
    returned.addr()
}

/// From here on, the first cancellation point ends this thread.
fn cancel_me() {
    // SAFETY: the thread is this one.
    assert_eq!(unsafe { libc::pthread_cancel(libc::pthread_self()) }, 0);
}

/// The C library's sleep is a cancellation point, so these tests would notice one in the heap.
extern "C-unwind" fn sleep(_: *mut c_void) -> *mut c_void {
    cancel_me();
    let time = libc::timespec { tv_sec: 0, tv_nsec: 1 };
    // SAFETY: the time is valid.
    unsafe { libc::nanosleep(&time, ptr::null_mut()) };
    ptr::without_provenance_mut(FINISHED)
}

fn calls(heap: &impl GlobalAlloc) {
    for layout in [PIECE, LARGE] {
        // SAFETY: the layout is not empty; the blocks are live and have these layouts.
        unsafe {
            let plain = heap.alloc(layout);
            plain.write_bytes(1, layout.size());
            let zeroed = heap.alloc_zeroed(layout);
            let grown = heap.realloc(plain, layout, 2 * layout.size());
            heap.dealloc(
                grown,
                Layout::from_size_align(2 * layout.size(), layout.align()).expect("a layout"),
            );
            heap.dealloc(zeroed, layout);
        }
    }
}

/// A path in the folder for temporary files, for this process alone.
fn path(name: &str) -> String {
    let path = std::env::temp_dir().join(format!("smalloc-{name}-{}", std::process::id()));
    path.to_str().expect("a temporary path is text").to_owned()
}

extern "C-unwind" fn call_all(_: *mut c_void) -> *mut c_void {
    let (recording, page) = (path("cancelled"), path("cancelled-live"));
    cancel_me();
    calls(&HEAP);
    calls(&LINKED);
    calls(&SEVERAL);
    HEAP.record_to(&recording).expect("it can be recorded");
    HEAP.publish_to(&page).expect("it can be published");
    calls(&HEAP);
    // More records than fit in one window of the file.
    (0..20_000).for_each(|_| {
        let (block, _) = HEAP.smalloc(PIECE);
        // SAFETY: the block is live.
        block.into_iter().for_each(|block| unsafe { HEAP.sfree(block) });
    });
    assert!(smalloc::Live::open(&page).is_ok());
    assert!(HEAP.stop_publishing() && HEAP.stop_recording().is_some_and(|recorded| recorded.complete));
    assert!(HEAP.snapshot().is_ok() && HEAP.try_stats().is_some() && HEAP.check().is_ok());
    HEAP.trim();
    HEAP.report_failures(true);
    // SAFETY: the layout is not empty.
    assert!(unsafe { LINKED.alloc(Layout::new::<[u8; 1 << 30]>()) }.is_null());
    for file in [recording, page] {
        let file = std::ffi::CString::new(file).expect("no zero");
        // SAFETY: the path ends with a zero.
        unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, file.as_ptr(), 0) };
    }
    ptr::without_provenance_mut(FINISHED)
}

fn every_call() {
    LINKED.report_failures(true);
    assert_eq!(join(start(sleep)), usize::MAX, "this is how a cancelled thread ends");
    assert_eq!(join(start(call_all)), FINISHED);
}

static ENOUGH: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicUsize = AtomicUsize::new(0);

extern "C-unwind" fn call_until_enough(_: *mut c_void) -> *mut c_void {
    cancel_me();
    while !ENOUGH.load(Ordering::Relaxed) {
        calls(&HEAP);
        calls(&SEVERAL);
        HEAP.trim();
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    ptr::without_provenance_mut(FINISHED)
}

/// Four threads wait for each other's locks and purges, until each kind of wait has happened often enough.
fn every_wait() {
    let threads = [(); 4].map(|()| start(call_until_enough));
    while CALLS.load(Ordering::Relaxed) < 50 || HEAP.stats().contended < 50 {
        std::thread::sleep(Duration::from_millis(10));
    }
    ENOUGH.store(true, Ordering::Relaxed);
    assert_eq!(threads.map(join), [FINISHED; 4]);
}

extern "C-unwind" fn misuse(_: *mut c_void) -> *mut c_void {
    cancel_me();
    // SAFETY: not that it is: this is what ends the process.
    unsafe { HEAP.dealloc(ptr::without_provenance_mut(1), PIECE) };
    ptr::null_mut()
}

fn last_words() {
    join(start(misuse));
}

/// Calls of the C library that are cancellation points and that a heap might use. `src/system/call.rs` makes them in
/// another way.
#[test]
fn the_library_calls_no_cancellation_point() {
    const POINTS: [&str; 24] = [
        "accept",
        "clock_nanosleep",
        "close",
        "connect",
        "creat",
        "fcntl",
        "fdatasync",
        "fsync",
        "msync",
        "nanosleep",
        "open",
        "openat",
        "poll",
        "posix_fallocate",
        "pread",
        "pwrite",
        "read",
        "readv",
        "select",
        "sleep",
        "unlink",
        "usleep",
        "write",
        "writev",
    ];
    let mut files = 0;
    for entry in walkdir::WalkDir::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")) {
        let entry = entry.expect("the sources can be read");
        if !entry.file_type().is_file() || entry.path().ends_with("system/call.rs") {
            continue;
        }
        let text = std::fs::read_to_string(entry.path()).expect("it can be read");
        files += 1;
        for point in POINTS {
            assert!(!text.contains(&format!("libc::{point}(")), "{}: {point}", entry.path().display());
        }
    }
    assert!(files > 50, "{files} files found");
}
