//! Freeing a block that is already free.

use crate::case::tell;
use crate::{Heap, Misuse, give, layout, take, take_walled};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

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

/// The block was handed out again in between, and its new owner loses it; the third free is one too many.
fn double_after_reuse(heap: Heap) {
    let payload = take_walled(heap, 48);
    tell_double(payload, 48);
    give(heap, payload, 48);
    let mut reused = take(heap, 48);
    // At once, or as soon as it has left the quarantine.
    while reused != payload {
        give(heap, reused, 48);
        reused = take(heap, 48);
    }
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

/// Nothing may allocate between the two frees, or the block would be in use again. So the thread is started first.
fn double_in_other_thread(heap: Heap, size: usize) {
    static STARTED: AtomicBool = AtomicBool::new(false);
    static ADDRESS: AtomicUsize = AtomicUsize::new(0);
    let thread = std::thread::spawn(move || {
        STARTED.store(true, Ordering::Release);
        while ADDRESS.load(Ordering::Acquire) == 0 {
            std::hint::spin_loop();
        }
        give(heap, ptr::with_exposed_provenance_mut(ADDRESS.load(Ordering::Relaxed)), size);
    });
    while !STARTED.load(Ordering::Acquire) {
        std::hint::spin_loop();
    }
    let payload = take_walled(heap, size);
    tell_double(payload, size);
    give(heap, payload, size);
    ADDRESS.store(payload.expose_provenance(), Ordering::Release);
    let _ = thread.join();
}

/// Bytes written after the free do not hide the double free.
fn double_after_write(heap: Heap) {
    let payload = take_walled(heap, 48);
    tell_double(payload, 48);
    give(heap, payload, 48);
    // SAFETY: the memory is still mapped; the write is the fault to be found.
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
    // SAFETY: misuse is tested here.
    let _ = unsafe { heap.realloc(payload, layout(size, 1), new_size) };
}

fn grown_after_free(heap: Heap) {
    let payload = take_walled(heap, 48);
    tell_double(payload, 48);
    give(heap, payload, 48);
    heap.resize_zeroed(payload, layout(48, 1), 480);
}

pub const DOUBLE: &str = "smalloc: double free: ";
pub const DOUBLES: [Misuse; 18] = [
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
    ("double_in_other_thread", DOUBLE, |heap| double_in_other_thread(heap, 48)),
    ("double_large_in_other_thread", DOUBLE, |heap| double_in_other_thread(heap, 96 << 20)),
    ("double_after_write", DOUBLE, double_after_write),
    ("double_by_pointer", DOUBLE, double_by_pointer),
    ("double_by_realloc", DOUBLE, |heap| realloc_after_free(heap, 48, 480)),
    ("double_by_realloc_zeroed", DOUBLE, grown_after_free),
];
