//! The report of a request that found no place: its exact text, once, only if requested, and without any other effect.

mod case;

use smalloc::SmallocGlobal;
use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::process::Command;
use std::sync::Barrier;

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20);
static TOLD: SmallocGlobal = SmallocGlobal::with_region_size(64 << 10).reporting_failures();
static SILENT: SmallocGlobal = SmallocGlobal::with_region_size(64 << 10);

/// The variable that asks for the report.
const VARIABLE: &str = "SMALLOC_REPORT";

/// [`fragment`] leaves this many bytes free, in holes too small for a request of 8 KiB.
const FRAGMENTED: &str = "smalloc: no place for 8,192 bytes: the heap is fragmented
  region         64 KiB: 15 KiB in use, 49 KiB free in 7 holes, 0 B free above top
  largest holes  7 KiB at 0x800, 7 KiB at 0x2c00, 7 KiB at 0x5000, 7 KiB at 0x7400, 7 KiB at 0x9800
  map            ██·······██·······██·······██·······██·······██·······██·······█  up to top, 1 KiB a character
";

const CASES: [case::Case; 10] = [
    ("alloc", || {
        fragment(&TOLD);
        fail(&TOLD);
    }),
    ("alloc_zeroed", || {
        fragment(&TOLD);
        // SAFETY: the layout is not empty.
        assert!(unsafe { TOLD.alloc_zeroed(layout(8 << 10)) }.is_null());
    }),
    ("realloc", || {
        let kept = fragment(&TOLD);
        // SAFETY: the block is live and has this layout.
        assert!(unsafe { TOLD.realloc(kept, layout(1 << 10), 8 << 10) }.is_null());
    }),
    ("threads", threads),
    ("unasked", || {
        fragment(&SILENT);
        fail(&SILENT);
    }),
    ("changes_nothing", changes_nothing),
    ("expected", expected),
    ("switched", switched),
    ("try_reserve", || assert!(Vec::<u8>::new().try_reserve(black_box(1 << 30)).is_err())),
    ("runs_out", || drop(black_box(Vec::<u8>::with_capacity(black_box(1 << 30))))),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// Fills a heap with blocks of 1 KiB, and frees seven of nine. Returns one of those that are left.
fn fragment(heap: &SmallocGlobal) -> *mut u8 {
    // SAFETY: the layout is not empty.
    let blocks: Vec<*mut u8> = (0..64).map(|_| unsafe { heap.alloc(layout(1 << 10)) }).collect();
    assert!(blocks.iter().all(|block| !block.is_null()));
    for (number, &block) in blocks.iter().enumerate() {
        if number % 9 > 1 {
            // SAFETY: the block is live and has this layout.
            unsafe { heap.dealloc(block, layout(1 << 10)) };
        }
    }
    blocks[0]
}

fn fail(heap: &SmallocGlobal) {
    fail_by(heap, 8 << 10);
}

fn fail_by(heap: &SmallocGlobal, size: usize) {
    // SAFETY: the layout is not empty.
    assert!(unsafe { heap.alloc(layout(size)) }.is_null());
}

fn threads() {
    fragment(&TOLD);
    let barrier = Barrier::new(16);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                barrier.wait();
                (0..100).for_each(|_| fail(&TOLD));
            });
        }
    });
    assert_eq!(TOLD.stats().failures, 1600);
}

/// The heap that failed counts the failure, the program's own heap counts nothing, and `errno` stays.
fn changes_nothing() {
    fragment(&TOLD);
    // A child has one thread, so no other thread uses the program's own heap meanwhile.
    let child = case::fork(|| {
        let own = HEAP.stats();
        fail(&TOLD);
        i32::from(HEAP.stats() != own)
    });
    assert_eq!(case::wait(child), 0, "the report has used the program's own heap");
    // The parent has not reported yet, and nobody reads what it does.
    // SAFETY: nothing else uses the number.
    unsafe { libc::close(libc::STDERR_FILENO) };
    let before = TOLD.stats();
    case::set_errno(libc::EDOM);
    fail(&TOLD);
    assert_eq!(case::errno(), libc::EDOM);
    let delta = TOLD.stats().since(&before);
    assert_eq!((delta.failures, delta.allocs, delta.frees, delta.used_bytes), (1, 0, 0, 0));
}

/// Expected failures and those that `smalloc` returns are not reported, but the next one is.
fn expected() {
    fragment(&TOLD);
    TOLD.expecting_failures(|| {
        fail_by(&TOLD, 9 << 10);
        TOLD.expecting_failures(|| fail_by(&TOLD, 10 << 10));
        fail_by(&TOLD, 11 << 10);
    });
    assert!(!TOLD.smalloc(layout(12 << 10)).1.success);
    fail(&TOLD);
    fail_by(&TOLD, 13 << 10);
}

/// The program overrides the environment.
fn switched() {
    fragment(&TOLD);
    TOLD.report_failures(false);
    fail_by(&TOLD, 9 << 10);
    TOLD.report_failures(true);
    fail(&TOLD);
    fail_by(&TOLD, 10 << 10);
}

// ---- the tests ---------------------------------------------------------------------------------------------------

/// Runs a case with the variable set to a value, or not set, and returns what it wrote to standard error.
fn told(name: &str, value: Option<&str>) -> String {
    let outcome = case::finish(name, with(&mut case::command(name), value));
    outcome.assert_success();
    outcome.stderr
}

fn with<'a>(command: &'a mut Command, value: Option<&str>) -> &'a mut Command {
    match value {
        Some(value) => command.env(VARIABLE, value),
        None => command.env_remove(VARIABLE),
    }
}

#[test]
fn every_call_reports_a_failure_once() {
    for name in ["alloc", "alloc_zeroed", "realloc", "threads", "changes_nothing", "expected", "switched"] {
        for value in [None, Some("0")] {
            assert_eq!(told(name, value), FRAGMENTED, "{name}, {VARIABLE} is {value:?}");
        }
    }
}

#[test]
fn nothing_is_reported_unasked() {
    for value in [None, Some(""), Some("0")] {
        for name in ["unasked", "try_reserve"] {
            assert_eq!(told(name, value), "", "{name}, {VARIABLE} is {value:?}");
        }
    }
}

#[test]
fn the_environment_asks_for_all_heaps() {
    assert_eq!(told("unasked", Some("1")), FRAGMENTED);
    let line = "smalloc: no place for 1,073,741,824 bytes: the request is larger than the region of 64 MiB\n";
    assert!(told("try_reserve", Some("1")).starts_with(line));
}

#[test]
fn a_program_that_runs_out_says_why_first() {
    let name = "runs_out";
    let outcome = case::finish(name, with(&mut case::command(name), Some("1")));
    let (report, rest) = outcome.stderr.split_once(" a character\n").expect("a report, and more");
    assert!(report.starts_with("smalloc: no place for 1,073,741,824 bytes: "), "{report}");
    assert!(rest.contains("memory allocation of 1073741824 bytes failed"), "{rest}");
    assert!(!outcome.status.success());
}

#[test]
fn an_unreadable_value_ends_the_program() {
    let name = "unasked";
    let outcome = case::finish(name, with(&mut case::command(name), Some("perhaps")));
    assert_eq!(
        outcome.stderr,
        "smalloc: SMALLOC_REPORT: \"perhaps\" is neither 0 nor 1 (set it to 1, or leave it out)\n"
    );
    assert_eq!(outcome.status.code(), Some(2));
}
