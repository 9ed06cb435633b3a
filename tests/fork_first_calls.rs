//! `fork` while another thread makes the first calls on heaps: no child hangs. The program's own allocator is not
//! smalloc, so that no heap has been used before.

mod case;
mod forking;

use case::sleeps;
use forking::{FREE, TAKEN, ask, fork, found_by_another, is_usable};
use smalloc::{Linked, SmallocGlobal};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;

/// At most the number of heaps that are protected against `fork`.
const COUNT: usize = 16;
static INDEXED: [SmallocGlobal; COUNT] = [const { SmallocGlobal::with_region_size(1 << 20) }; COUNT];
static LINKED: [SmallocGlobal<Linked, 2>; COUNT] =
    [const { SmallocGlobal::with_region_size(1 << 20) }; COUNT];

/// Processes in which each heap gets its first call.
const RUNS: usize = 15;
/// Inspects a heap before it is mapped.
const LOOKS: usize = 50;
const CASES: [case::Case; 7] = [
    ("first_allocations", || fork_beside(0)),
    ("first_looks", || fork_beside(LOOKS)),
    ("heaps_that_are_no_statics", heaps_that_are_no_statics),
    ("registered_before_main", registered_before_main),
    ("first_calls_within_a_fork", first_calls_within_a_fork),
    ("statics_beside_a_busy_loader", || beside_a_busy_loader(|| assert!(is_usable(&INDEXED[1])))),
    ("others_beside_a_busy_loader", || beside_a_busy_loader(|| assert!(is_usable(&own_heap())))),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

#[test]
fn children_of_first_allocations_have_all_heaps() {
    (0..RUNS).for_each(|_| case::run("first_allocations").assert_success());
}

/// Inspecting a heap that is not mapped takes its lock too.
#[test]
fn children_of_first_looks_have_all_heaps() {
    (0..RUNS).for_each(|_| case::run("first_looks").assert_success());
}

/// Only the loader knows whether a heap is a static, and a child must not inherit the loader's lock taken.
#[test]
fn children_of_first_calls_on_other_heaps_have_theirs() {
    case::run("heaps_that_are_no_statics").assert_success();
}

#[test]
fn the_heaps_handlers_are_older_than_the_programs() {
    case::run("registered_before_main").assert_success();
}

/// The heap's handler is registered too late to run last.
#[test]
fn first_calls_within_a_fork_lock_for_the_rest_of_it() {
    case::run("first_calls_within_a_fork").assert_success();
}

/// A heap may be first used while the loader's lock is held, even if other threads wait for that lock.
#[test]
fn first_calls_do_not_wait_for_threads_that_wait_for_the_loader() {
    case::run("statics_beside_a_busy_loader").assert_success();
    case::run("others_beside_a_busy_loader").assert_success();
}

/// Forks while another thread makes first calls, each after so many inspections.
fn fork_beside(looks: usize) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            INDEXED.iter().for_each(|heap| first_call(heap, looks));
            LINKED.iter().for_each(|heap| first_call(heap, looks));
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let status = fork_and_wait();
            assert_eq!(status, 0, "a child ends with {status:#x}");
        }
    });
    assert_eq!(fork_and_wait(), 0);
}

/// Forks while another thread makes first calls on heaps that are not protected.
fn heaps_that_are_no_statics() {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert_eq!(own_heap().stats().region_size, 0);
            }
        });
        for _ in 0..50 {
            let status = fork_and_wait();
            done.store(status != 0, Ordering::Relaxed);
            assert_eq!(status, 0, "a child ends with {status:#x}");
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// A heap that is not a static.
fn own_heap() -> SmallocGlobal<Linked> {
    SmallocGlobal::with_region_size(1 << 20)
}

/// The status of a child that has used all heaps.
fn fork_and_wait() -> i32 {
    fork(|| INDEXED.iter().all(is_usable) && LINKED.iter().all(is_usable))
}

fn first_call<L: smalloc::FreeList, const REGIONS: usize>(heap: &SmallocGlobal<L, REGIONS>, looks: usize) {
    for _ in 0..looks {
        assert_eq!(heap.stats().region_size, 0);
    }
    assert!(is_usable(heap));
}

// ---- what another thread finds during a fork -----------------------------------------------------------------------

/// Handlers before a fork run in reverse order of registration. If the heap's are older than `ask`, its lock is still
/// free when `ask` runs, though the first use comes later.
fn registered_before_main() {
    // SAFETY: the handler lives as long as the program.
    assert_eq!(unsafe { libc::pthread_atfork(Some(ask), None, None) }, 0);
    let [heap, ..] = &INDEXED;
    assert!(is_usable(heap));
    assert_eq!(found_by_another(heap, || assert_eq!(fork_and_wait(), 0)), FREE);
}

/// First used by the handlers below: one by the handler before a fork, one by those after it.
static WITHIN: [SmallocGlobal; 2] = [const { SmallocGlobal::with_region_size(1 << 20) }; 2];
/// Whether the handlers use them.
static FIRST_CALLS: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn call_before() {
    if FIRST_CALLS.load(Ordering::Relaxed) {
        assert!(is_usable(&WITHIN[0]));
        // SAFETY: the case has a thread that answers.
        unsafe { ask() };
    }
}

unsafe extern "C" fn call_after() {
    if FIRST_CALLS.swap(false, Ordering::Relaxed) {
        assert!(is_usable(&WITHIN[1]));
    }
}

/// Registers handlers that are older than the heap's, since this function has a priority. They run after the heap's
/// handler before a fork, and before the heap's handlers after it.
#[used]
#[unsafe(link_section = ".init_array.00101")]
static REGISTER_FIRST: extern "C" fn() = {
    extern "C" fn register() {
        // SAFETY: the handlers live as long as the program.
        let _ = unsafe { libc::pthread_atfork(Some(call_before), Some(call_after), Some(call_after)) };
    }
    register
};

/// A heap that is first used while the other heaps are locked is locked too, and unlocked with them.
fn first_calls_within_a_fork() {
    let usable = || thread::spawn(|| WITHIN.iter().all(is_usable)).join().is_ok_and(|usable| usable);
    let found = found_by_another(&WITHIN[0], || {
        FIRST_CALLS.store(true, Ordering::Relaxed);
        assert_eq!(fork(|| usable() && WITHIN.iter().all(is_usable)), 0);
    });
    assert_eq!(found, TAKEN);
    assert!(usable() && WITHIN.iter().all(is_usable));
    assert_eq!(fork(usable), 0, "they are covered like others");
    assert!(usable());
}

// ---- the loader ----------------------------------------------------------------------------------------------------

/// The system's number of the thread that may wait for the loader.
static WAITING: AtomicI32 = AtomicI32::new(0);
static WAITED: AtomicBool = AtomicBool::new(false);

/// Makes a first call on a static with the loader's lock held, while another thread makes `other_call`, which may need
/// the loader.
fn beside_a_busy_loader(other_call: fn()) {
    unsafe extern "C" fn call(_: *mut libc::dl_phdr_info, _: usize, other_call: *mut libc::c_void) -> i32 {
        // SAFETY: this is the pointer that dl_iterate_phdr was given.
        let other_call = unsafe { *other_call.cast::<fn()>() };
        thread::spawn(move || {
            // SAFETY: the call has no preconditions.
            WAITING.store(unsafe { libc::gettid() }, Ordering::Relaxed);
            other_call();
            WAITED.store(true, Ordering::Relaxed);
        });
        while !WAITED.load(Ordering::Relaxed) && !sleeps(WAITING.load(Ordering::Relaxed)) {
            thread::yield_now();
        }
        i32::from(is_usable(&INDEXED[0]))
    }
    let mut other_call = other_call;
    // SAFETY: the callback has the right type, and its data outlives the call.
    assert_eq!(unsafe { libc::dl_iterate_phdr(Some(call), ptr::from_mut(&mut other_call).cast()) }, 1);
    while !WAITED.load(Ordering::Relaxed) {
        thread::yield_now();
    }
}
