//! If the system refuses a step, or has no room for it, the payload is copied, and no mapping is left behind.

use crate::case::{self, page};
use crate::{KIB, MIB, give, grow, heap, layout, mappings};
use smalloc::{Heap, Indexed};
use std::ptr;

/// From here on the system refuses to move pages with these flags, with `ENOMEM`.
fn refuse(flags: libc::c_int) {
    case::refuse(libc::SYS_mremap, 3, u32::MAX, flags.try_into().expect("a number"));
}

/// A heap whose tables are committed for more than is needed below, which takes mappings, too.
fn opened_heap() -> Heap<Indexed> {
    let mut heap = heap::<Indexed>();
    let all = heap.alloc(layout(64 * MIB));
    // SAFETY: the block is live and has this size.
    unsafe { heap.dealloc(all, layout(64 * MIB)) };
    heap.trim();
    heap
}

pub fn refused(flags: libc::c_int) {
    refuse(flags);
    // SAFETY: the call is refused whatever its arguments.
    let answer = unsafe { libc::mremap(ptr::null_mut(), 0, 0, flags, ptr::null_mut::<libc::c_void>()) };
    assert_eq!((answer, case::errno()), (libc::MAP_FAILED, libc::ENOMEM), "the filter bites");
    let mut heap = opened_heap();
    let elsewhere = |heap: &Heap<_>| case::mappings().len() - mappings(heap);
    let before = elsewhere(&heap);
    case::set_errno(77);
    let grown = grow(&mut heap, (64 * KIB, 16 * MIB), 0, 1);
    assert_eq!(case::errno(), 77);
    assert!(elsewhere(&heap) <= before + 1, "nothing is left on the way");
    give(&mut heap, grown, 16 * MIB);
    heap.trim();
    assert_eq!(mappings(&heap), 2);
}

/// Without addresses to spare pages cannot move; with some, they move again.
pub fn addresses_run_out() {
    let mut heap = heap::<Indexed>();
    let before = case::set_limit(libc::RLIMIT_AS, case::status_bytes("VmSize") + 512 * KIB as u64);
    let grown = grow(&mut heap, (64 * KIB, 16 * MIB), 100, 1);
    assert_eq!(mappings(&heap), 2);
    give(&mut heap, grown, 16 * MIB);
    heap.trim();
    case::set_limit(libc::RLIMIT_AS, before);
    let grown = grow(&mut heap, (64 * KIB, 16 * MIB), 100, 1);
    assert!(mappings(&heap) > 2);
    give(&mut heap, grown, 16 * MIB);
    heap.check().expect("the heap is sound");
}

/// A process that has as many mappings as it may have.
pub fn mappings_run_out() {
    let mut heap = opened_heap();
    let (mut pages, kind) = (Vec::with_capacity(1 << 20), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let mut map = |open: libc::c_int| {
        // SAFETY: a new mapping replaces nothing.
        let page = unsafe { libc::mmap(ptr::null_mut(), page(), open, kind, -1, 0) };
        pages.push(page);
        page != libc::MAP_FAILED
    };
    // Adjacent mappings with different permissions are not joined.
    while pages_differ(&mut map) {}
    let grown = grow(&mut heap, (64 * KIB, 16 * MIB), 100, 1);
    // Leaves some mappings for the test itself.
    for page in pages.into_iter().rev().skip(1).take(64) {
        // SAFETY: nothing refers to the page.
        unsafe { libc::munmap(page, case::page()) };
    }
    assert_eq!(mappings(&heap), 2);
    give(&mut heap, grown, 16 * MIB);
    let grown = grow(&mut heap, (64 * KIB, 16 * MIB), 100, 1);
    give(&mut heap, grown, 16 * MIB);
    heap.trim();
    assert_eq!(mappings(&heap), 2);
    heap.check().expect("the heap is sound");
}

/// Maps two pages, of which only one can be read. False if the system refuses.
fn pages_differ(map: &mut impl FnMut(libc::c_int) -> bool) -> bool {
    map(libc::PROT_READ) && map(libc::PROT_NONE)
}

#[test]
fn pages_that_the_system_does_not_move_are_copied() {
    case::run("addresses_run_out").assert_success();
    case::run("mappings_run_out").assert_success();
    case::run("first_step_refused").assert_success();
    case::run("second_step_refused").assert_success();
}
