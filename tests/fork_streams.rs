//! `fork` beside the C library's streams: a thread that holds the list of streams may wait for a stream whose holder
//! waits for the heap, and `fork` needs both.
#![cfg(target_env = "gnu")]

mod case;

use case::{fork, wait};
use smalloc::SmallocGlobal;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

const FORKS: usize = 300;
const CASES: [case::Case; 1] = [("streams", streams)];

/// Not a test: the test below starts it.
#[test]
#[ignore = "runs in a process of its own, started by the other test"]
fn case() {
    case::act(&CASES);
}

#[test]
fn no_fork_hangs_beside_streams_that_allocate() {
    case::run("streams").assert_success();
}

static ENOUGH: AtomicBool = AtomicBool::new(false);
static WRITES: AtomicUsize = AtomicUsize::new(0);

/// `cookie_io_functions_t`.
#[repr(C)]
struct Functions {
    read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    seek: Option<unsafe extern "C" fn(*mut c_void, *mut i64, c_int) -> c_int>,
    close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

unsafe extern "C" {
    fn fopencookie(cookie: *mut c_void, mode: *const c_char, functions: Functions) -> *mut libc::FILE;
}

/// Called with the stream's lock held.
unsafe extern "C" fn write(_: *mut c_void, _: *const c_char, size: usize) -> isize {
    for round in 0..20 {
        std::hint::black_box(vec![1_u8; size + 100 * round]);
    }
    WRITES.fetch_add(1, Ordering::Relaxed);
    size as isize
}

fn open() -> *mut libc::FILE {
    let functions = Functions { read: None, write: Some(write), seek: None, close: None };
    // SAFETY: the mode is NUL-terminated, and the functions have the types that the C library expects.
    let stream = unsafe { fopencookie(ptr::null_mut(), c"w".as_ptr(), functions) };
    assert!(!stream.is_null());
    stream
}

/// Opens streams, writes to them and closes them.
fn use_streams() {
    while !ENOUGH.load(Ordering::Relaxed) {
        let stream = open();
        for _ in 0..50 {
            // SAFETY: the stream is open.
            unsafe { libc::fputs(c"some text".as_ptr(), stream) };
            // SAFETY: the stream is open.
            unsafe { libc::fflush(stream) };
        }
        // SAFETY: the stream is open, and not used any more.
        unsafe { libc::fclose(stream) };
    }
}

/// Holds the list of streams while it waits for each of them.
fn flush_all() {
    while !ENOUGH.load(Ordering::Relaxed) {
        // SAFETY: null stands for all streams.
        unsafe { libc::fflush(ptr::null_mut()) };
    }
}

fn streams() {
    let threads = [use_streams, use_streams, flush_all].map(thread::spawn);
    for _ in 0..FORKS {
        let child = fork(|| {
            let stream = open();
            // SAFETY: the stream is open, and not used any more.
            unsafe { (libc::fputs(c"text".as_ptr(), stream), libc::fclose(stream)) };
            // SAFETY: null stands for all streams: the child holds none of their locks.
            unsafe { libc::fflush(ptr::null_mut()) }
        });
        assert_eq!(wait(child), 0);
    }
    ENOUGH.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(WRITES.load(Ordering::Relaxed) > FORKS);
}
