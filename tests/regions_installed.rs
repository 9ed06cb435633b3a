//! A program whose global allocator has several regions: its first and last calls, and threads that come and go.

mod case;

use smalloc::{Indexed, SmallocGlobal};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

#[global_allocator]
static HEAP: SmallocGlobal<Indexed, 4> = SmallocGlobal::new();

const CASES: [case::Case; 2] = [("first_and_last", first_and_last), ("threads", threads)];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

#[test]
fn the_heap_works_before_main_and_in_the_last_destructors() {
    case::run("first_and_last").assert_success();
}

#[test]
fn threads_that_come_and_go_leave_nothing_behind() {
    case::run("threads").assert_success();
}

// ---- first and last ----------------------------------------------------------------------------------------------

static BEFORE: AtomicUsize = AtomicUsize::new(0);

extern "C" fn before_main() {
    let words: Vec<String> = (0..100).map(|word| word.to_string()).collect();
    BEFORE.store(words.concat().len(), Ordering::Relaxed);
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

/// A value that a thread leaves to its destructors, which allocate again.
struct Last(Vec<String>);

static DROPPED: AtomicUsize = AtomicUsize::new(0);

impl Drop for Last {
    fn drop(&mut self) {
        let copy: Vec<String> = self.0.drain(..).map(|word| word + "!").collect();
        DROPPED.fetch_add(copy.concat().len(), Ordering::Relaxed);
    }
}

/// Runs after the language's destructors, with those of all pthread keys.
unsafe extern "C" fn last_of_all(boxed: *mut libc::c_void) {
    // SAFETY: the box was given away with the key.
    let boxed = unsafe { Box::from_raw(boxed.cast::<usize>()) };
    DROPPED.fetch_add(*Box::new(*boxed), Ordering::Relaxed);
}

extern "C" fn at_exit() {
    let words: Vec<String> = (0..100).map(|word| word.to_string()).collect();
    let sound = words.concat().len() == 190 && HEAP.check().is_ok();
    // SAFETY: ends the process.
    unsafe { libc::_exit(if sound { 0 } else { 1 }) };
}

fn first_and_last() {
    thread_local!(static LAST: RefCell<Last> = const { RefCell::new(Last(Vec::new())) });
    assert_eq!(BEFORE.load(Ordering::Relaxed), 190);
    let mut key = 0;
    // SAFETY: the key may be written, and the destructor lives as long as the program.
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(last_of_all)) }, 0);
    for _ in 0..20 {
        let thread = thread::spawn(move || {
            LAST.with_borrow_mut(|last| last.0.extend((0..10).map(|word| word.to_string())));
            // SAFETY: the destructor takes the box back.
            unsafe { libc::pthread_setspecific(key, Box::into_raw(Box::new(45_usize)).cast()) };
        });
        thread.join().unwrap();
    }
    assert_eq!(DROPPED.load(Ordering::Relaxed), 20 * (20 + 45));
    // SAFETY: the function lives as long as the program.
    assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
}

// ---- come and go -------------------------------------------------------------------------------------------------

/// Ten threads at a time, each of which frees the blocks of the ones before.
fn threads() {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut used = 0;
    for round in 0..400 {
        let given: Vec<Option<Vec<String>>> = (0..10).map(|_| rows.pop()).collect();
        let threads: Vec<_> = given
            .into_iter()
            .map(|row| {
                thread::spawn(move || {
                    let sum: usize = row.iter().flatten().map(String::len).sum();
                    drop(row);
                    (0..40).map(|word| format!("{sum} {word:20}")).collect::<Vec<String>>()
                })
            })
            .collect();
        rows.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
        if round == 100 {
            used = HEAP.stats().used_bytes;
        }
    }
    let stats = HEAP.stats();
    assert!(stats.used_bytes < used + 4096, "{used} bytes have become {}", stats.used_bytes);
    assert!(stats.handed_over > 10_000, "{}", stats.handed_over);
    assert!((0..4).all(|region| HEAP.region_stats(region).unwrap().allocs > 1000), "no region is idle");
    assert_eq!(HEAP.check(), Ok(()));
}
