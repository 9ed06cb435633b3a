//! `fork` if the C library allocates from a heap to register that heap's handlers. glibc does so from the 49th handler
//! on, if its `malloc` is a heap. The `pthread_atfork` of this program, which takes the place of the C library's,
//! always does.
#![cfg(target_env = "gnu")]

mod case;
mod forking;

use forking::{FREE, TAKEN, ask, fork, found_by_another, is_usable};
use smalloc::{FreeList, Linked, SmallocGlobal};
use std::env;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

/// The heap from which the C library allocates.
static MALLOC: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
/// Used before anything else.
static FIRST: SmallocGlobal<Linked, 2> = SmallocGlobal::with_region_size(1 << 20);
/// First used by another thread while that one registers the handlers.
static BESIDE: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(1 << 20);

const CASES: [case::Case; 3] = [
    (BEFORE_MAIN, all_are_covered),
    (REFUSED_ONCE, all_are_covered),
    (REFUSED, || assert_eq!((found_within_fork(&FIRST), is_usable(&MALLOC)), (FREE, true))),
];
const BEFORE_MAIN: &str = "registered_before_main";
const REFUSED_ONCE: &str = "refused_once";
const REFUSED: &str = "refused";

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

#[test]
fn heaps_are_protected_though_registering_allocates() {
    case::run(BEFORE_MAIN).assert_success();
}

#[test]
fn a_refused_registration_is_retried() {
    case::run(REFUSED_ONCE).assert_success();
}

#[test]
fn heaps_work_though_handlers_are_refused() {
    case::run(REFUSED).assert_success();
}

fn all_are_covered() {
    assert!(is_usable(&BESIDE));
    let found = [found_within_fork(&MALLOC), found_within_fork(&FIRST), found_within_fork(&BESIDE)];
    assert_eq!(found, [TAKEN; 3]);
}

// ---- the C library -----------------------------------------------------------------------------------------------

type Handler = Option<unsafe extern "C" fn()>;

unsafe extern "C" {
    /// glibc's `pthread_atfork` calls this function.
    fn __register_atfork(
        before: Handler,
        after: Handler,
        after_in_child: Handler,
        library: *const u8,
    ) -> libc::c_int;
}

/// Registers handlers, and allocates for that. In some cases it refuses, or the first call takes long.
///
/// # Safety
/// The handlers live as long as the program.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_atfork(before: Handler, after: Handler, after_in_child: Handler) -> libc::c_int {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let is_first = CALLS.fetch_add(1, Ordering::Relaxed) == 0;
    assert!(is_usable(&MALLOC));
    match env::var(case::CASE).as_deref() {
        Ok(REFUSED_ONCE) if is_first => return libc::ENOMEM,
        Ok(REFUSED) => return libc::ENOMEM,
        Ok(BEFORE_MAIN) if is_first => fork_beside(),
        _ => {}
    }
    // SAFETY: guaranteed by the caller; a library that is null is the program.
    unsafe { __register_atfork(before, after, after_in_child, ptr::null()) }
}

/// Forks when another thread has made the first call on a heap, while this thread has not registered the handlers yet.
fn fork_beside() {
    assert!(thread::spawn(|| is_usable(&BESIDE)).join().is_ok_and(|usable| usable));
    assert_eq!(found_within_fork(&BESIDE), TAKEN);
}

// ---- within a fork -----------------------------------------------------------------------------------------------

/// Whether the handler below asks.
static ASKS: AtomicBool = AtomicBool::new(false);

unsafe extern "C" fn ask_if_told() {
    if ASKS.swap(false, Ordering::Relaxed) {
        // SAFETY: there is a thread that answers.
        unsafe { ask() };
    }
}

/// The answers of another thread once a fork has locked the heaps. The child has all heaps.
fn found_within_fork<L: FreeList, const REGIONS: usize>(heap: &SmallocGlobal<L, REGIONS>) -> u32 {
    found_by_another(heap, || {
        ASKS.store(true, Ordering::Relaxed);
        assert_eq!(fork(|| is_usable(&MALLOC) && is_usable(&FIRST) && is_usable(&BESIDE)), 0);
    })
}

/// Registers a handler that is older than the heap's, and so runs after it, and makes the first call.
#[used]
#[unsafe(link_section = ".init_array.00101")]
static BEFORE_OTHERS: extern "C" fn() = {
    extern "C" fn begin() {
        // SAFETY: the handler lives as long as the program, which a null library stands for.
        let refused = unsafe { __register_atfork(Some(ask_if_told), None, None, ptr::null()) };
        assert!(refused == 0 && is_usable(&FIRST));
    }
    begin
};
