//! Misuse of `dealloc`, `realloc` and `sfree`: one exact line on standard error, then an abort.
//!
//! Every case runs in a process of its own on a heap that only the case uses, so addresses are known before they are
//! misused: the case announces the line that it expects, and the test compares it with the output.

#[path = "../case/mod.rs"]
mod case;
mod double_free;
mod elsewhere;
mod inside;
mod layouts;

use case::{Outcome, leave_no_core};
use double_free::{DOUBLE, DOUBLES};
use elsewhere::{ELSEWHERE, FOREIGN};
use inside::{INSIDE, INTERIOR, UNALIGNED};
use layouts::{LAYOUT, LAYOUTS, realloc_as};
use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();
static INDEXED: SmallocGlobal<Indexed> = SmallocGlobal::with_region_size(4 << 30);
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(4 << 30);
/// Used only by the first call of a program.
static UNUSED: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);

/// A heap with either list.
trait Door: GlobalAlloc + Sync {
    /// Bytes between the start of the region and the highest end of a segment so far.
    fn known(&self) -> usize;
    fn free_by_pointer(&self, payload: NonNull<u8>);
    fn resize_zeroed(&self, payload: *mut u8, layout: Layout, new_size: usize);
}

impl<L: FreeList> Door for SmallocGlobal<L>
where
    Self: Sync,
{
    fn known(&self) -> usize {
        self.stats().peak_top
    }

    fn free_by_pointer(&self, payload: NonNull<u8>) {
        // SAFETY: misuse is tested here, and the call does not return.
        unsafe { self.sfree(payload) }
    }

    fn resize_zeroed(&self, payload: *mut u8, layout: Layout, new_size: usize) {
        // SAFETY: as above.
        let _ = unsafe { self.realloc_zeroed(payload, layout, new_size) };
    }
}

type Heap = &'static dyn Door;
/// The name of a case, the beginning of its line, and its function.
type Misuse = (&'static str, &'static str, fn(Heap));

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

fn take(heap: Heap, size: usize) -> *mut u8 {
    // SAFETY: the layouts of the cases are not empty.
    let payload = unsafe { heap.alloc(layout(size, 1)) };
    assert!(!payload.is_null());
    payload
}

fn give(heap: Heap, payload: *mut u8, size: usize) {
    // SAFETY: misuse is tested here: a pointer that is no payload of this layout ends the process.
    unsafe { heap.dealloc(payload, layout(size, 1)) }
}

/// A block between two blocks in use.
fn take_walled(heap: Heap, size: usize) -> *mut u8 {
    take(heap, 16);
    let payload = take(heap, size);
    take(heap, 16);
    payload
}

// ---- running them ----------------------------------------------------------------------------------------------------

const HEAPS: [(&str, Heap); 3] = [("indexed", &INDEXED), ("linked", &LINKED), ("installed", &HEAP)];
/// Names the way in which a case is run.
const MODE: &str = "SMALLOC_TEST_MODE";
/// Names the very first call of a program.
const FIRST: &str = "SMALLOC_TEST_FIRST";

fn misuses() -> impl Iterator<Item = Misuse> {
    [&DOUBLES[..], &INSIDE, &ELSEWHERE, &LAYOUTS].into_iter().flatten().copied()
}

/// Not a test: the tests below start it, with `<heap>/<case>` as the name of a case.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    let name = std::env::var(case::CASE).expect("the test that starts this names a case");
    let (heap, name) = name.split_once('/').expect("a heap and a case");
    let (_, heap) = HEAPS.into_iter().find(|(known, _)| *known == heap).expect("there is such a heap");
    let (_, _, run) = misuses().find(|(known, ..)| *known == name).expect("there is such a case");
    leave_no_core();
    match std::env::var(MODE).as_deref() {
        Ok("hook") => run_with_hook(heap, run),
        Ok("fork") => run_in_fork(heap, run),
        Ok(other) => panic!("no such mode: {other}"),
        Err(_) => run(heap),
    }
}

/// A hook that allocates and writes, as those of real programs do. Its output must not appear.
fn run_with_hook(heap: Heap, run: fn(Heap)) {
    std::panic::set_hook(Box::new(|info| {
        let trace = std::backtrace::Backtrace::force_capture();
        eprintln!("the hook has run: {info} {trace}");
    }));
    run(heap);
}

/// In the child of a process whose other threads allocate. The process ends as the child does.
fn run_in_fork(heap: Heap, run: fn(Heap)) {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    let threads: Vec<_> = (0..2).map(|_| std::thread::spawn(|| allocate_until(&ENOUGH))).collect();
    let child = case::fork(|| {
        run(heap);
        0
    });
    let status = case::wait(child);
    ENOUGH.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("no thread panics"));
    assert!(libc::WIFSIGNALED(status), "the child ends with {status:#x}");
    // SAFETY: ends the process.
    unsafe { libc::raise(libc::WTERMSIG(status)) };
}

fn allocate_until(enough: &AtomicBool) {
    let mut kept = Vec::new();
    while !enough.load(Ordering::Relaxed) {
        kept.push(vec![0_u8; 1 + kept.len() % 500]);
        if kept.len() > 1000 {
            kept.clear();
        }
    }
}

fn run(heap: &str, name: &str, mode: Option<&str>) -> Outcome {
    let name = format!("{heap}/{name}");
    let mut command = case::command(&name);
    if let Some(mode) = mode {
        command.env(MODE, mode).env("RUST_BACKTRACE", "1");
    }
    case::finish(&name, &mut command)
}

fn assert_all_abort(misuses: &[Misuse]) {
    for heap in ["indexed", "linked"] {
        for (name, start, _) in misuses {
            run(heap, name, None).assert_aborts_as_told(start);
        }
    }
}

#[test]
fn double_frees_abort() {
    assert_all_abort(&DOUBLES);
}

#[test]
fn pointers_into_segments_abort() {
    assert_all_abort(&INSIDE);
}

#[test]
fn pointers_from_elsewhere_abort() {
    assert_all_abort(&ELSEWHERE);
}

#[test]
fn wrong_layouts_abort() {
    assert_all_abort(&LAYOUTS);
}

/// The heap of the program itself, from which the hook, the backtrace and the threads of the program allocate too.
#[test]
fn hooks_backtraces_and_forks_change_nothing() {
    let names = [
        ("double_at_once", DOUBLE),
        ("double_in_other_thread", DOUBLE),
        ("interior_last_granule", INTERIOR),
        ("unaligned_by_eight", UNALIGNED),
        ("size_one_granule_less", LAYOUT),
    ];
    for (name, start) in names {
        for mode in ["hook", "fork"] {
            run("installed", name, Some(mode)).assert_aborts_as_told(start);
        }
    }
    for mode in ["hook", "fork"] {
        run("linked", "foreign_one", Some(mode)).assert_aborts_as_told(FOREIGN);
    }
}

// ---- before the first allocation -------------------------------------------------------------------------------------

/// Runs before `main` and before the standard library has allocated anything.
extern "C" fn first() {
    // SAFETY: the name ends with a zero, and nothing changes the environment yet.
    let asked = unsafe { libc::getenv(c"SMALLOC_TEST_FIRST".as_ptr()) };
    if asked.is_null() {
        return;
    }
    // SAFETY: the system's strings end with a zero.
    let asked = unsafe { std::ffi::CStr::from_ptr(asked) };
    leave_no_core();
    let one = ptr::without_provenance_mut(1);
    match asked.to_bytes() {
        b"dealloc" => give(&HEAP, one, 1),
        b"realloc" => realloc_as(&HEAP, one, layout(1, 1)),
        b"sfree" => HEAP.free_by_pointer(NonNull::dangling()),
        b"unused" => give(&UNUSED, one, 1),
        _ => {}
    }
}

#[used]
#[cfg_attr(any(target_os = "linux", target_os = "android"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static FIRST_OF_ALL: extern "C" fn() = first;

#[test]
fn misuse_before_the_first_allocation_aborts() {
    let line = "smalloc: foreign pointer: 0x1 is not from this heap, which has allocated nothing yet";
    for (call, end) in [
        ("dealloc", " (layout of 1 bytes)\n"),
        ("realloc", " (layout of 1 bytes)\n"),
        ("sfree", "\n"),
        ("unused", " (layout of 1 bytes)\n"),
    ] {
        let outcome = case::finish(call, case::command(call).env(FIRST, call));
        outcome.assert_aborts(&format!("{line}{end}"));
    }
}
