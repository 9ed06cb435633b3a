//! A pointer into a segment, not to its start.

use crate::case::tell;
use crate::{Heap, Misuse, give, layout, take_walled};
use std::ptr::NonNull;

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
    // SAFETY: misuse is tested here.
    let _ = unsafe { heap.realloc(payload, layout(48, 1), 20) };
}

fn unaligned(heap: Heap, size: usize, by: usize) {
    let payload = take_walled(heap, size).wrapping_add(by);
    tell(&format!(
        "smalloc: unaligned pointer: {payload:p} is not a multiple of 16 (layout of {size} bytes)"
    ));
    give(heap, payload, size);
}

pub const INTERIOR: &str = "smalloc: interior pointer: ";
pub const UNALIGNED: &str = "smalloc: unaligned pointer: ";
pub const INSIDE: [Misuse; 9] = [
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
