//! Payloads beside memory that the program has locked.

use super::{MIB, holds, layout, write};
use smalloc::{FreeList, Heap, Indexed, Linked};
use std::fs;

/// Whether the mapping that holds an address is locked.
fn is_locked(at: usize) -> bool {
    let maps = fs::read_to_string("/proc/self/smaps").expect("the system tells");
    let mut here = false;
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let address = |text| usize::from_str_radix(text, 16).ok();
        if let Some((Some(start), Some(end))) = range.map(|(start, end)| (address(start), address(end))) {
            here = (start..end).contains(&at);
        }
        if here && line.starts_with("VmFlags:") {
            return line.split(' ').any(|flag| flag == "lo");
        }
    }
    false
}

/// Bytes that the system counts as locked.
fn locked_bytes() -> u64 {
    crate::case::status_bytes("VmLck")
}

fn lock(payload: *mut u8, bytes: usize) -> bool {
    // SAFETY: the bytes belong to the payload.
    unsafe { libc::mlock(payload.cast(), bytes) == 0 }
}

/// On Linux 6.18 `mremap` with `MREMAP_DONTUNMAP` unlocks the whole old mapping, also pages that are not moved, and
/// counts the moved bytes as locked for ever. So locked memory is copied.
pub fn neighbours_stay_locked() {
    neighbours::<Indexed>();
    neighbours::<Linked>();
}

fn neighbours<L: FreeList>() {
    let mut heap = super::heap::<L>();
    // From a page on, since locked memory beside it is in the same mapping.
    let first = heap.alloc(layout(2 * MIB));
    let neighbour = heap.alloc(layout(2 * MIB));
    write(first, 0, 2 * MIB, 1);
    write(neighbour, 0, 2 * MIB, 2);
    if !lock(first, 2 * MIB) || !lock(neighbour, 2 * MIB) {
        return;
    }
    let (inside, counted) = (neighbour.addr() + MIB, locked_bytes());
    assert!(is_locked(inside));
    // SAFETY: the payload is live and has this size.
    let moved = unsafe { heap.realloc(first, layout(2 * MIB), 3 * MIB) };
    assert!(moved != first && holds(moved, 2 * MIB, 1) && holds(neighbour, 2 * MIB, 2));
    assert!(is_locked(inside), "the neighbour is unlocked");
    assert!(is_locked(first.addr() + MIB), "the old place is the program's to unlock");
    assert_eq!(locked_bytes(), counted);
    heap.check().expect("the heap is sound");
    drop(heap);
    assert_eq!(locked_bytes(), 0, "what is unmapped is not counted any more");
}

/// A payload that begins in the middle of locked memory, so that it is locked in part.
pub fn parts_stay_locked() {
    let mut heap: Heap<Indexed> = super::heap();
    let first = heap.alloc(layout(8 * MIB));
    let neighbour = heap.alloc(layout(8 * MIB));
    write(first, 0, 8 * MIB, 1);
    // SAFETY: both payloads are in one region, the second behind the first.
    let half = unsafe { first.add(4 * MIB) };
    if !lock(half, 8 * MIB) {
        return;
    }
    // SAFETY: the payload is live and has this size.
    let moved = unsafe { heap.realloc(first, layout(8 * MIB), 16 * MIB) };
    assert!(moved != first && holds(moved, 8 * MIB, 1));
    assert!(is_locked(neighbour.addr() + MIB) && is_locked(half.addr() + MIB));
}
