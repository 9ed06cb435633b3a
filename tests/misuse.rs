//! Misuse of `dealloc`, `realloc` and `sfree`: one exact line on standard error, then an abort.
//!
//! Every case runs in a process of its own on a heap that only the case uses, so that addresses are known before they
//! are misused: the case tells the line that it expects, and the test compares it with what is written.

mod case;

use case::{Outcome, leave_no_core, tell};
use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();
static INDEXED: SmallocGlobal<Indexed> = SmallocGlobal::with_region_size(4 << 30);
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(4 << 30);
/// Never used but by what a program does first.
static UNUSED: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);

/// A heap with either list.
trait Door: GlobalAlloc + Sync {
    /// Bytes between the start of the region and the highest end of a segment so far.
    fn known(&self) -> usize;
    fn free_by_pointer(&self, payload: NonNull<u8>);
}

impl<L: FreeList> Door for SmallocGlobal<L>
where
    Self: Sync,
{
    fn known(&self) -> usize {
        self.stats().peak_top
    }

    fn free_by_pointer(&self, payload: NonNull<u8>) {
        // SAFETY: misuse is what is tested, and it does not return.
        unsafe { self.sfree(payload) }
    }
}

type Heap = &'static dyn Door;
/// Name of a case, how its line begins, and what it does.
type Misuse = (&'static str, &'static str, fn(Heap));

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

fn take(heap: Heap, size: usize) -> *mut u8 {
    // SAFETY: no case asks for nothing.
    let payload = unsafe { heap.alloc(layout(size, 1)) };
    assert!(!payload.is_null());
    payload
}

fn give(heap: Heap, payload: *mut u8, size: usize) {
    // SAFETY: misuse is what is tested: what is no payload of this layout ends the process.
    unsafe { heap.dealloc(payload, layout(size, 1)) }
}

/// A block with one in use on both sides.
fn take_walled(heap: Heap, size: usize) -> *mut u8 {
    take(heap, 16);
    let payload = take(heap, size);
    take(heap, 16);
    payload
}

// ---- double free -------------------------------------------------------------------------------------------------

fn tell_double(payload: *mut u8, size: usize) {
    tell(&format!("smalloc: double free: {payload:p} is in a free segment (layout of {size} bytes)"));
}

fn free_twice(heap: Heap, payload: *mut u8, size: usize) {
    tell_double(payload, size);
    give(heap, payload, size);
    give(heap, payload, size);
}

fn double_delayed(heap: Heap) {
    let payload = take_walled(heap, 48);
    tell_double(payload, 48);
    give(heap, payload, 48);
    for _ in 0..1024 {
        let again = take(heap, 48);
        give(heap, again, 48);
    }
    give(heap, payload, 48);
}

fn double_interleaved(heap: Heap) {
    let first = take_walled(heap, 48);
    let second = take_walled(heap, 48);
    tell_double(first, 48);
    give(heap, first, 48);
    give(heap, second, 48);
    give(heap, first, 48);
}

/// The block has been given to somebody else in between, who loses it; the third free is the one too many.
fn double_after_reuse(heap: Heap) {
    let payload = take_walled(heap, 48);
    tell_double(payload, 48);
    give(heap, payload, 48);
    let reused = take(heap, 48);
    assert_eq!(reused, payload);
    give(heap, payload, 48);
    give(heap, reused, 48);
}

fn double_in_swallowed(heap: Heap, order: [usize; 3], size: usize) {
    take(heap, 16);
    let blocks = [take(heap, size), take(heap, size), take(heap, size)];
    take(heap, 16);
    tell_double(blocks[1], size);
    for index in order {
        give(heap, blocks[index], size);
    }
    give(heap, blocks[1], size);
}

fn double_at_top(heap: Heap, size: usize) {
    take(heap, 16);
    let payload = take(heap, size);
    free_twice(heap, payload, size);
}

fn double_in_other_thread(heap: Heap) {
    let payload = take_walled(heap, 48);
    tell_double(payload, 48);
    give(heap, payload, 48);
    let address = payload.expose_provenance();
    let thread = std::thread::spawn(move || give(heap, ptr::with_exposed_provenance_mut(address), 48));
    let _ = thread.join();
}

/// What was written after the free does not hide it.
fn double_after_write(heap: Heap) {
    let payload = take_walled(heap, 48);
    tell_double(payload, 48);
    give(heap, payload, 48);
    // SAFETY: the memory is still mapped; the write is the fault that is tested.
    unsafe { payload.write_bytes(0x42, 48) };
    give(heap, payload, 48);
}

fn double_by_pointer(heap: Heap) {
    let payload = take_walled(heap, 48);
    tell(&format!("smalloc: double free: {payload:p} is in a free segment"));
    let payload = NonNull::new(payload).expect("it was allocated");
    heap.free_by_pointer(payload);
    heap.free_by_pointer(payload);
}

fn realloc_after_free(heap: Heap, size: usize, new_size: usize) {
    let payload = take_walled(heap, size);
    tell_double(payload, size);
    give(heap, payload, size);
    // SAFETY: misuse is what is tested.
    let _ = unsafe { heap.realloc(payload, layout(size, 1), new_size) };
}

const DOUBLE: &str = "smalloc: double free: ";
const DOUBLES: [Misuse; 16] = [
    ("double_at_once", DOUBLE, |heap| free_twice(heap, take_walled(heap, 32), 32)),
    ("double_delayed", DOUBLE, double_delayed),
    ("double_interleaved", DOUBLE, double_interleaved),
    ("double_after_reuse", DOUBLE, double_after_reuse),
    ("double_page", DOUBLE, |heap| free_twice(heap, take_walled(heap, 4096), 4096)),
    ("double_megabyte", DOUBLE, |heap| free_twice(heap, take_walled(heap, 1 << 20), 1 << 20)),
    ("double_large", DOUBLE, |heap| free_twice(heap, take_walled(heap, 96 << 20), 96 << 20)),
    ("double_swallowed_from_below", DOUBLE, |heap| double_in_swallowed(heap, [0, 1, 2], 48)),
    ("double_swallowed_from_above", DOUBLE, |heap| double_in_swallowed(heap, [2, 1, 0], 48)),
    ("double_swallowed_large", DOUBLE, |heap| double_in_swallowed(heap, [0, 2, 1], 70_000)),
    ("double_at_top", DOUBLE, |heap| double_at_top(heap, 32)),
    ("double_at_top_large", DOUBLE, |heap| double_at_top(heap, 5_000_000)),
    ("double_in_other_thread", DOUBLE, double_in_other_thread),
    ("double_after_write", DOUBLE, double_after_write),
    ("double_by_pointer", DOUBLE, double_by_pointer),
    ("double_by_realloc", DOUBLE, |heap| realloc_after_free(heap, 48, 480)),
];

// ---- pointers into segments --------------------------------------------------------------------------------------

fn interior(heap: Heap, size: usize, inside: usize) {
    let payload = take_walled(heap, size).wrapping_add(inside);
    let taken = size.next_multiple_of(16);
    tell(&format!(
        "smalloc: interior pointer: {payload:p} is inside a segment of {taken} bytes, {inside} bytes from its start \
         (layout of {size} bytes)"
    ));
    give(heap, payload, size);
}

fn interior_by_pointer(heap: Heap) {
    let payload = take_walled(heap, 64).wrapping_add(48);
    tell(&format!(
        "smalloc: interior pointer: {payload:p} is inside a segment of 64 bytes, 48 bytes from its start"
    ));
    heap.free_by_pointer(NonNull::new(payload).expect("inside a block"));
}

fn interior_realloc(heap: Heap) {
    let payload = take_walled(heap, 64).wrapping_add(16);
    tell(&format!(
        "smalloc: interior pointer: {payload:p} is inside a segment of 64 bytes, 16 bytes from its start (layout of \
         48 bytes)"
    ));
    // SAFETY: misuse is what is tested.
    let _ = unsafe { heap.realloc(payload, layout(48, 1), 20) };
}

fn unaligned(heap: Heap, size: usize, by: usize) {
    let payload = take_walled(heap, size).wrapping_add(by);
    tell(&format!(
        "smalloc: unaligned pointer: {payload:p} is not a multiple of 16 (layout of {size} bytes)"
    ));
    give(heap, payload, size);
}

const INTERIOR: &str = "smalloc: interior pointer: ";
const UNALIGNED: &str = "smalloc: unaligned pointer: ";
const INSIDE: [Misuse; 9] = [
    ("interior_second_granule", INTERIOR, |heap| interior(heap, 32, 16)),
    ("interior_last_granule", INTERIOR, |heap| interior(heap, 1000, 992)),
    ("interior_page", INTERIOR, |heap| interior(heap, 12_288, 4096)),
    ("interior_large", INTERIOR, |heap| interior(heap, 64 << 20, 33 << 20)),
    ("interior_by_pointer", INTERIOR, interior_by_pointer),
    ("interior_by_realloc", INTERIOR, interior_realloc),
    ("unaligned_by_one", UNALIGNED, |heap| unaligned(heap, 64, 1)),
    ("unaligned_by_eight", UNALIGNED, |heap| unaligned(heap, 64, 8)),
    ("unaligned_large", UNALIGNED, |heap| unaligned(heap, 1 << 20, (1 << 19) + 15)),
];

// ---- pointers from elsewhere -------------------------------------------------------------------------------------

/// Frees an address that is not the heap's, which has one block of 64 bytes at the start of its region.
fn foreign(heap: Heap, address: fn(*mut u8) -> *mut u8) {
    let base = take(heap, 64);
    let payload = address(base);
    let end = base.wrapping_add(heap.known());
    tell(&format!(
        "smalloc: foreign pointer: {payload:p} is not in the region {base:p} to {end:p} (layout of 24 bytes)"
    ));
    give(heap, payload, 24);
}

fn on_the_stack(heap: Heap) {
    foreign(heap, |_| {
        let mut local = [0_u128; 4];
        std::hint::black_box(local.as_mut_ptr().cast())
    });
}

fn foreign_realloc(heap: Heap) {
    let base = take(heap, 64);
    let end = base.wrapping_add(heap.known());
    tell(&format!(
        "smalloc: foreign pointer: 0x10 is not in the region {base:p} to {end:p} (layout of 8 bytes)"
    ));
    // SAFETY: misuse is what is tested.
    let _ = unsafe { heap.realloc(ptr::without_provenance_mut(16), layout(8, 8), 16) };
}

fn foreign_by_pointer(heap: Heap) {
    let base = take(heap, 64);
    let end = base.wrapping_add(heap.known());
    let other = Box::into_raw(Box::new(7_u64)).cast::<u8>();
    tell(&format!("smalloc: foreign pointer: {other:p} is not in the region {base:p} to {end:p}"));
    heap.free_by_pointer(NonNull::new(other).expect("a box"));
}

const FOREIGN: &str = "smalloc: foreign pointer: ";
const ELSEWHERE: [Misuse; 11] = [
    ("foreign_one", FOREIGN, |heap| foreign(heap, |_| ptr::without_provenance_mut(1))),
    ("foreign_null", FOREIGN, |heap| foreign(heap, |_| ptr::null_mut())),
    ("foreign_highest", FOREIGN, |heap| foreign(heap, |_| ptr::without_provenance_mut(usize::MAX & !15))),
    ("foreign_stack", FOREIGN, on_the_stack),
    ("foreign_static", FOREIGN, |heap| foreign(heap, |_| (&raw const HEAP).cast_mut().cast())),
    ("foreign_below_region", FOREIGN, |heap| foreign(heap, |base| base.wrapping_sub(16))),
    ("foreign_at_top", FOREIGN, |heap| foreign(heap, |base| base.wrapping_add(64))),
    ("foreign_close", FOREIGN, |heap| foreign(heap, |base| base.wrapping_add(4096))),
    ("foreign_far", FOREIGN, |heap| foreign(heap, |base| base.wrapping_add(1 << 30))),
    ("foreign_by_realloc", FOREIGN, foreign_realloc),
    ("foreign_by_pointer", FOREIGN, foreign_by_pointer),
];

// ---- layouts -----------------------------------------------------------------------------------------------------

fn tell_size(payload: *mut u8, taken: usize, wrong: Layout) {
    tell(&format!(
        "smalloc: wrong layout: {payload:p} has a segment of {} bytes, the layout of {} bytes (align {}) takes {}",
        taken.next_multiple_of(16),
        wrong.size(),
        wrong.align(),
        wrong.size().max(1).next_multiple_of(16)
    ));
}

fn wrong_size(heap: Heap, size: usize, wrong: usize) {
    let payload = take_walled(heap, size);
    tell_size(payload, size, layout(wrong, 1));
    give(heap, payload, wrong);
}

fn wrong_size_at_top(heap: Heap, size: usize, wrong: usize) {
    let payload = take(heap, size);
    tell_size(payload, size, layout(wrong, 8));
    // SAFETY: misuse is what is tested.
    unsafe { heap.dealloc(payload, layout(wrong, 8)) };
}

fn wrong_size_realloc(heap: Heap, new_size: usize) {
    let payload = take_walled(heap, 100);
    tell_size(payload, 100, layout(128, 4));
    // SAFETY: misuse is what is tested.
    let _ = unsafe { heap.realloc(payload, layout(128, 4), new_size) };
}

/// A block of the right size, 16 bytes behind a multiple of the alignment that its layout has now.
fn wrong_align(heap: Heap, size: usize, call: fn(Heap, *mut u8, Layout)) {
    let payload = take_walled(heap, size);
    assert_eq!(payload.addr() % 64, 16);
    tell(&format!("smalloc: wrong layout: {payload:p} is not aligned to 64"));
    call(heap, payload, layout(size, 64));
}

fn dealloc_as(heap: Heap, payload: *mut u8, layout: Layout) {
    // SAFETY: misuse is what is tested.
    unsafe { heap.dealloc(payload, layout) }
}

fn realloc_as(heap: Heap, payload: *mut u8, layout: Layout) {
    // SAFETY: misuse is what is tested.
    let _ = unsafe { heap.realloc(payload, layout, 2 * layout.size()) };
}

const LAYOUT: &str = "smalloc: wrong layout: ";
const LAYOUTS: [Misuse; 12] = [
    ("size_one_granule_more", LAYOUT, |heap| wrong_size(heap, 32, 33)),
    ("size_one_granule_less", LAYOUT, |heap| wrong_size(heap, 33, 32)),
    ("size_zero", LAYOUT, |heap| wrong_size(heap, 17, 0)),
    ("size_much_more", LAYOUT, |heap| wrong_size(heap, 100, 1 << 40)),
    ("size_much_less", LAYOUT, |heap| wrong_size(heap, 64 << 20, 100)),
    ("size_large", LAYOUT, |heap| wrong_size(heap, 1 << 20, (1 << 20) + 1)),
    ("size_at_top", LAYOUT, |heap| wrong_size_at_top(heap, 80, 96)),
    ("size_by_realloc", LAYOUT, |heap| wrong_size_realloc(heap, 1000)),
    ("size_by_realloc_down", LAYOUT, |heap| wrong_size_realloc(heap, 10)),
    ("align", LAYOUT, |heap| wrong_align(heap, 64, dealloc_as)),
    ("align_large", LAYOUT, |heap| wrong_align(heap, 70_000, dealloc_as)),
    ("align_by_realloc", LAYOUT, |heap| wrong_align(heap, 64, realloc_as)),
];

// ---- running them ------------------------------------------------------------------------------------------------

const HEAPS: [(&str, Heap); 3] = [("indexed", &INDEXED), ("linked", &LINKED), ("installed", &HEAP)];
/// Names how a case is run.
const MODE: &str = "SMALLOC_TEST_MODE";
/// Names what a program does before anything else.
const FIRST: &str = "SMALLOC_TEST_FIRST";

fn misuses() -> impl Iterator<Item = Misuse> {
    [&DOUBLES[..], &INSIDE, &ELSEWHERE, &LAYOUTS].into_iter().flatten().copied()
}

/// Not a test: what the tests below start, with `<heap>/<case>` as its name.
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

/// A hook that allocates and speaks, as those of real programs do. Nothing of it may be seen.
fn run_with_hook(heap: Heap, run: fn(Heap)) {
    std::panic::set_hook(Box::new(|info| {
        let trace = std::backtrace::Backtrace::force_capture();
        eprintln!("the hook has run: {info} {trace}");
    }));
    run(heap);
}

/// In the child of a process whose other threads allocate. Dies as the child died.
fn run_in_fork(heap: Heap, run: fn(Heap)) {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    let threads: Vec<_> = (0..2).map(|_| std::thread::spawn(|| allocate_until(&ENOUGH))).collect();
    // SAFETY: the child uses what is safe after a fork: this heap and the calls of the system.
    let child = unsafe { libc::fork() };
    if child == 0 {
        run(heap);
        // SAFETY: ends the process.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the child is this process's own.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
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

/// The heap of the program itself, on which the hook, the backtrace and the threads of the program allocate too.
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

// ---- before the first allocation ---------------------------------------------------------------------------------

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
    let line = "smalloc: foreign pointer: 0x1 is not in the region 0x0 to 0x0";
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
