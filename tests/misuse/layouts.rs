//! A layout that does not match the block.

use crate::case::tell;
use crate::{Heap, Misuse, give, layout, take, take_walled};
use std::alloc::Layout;

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
    // SAFETY: misuse is tested here.
    unsafe { heap.dealloc(payload, layout(wrong, 8)) };
}

fn wrong_size_realloc(heap: Heap, new_size: usize) {
    let payload = take_walled(heap, 100);
    tell_size(payload, 100, layout(128, 4));
    // SAFETY: misuse is tested here.
    let _ = unsafe { heap.realloc(payload, layout(128, 4), new_size) };
}

fn wrong_size_realloc_zeroed(heap: Heap) {
    let payload = take_walled(heap, 100);
    tell_size(payload, 100, layout(128, 4));
    heap.resize_zeroed(payload, layout(128, 4), 10);
}

/// A block of the right size, 16 bytes above a multiple of the alignment in the wrong layout.
fn wrong_align(heap: Heap, size: usize, call: fn(Heap, *mut u8, Layout)) {
    let payload = take_walled(heap, size);
    assert_eq!(payload.addr() % 64, 16);
    tell(&format!("smalloc: wrong layout: {payload:p} is not aligned to 64"));
    call(heap, payload, layout(size, 64));
}

fn dealloc_as(heap: Heap, payload: *mut u8, layout: Layout) {
    // SAFETY: misuse is tested here.
    unsafe { heap.dealloc(payload, layout) }
}

pub fn realloc_as(heap: Heap, payload: *mut u8, layout: Layout) {
    // SAFETY: misuse is tested here.
    let _ = unsafe { heap.realloc(payload, layout, 2 * layout.size()) };
}

pub const LAYOUT: &str = "smalloc: wrong layout: ";
pub const LAYOUTS: [Misuse; 13] = [
    ("size_one_granule_more", LAYOUT, |heap| wrong_size(heap, 32, 33)),
    ("size_one_granule_less", LAYOUT, |heap| wrong_size(heap, 33, 32)),
    ("size_zero", LAYOUT, |heap| wrong_size(heap, 17, 0)),
    ("size_much_more", LAYOUT, |heap| wrong_size(heap, 100, 1 << 40)),
    ("size_much_less", LAYOUT, |heap| wrong_size(heap, 64 << 20, 100)),
    ("size_large", LAYOUT, |heap| wrong_size(heap, 1 << 20, (1 << 20) + 1)),
    ("size_at_top", LAYOUT, |heap| wrong_size_at_top(heap, 80, 96)),
    ("size_by_realloc", LAYOUT, |heap| wrong_size_realloc(heap, 1000)),
    ("size_by_realloc_down", LAYOUT, |heap| wrong_size_realloc(heap, 10)),
    ("size_by_realloc_zeroed", LAYOUT, wrong_size_realloc_zeroed),
    ("align", LAYOUT, |heap| wrong_align(heap, 64, dealloc_as)),
    ("align_large", LAYOUT, |heap| wrong_align(heap, 70_000, dealloc_as)),
    ("align_by_realloc", LAYOUT, |heap| wrong_align(heap, 64, realloc_as)),
];
