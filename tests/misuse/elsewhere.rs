//! A pointer that never came from the heap.

use crate::case::tell;
use crate::{HEAP, Heap, Misuse, give, layout, take};
use std::ptr::{self, NonNull};

/// Frees an address outside of the heap, which has one block of 64 bytes at the start of its region.
fn foreign(heap: Heap, address: fn(*mut u8) -> *mut u8) {
    let base = take(heap, 64);
    let payload = address(base);
    let end = base.wrapping_add(heap.known());
    tell(&format!(
        "smalloc: foreign pointer: {payload:p} is outside of the allocated range, {base:p} to {end:p} (layout of 24 bytes)"
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
        "smalloc: foreign pointer: 0x10 is outside of the allocated range, {base:p} to {end:p} (layout of 8 bytes)"
    ));
    // SAFETY: misuse is tested here.
    let _ = unsafe { heap.realloc(ptr::without_provenance_mut(16), layout(8, 8), 16) };
}

fn foreign_by_pointer(heap: Heap) {
    let base = take(heap, 64);
    let end = base.wrapping_add(heap.known());
    let other = Box::into_raw(Box::new(7_u64)).cast::<u8>();
    tell(&format!(
        "smalloc: foreign pointer: {other:p} is outside of the allocated range, {base:p} to {end:p}"
    ));
    heap.free_by_pointer(NonNull::new(other).expect("a box"));
}

pub const FOREIGN: &str = "smalloc: foreign pointer: ";
pub const ELSEWHERE: [Misuse; 11] = [
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
