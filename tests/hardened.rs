//! The feature `hardened`: each fault is reported with one exact line, and correct programs are not reported.

mod case;

use case::{Case, run, tell};
use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();
static INDEXED: SmallocGlobal<Indexed> = SmallocGlobal::with_region_size(64 << 20);
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(64 << 20);

/// The largest number of blocks in quarantine.
const QUEUE_BLOCKS: usize = 256;
/// The largest number of bytes in quarantine.
const QUEUE_BYTES: usize = 1 << 20;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

fn take(heap: &impl GlobalAlloc, size: usize) -> *mut u8 {
    // SAFETY: the layout is not empty.
    let block = unsafe { heap.alloc(layout(size)) };
    assert!(!block.is_null());
    block
}

fn give(heap: &impl GlobalAlloc, block: *mut u8, size: usize) {
    // SAFETY: misuse is tested here, if the block is not in use.
    unsafe { heap.dealloc(block, layout(size)) }
}

fn resize(heap: &impl GlobalAlloc, block: *mut u8, size: usize, new_size: usize) -> *mut u8 {
    // SAFETY: as above.
    unsafe { heap.realloc(block, layout(size), new_size) }
}

fn write(block: *mut u8, offset: usize, byte: u8) {
    // SAFETY: the memory is mapped. If the byte does not belong to the block, the write is the fault to be found.
    unsafe { block.add(offset).write_volatile(byte) };
}

/// Frees so many other blocks that all earlier ones have left the queue.
fn turn_over(heap: &impl GlobalAlloc) {
    let blocks = [(); QUEUE_BLOCKS].map(|()| take(heap, 1000));
    blocks.into_iter().for_each(|block| give(heap, block, 1000));
}

/// A block of a size that fits nowhere else, between two blocks in use.
fn take_walled(heap: &impl GlobalAlloc, size: usize) -> *mut u8 {
    take(heap, 16);
    let block = take(heap, size);
    take(heap, 16);
    block
}

// ---- what is found ---------------------------------------------------------------------------------------------------

fn tell_write(start: *mut u8, offset: usize, size: usize) {
    tell(&format!(
        "smalloc: write after free: {start:p}: the byte at {offset} of {size} freed bytes has changed"
    ));
}

/// Found when the block leaves the queue.
fn write_while_resting(heap: &impl GlobalAlloc) {
    let block = take_walled(heap, 48);
    give(heap, block, 48);
    tell_write(block, 5, 48);
    write(block, 5, 0);
    turn_over(heap);
}

/// Found when the memory is handed out again.
fn write_when_free(heap: &impl GlobalAlloc) {
    let block = take_walled(heap, 48);
    give(heap, block, 48);
    turn_over(heap);
    tell_write(block, 47, 48);
    write(block, 47, 0);
    assert_ne!(take(heap, 48), block);
}

/// Found when a neighbour grows into it.
fn write_before_growing(heap: &impl GlobalAlloc) {
    take(heap, 16);
    let [lower, upper] = [take(heap, 48), take(heap, 160)];
    take(heap, 16);
    give(heap, upper, 160);
    turn_over(heap);
    tell_write(upper, 30, 32);
    write(upper, 30, 1);
    resize(heap, lower, 48, 80);
}

/// Found in the old place of a payload that a `realloc` has moved.
fn write_after_moving(heap: &impl GlobalAlloc) {
    let block = take_walled(heap, 48);
    assert_ne!(resize(heap, block, 48, 480), block);
    tell_write(block, 0, 48);
    write(block, 0, 1);
    turn_over(heap);
}

/// Found in a large payload's old place, which keeps its pages.
fn write_after_moving_pages(heap: &impl GlobalAlloc) {
    let block = take_walled(heap, 2 << 20);
    assert_ne!(resize(heap, block, 2 << 20, 4 << 20), block);
    tell_write(block, 1 << 20, 2 << 20);
    write(block, 1 << 20, 1);
    take(heap, 2 << 20);
}

/// Found in the tail that a `realloc` has freed, though that is not quarantined.
fn write_after_shrinking(heap: &impl GlobalAlloc) {
    let block = take_walled(heap, 480);
    assert_eq!(resize(heap, block, 480, 48), block);
    let tail = block.wrapping_add(48);
    tell_write(tail, 200, 432);
    write(tail, 200, 1);
    take(heap, 432);
}

/// Padding in front of an aligned block has never been handed out.
fn write_to_padding(heap: &impl GlobalAlloc) {
    let below = take(heap, 16);
    let aligned = Layout::from_size_align(64, 4096).expect("a layout");
    // SAFETY: the layout is not empty.
    assert!(!unsafe { heap.alloc(aligned) }.is_null());
    let padding = below.wrapping_add(16);
    tell_write(padding, 9, 1024);
    write(padding, 9, 1);
    take(heap, 1024);
}

fn overflow(heap: &impl GlobalAlloc, size: usize, behind: usize, find: fn(&dyn GlobalAlloc, *mut u8, usize)) {
    let block = take_walled(heap, size);
    tell(&format!(
        "smalloc: overflow: {block:p}: the byte {behind} bytes behind the end of its {size} bytes has changed"
    ));
    write(block, size + behind, 0);
    find(heap, block, size);
}

fn free_dyn(heap: &dyn GlobalAlloc, block: *mut u8, size: usize) {
    // SAFETY: misuse is tested here.
    unsafe { heap.dealloc(block, layout(size)) };
}

fn resize_dyn(heap: &dyn GlobalAlloc, block: *mut u8, size: usize) {
    // SAFETY: as above.
    unsafe { heap.realloc(block, layout(size), size + 1) };
}

/// The canary moves with the end of a block.
fn overflow_after_resizing(heap: &impl GlobalAlloc) {
    let block = take_walled(heap, 48);
    assert_eq!(resize(heap, block, 48, 37), block);
    tell(&format!(
        "smalloc: overflow: {block:p}: the byte 2 bytes behind the end of its 37 bytes has changed"
    ));
    write(block, 39, 0);
    give(heap, block, 37);
}

fn tell_double(block: *mut u8, end: &str) {
    tell(&format!("smalloc: double free: {block:p} is in a free segment{end}"));
}

fn double(heap: &impl GlobalAlloc, between: fn(*mut u8), again: fn(&dyn GlobalAlloc, *mut u8, usize)) {
    let block = take_walled(heap, 48);
    tell_double(block, " (layout of 48 bytes)");
    give(heap, block, 48);
    between(block);
    again(heap, block, 48);
}

fn double_with_other_layout(heap: &impl GlobalAlloc) {
    let block = take_walled(heap, 48);
    tell_double(block, " (layout of 480 bytes)");
    give(heap, block, 48);
    give(heap, block, 480);
}

fn double_by_pointer<L: FreeList>(heap: &SmallocGlobal<L>) {
    let block = take_walled(heap, 48);
    tell_double(block, "");
    let block = NonNull::new(block).expect("it was allocated");
    // SAFETY: misuse is tested here.
    unsafe { heap.sfree(block) };
    // SAFETY: as above.
    unsafe { heap.sfree(block) };
}

fn double_in_other_thread() {
    let block = take_walled(&INDEXED, 48);
    tell_double(block, " (layout of 48 bytes)");
    give(&INDEXED, block, 48);
    let address = block.expose_provenance();
    let thread = std::thread::spawn(move || give(&INDEXED, ptr::with_exposed_provenance_mut(address), 48));
    let _ = thread.join();
}

/// Freed while in quarantine, moved from while in quarantine, and after it has left the queue.
fn double_of_the_last_to_rest(heap: &impl GlobalAlloc) {
    let block = take_walled(heap, 48);
    tell_double(block, " (layout of 48 bytes)");
    give(heap, block, 48);
    for _ in 1..QUEUE_BLOCKS {
        let other = take(heap, 48);
        give(heap, other, 48);
    }
    give(heap, block, 48);
}

const WRITE: &str = "smalloc: write after free: ";
const OVERFLOW: &str = "smalloc: overflow: ";
const DOUBLE: &str = "smalloc: double free: ";

const FOUND: [(&str, Case); 31] = [
    (WRITE, ("write_while_resting", || write_while_resting(&INDEXED))),
    (WRITE, ("write_while_resting_linked", || write_while_resting(&LINKED))),
    (WRITE, ("write_when_free", || write_when_free(&INDEXED))),
    (WRITE, ("write_when_free_linked", || write_when_free(&LINKED))),
    (WRITE, ("write_before_growing", || write_before_growing(&INDEXED))),
    (WRITE, ("write_before_growing_linked", || write_before_growing(&LINKED))),
    (WRITE, ("write_after_moving", || write_after_moving(&INDEXED))),
    (WRITE, ("write_after_moving_linked", || write_after_moving(&LINKED))),
    (WRITE, ("write_after_moving_pages", || write_after_moving_pages(&INDEXED))),
    (WRITE, ("write_after_shrinking", || write_after_shrinking(&INDEXED))),
    (WRITE, ("write_after_shrinking_linked", || write_after_shrinking(&LINKED))),
    (WRITE, ("write_to_padding", || write_to_padding(&INDEXED))),
    (WRITE, ("write_to_padding_linked", || write_to_padding(&LINKED))),
    (OVERFLOW, ("overflow_by_one", || overflow(&INDEXED, 41, 0, free_dyn))),
    (OVERFLOW, ("overflow_by_one_linked", || overflow(&LINKED, 41, 0, free_dyn))),
    (OVERFLOW, ("overflow_of_last_byte", || overflow(&INDEXED, 33, 14, free_dyn))),
    (OVERFLOW, ("overflow_of_large", || overflow(&INDEXED, 2_000_001, 3, free_dyn))),
    (OVERFLOW, ("overflow_seen_by_realloc", || overflow(&INDEXED, 41, 0, resize_dyn))),
    (OVERFLOW, ("overflow_after_resizing", || overflow_after_resizing(&INDEXED))),
    (OVERFLOW, ("overflow_after_resizing_linked", || overflow_after_resizing(&LINKED))),
    (DOUBLE, ("double", || double(&INDEXED, |_| {}, free_dyn))),
    (DOUBLE, ("double_linked", || double(&LINKED, |_| {}, free_dyn))),
    (DOUBLE, ("double_after_write", || double(&INDEXED, |block| write(block, 0, 1), free_dyn))),
    (DOUBLE, ("double_by_realloc", || double(&INDEXED, |_| {}, resize_dyn))),
    (DOUBLE, ("double_with_other_layout", || double_with_other_layout(&INDEXED))),
    (DOUBLE, ("double_by_pointer", || double_by_pointer(&INDEXED))),
    (DOUBLE, ("double_by_pointer_linked", || double_by_pointer(&LINKED))),
    (DOUBLE, ("double_in_other_thread", double_in_other_thread)),
    (DOUBLE, ("double_of_the_last_to_rest", || double_of_the_last_to_rest(&INDEXED))),
    (DOUBLE, ("double_after_rest", || double(&INDEXED, |_| turn_over(&INDEXED), free_dyn))),
    (DOUBLE, ("double_after_rest_linked", || double(&LINKED, |_| turn_over(&LINKED), free_dyn))),
];

/// Not a test: the next one starts it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&FOUND.map(|(_, case)| case));
}

#[test]
fn faults_abort_with_one_line() {
    for (start, (name, _)) in FOUND {
        run(name).assert_aborts_as_told(start);
    }
}

// ---- what is right ---------------------------------------------------------------------------------------------------

/// A block is handed out again after so many others have been freed, and no sooner.
#[test]
fn freed_blocks_are_quarantined() {
    let heap: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
    let block = take(&heap, 48);
    take(&heap, 16);
    give(&heap, block, 48);
    for _ in 0..QUEUE_BLOCKS {
        let other = take(&heap, 48);
        assert_ne!(other, block);
        give(&heap, other, 48);
    }
    assert_eq!(heap.stats().live_segments, QUEUE_BLOCKS + 1);
    assert_eq!(take(&heap, 48), block);
}

#[test]
fn queue_is_bounded_in_bytes() {
    let heap: SmallocGlobal = SmallocGlobal::with_region_size(16 << 20);
    let blocks = [(); 4].map(|()| take(&heap, QUEUE_BYTES / 4));
    let [one_more, too_large] = [take(&heap, 16), take(&heap, QUEUE_BYTES + 1)];
    take(&heap, 16);
    blocks.into_iter().for_each(|block| give(&heap, block, QUEUE_BYTES / 4));
    // A block too large for the quarantine does not push the others out.
    give(&heap, too_large, QUEUE_BYTES + 1);
    assert_eq!(take(&heap, QUEUE_BYTES + 1), too_large);
    give(&heap, one_more, 16);
    assert_eq!(take(&heap, QUEUE_BYTES / 4), blocks[0]);
}

#[test]
fn the_quarantine_is_emptied_before_a_request_is_refused() {
    let heap: SmallocGlobal = SmallocGlobal::with_region_size(1 << 16);
    for _ in 0..1000 {
        let block = take(&heap, 1000);
        give(&heap, block, 1000);
    }
    let all = take(&heap, 1 << 16);
    give(&heap, all, 1 << 16);
    assert_eq!(take(&heap, 1 << 16), all);
    // SAFETY: the layout is not empty.
    assert!(unsafe { heap.alloc(layout(1)) }.is_null());
}

/// Without a layout the start of a block's canary is unknown.
#[test]
fn without_a_layout_no_canary_is_checked() {
    let block = take(&INDEXED, 41);
    write(block, 41, 0);
    // SAFETY: the block is in use.
    unsafe { INDEXED.sfree(NonNull::new(block).expect("it was allocated")) };
}

struct Held {
    block: *mut u8,
    layout: Layout,
    byte: u8,
}

impl Held {
    fn fill(&self) {
        // SAFETY: the block has so many bytes.
        unsafe { self.block.write_bytes(self.byte, self.layout.size()) };
    }

    fn assert_filled(&self, size: usize, byte: u8) {
        // SAFETY: the block has so many bytes, and all were written.
        let bytes = unsafe { std::slice::from_raw_parts(self.block, size) };
        assert!(bytes.iter().all(|&found| found == byte));
    }
}

/// All calls, with sizes that make blocks grow, shrink and move: contents stay, zeroed memory is zero, and nothing is
/// reported.
fn live_long<L: FreeList>(heap: &SmallocGlobal<L>) {
    let mut held: Vec<Held> = Vec::new();
    let mut random = 1_u64;
    let mut next = |bound: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % bound
    };
    for step in 0..40_000_usize {
        let size = if next(50) == 0 { 1 + next(200_000) } else { 1 + next(300) };
        let byte = step as u8;
        if held.is_empty() || next(5) < 2 && held.len() < 400 {
            let align = if next(8) == 0 { 32 << next(8) } else { 1 };
            let layout = Layout::from_size_align(size, align).expect("a layout");
            let zeroed = next(2) == 0;
            // SAFETY: the layout is not empty.
            let block = unsafe { if zeroed { heap.alloc_zeroed(layout) } else { heap.alloc(layout) } };
            assert!(!block.is_null() && block.addr() % align == 0);
            let new = Held { block, layout, byte };
            if zeroed {
                new.assert_filled(size, 0);
            }
            new.fill();
            held.push(new);
            continue;
        }
        let index = next(held.len());
        let old = held.swap_remove(index);
        old.assert_filled(old.layout.size(), old.byte);
        match next(5) {
            0 => {
                // SAFETY: the block is in use.
                unsafe { heap.sfree(NonNull::new(old.block).expect("it was allocated")) };
            }
            1 | 2 => {
                // SAFETY: the block is in use and has this layout.
                let block = unsafe { heap.realloc(old.block, old.layout, size) };
                let layout = Layout::from_size_align(size, old.layout.align()).expect("a layout");
                let new = Held { block, layout, byte };
                new.assert_filled(size.min(old.layout.size()), old.byte);
                new.fill();
                held.push(new);
            }
            // SAFETY: the block is in use and has this layout.
            _ => unsafe { heap.dealloc(old.block, old.layout) },
        }
    }
    for old in held {
        old.assert_filled(old.layout.size(), old.byte);
        // SAFETY: as above.
        unsafe { heap.dealloc(old.block, old.layout) };
    }
    heap.check().expect("the heap is whole");
    // An impossible request empties the quarantine.
    // SAFETY: the layout is not empty.
    assert!(unsafe { heap.alloc(layout(1 << 40)) }.is_null());
    let stats = heap.stats();
    assert_eq!((stats.live_segments, stats.free_segments, stats.top), (0, 1, 0));
    heap.check().expect("the heap is whole");
}

#[test]
fn correct_programs_are_not_reported_indexed() {
    live_long::<Indexed>(&SmallocGlobal::with_region_size(64 << 20));
}

#[test]
fn correct_programs_are_not_reported_linked() {
    live_long::<Linked>(&SmallocGlobal::with_region_size(64 << 20));
}

/// The heap of this program, used by several threads.
#[test]
fn threads_share_the_queue() {
    let threads = [(); 4].map(|()| {
        std::thread::spawn(|| {
            let words: Vec<String> = (0..20_000).map(|number| format!("{number:x}")).collect();
            words.iter().map(String::len).sum::<usize>()
        })
    });
    let sums = threads.map(|thread| thread.join().expect("it does not panic"));
    assert!(sums.iter().all(|&sum| sum == sums[0]));
    HEAP.check().expect("the heap is whole");
}

/// Freed memory is checked before it is handed out again.
fn check_sees<L: FreeList>(heap: &SmallocGlobal<L>, size: usize, invariant: &str) {
    let layout = layout(size);
    // SAFETY: the layout is not empty.
    let block = unsafe { heap.alloc(layout) };
    // SAFETY: the block is in use and has this layout.
    unsafe { heap.dealloc(block, layout) };
    assert_eq!(heap.check(), Ok(()));
    // SAFETY: the region stays mapped, and nothing else uses the byte. (Links lie in the first ones.)
    let place = unsafe { block.add(8) };
    // SAFETY: the region stays mapped, and nothing else uses the byte.
    let before = unsafe { place.replace(1) };
    assert_eq!(heap.check().unwrap_err().invariant, invariant);
    // SAFETY: as above.
    unsafe { place.write(before) };
    assert_eq!(heap.check(), Ok(()));
}

#[test]
fn a_check_sees_writes_after_a_free() {
    check_sees::<Indexed>(&SmallocGlobal::with_region_size(64 << 20), 100, "F2");
    check_sees::<Linked>(&SmallocGlobal::with_region_size(64 << 20), 100, "F2");
    // Larger than the quarantine.
    check_sees::<Indexed>(&SmallocGlobal::with_region_size(64 << 20), 2 << 20, "F1");
    check_sees::<Linked>(&SmallocGlobal::with_region_size(64 << 20), 2 << 20, "F1");
}
