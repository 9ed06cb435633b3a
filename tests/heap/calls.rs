//! The calls of the C allocator by their new names: map a region, allocate with a status, free by pointer alone.

use crate::REGION;
use smalloc::{FreeList, MallocStatus, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

fn offset_and_hops(status: &MallocStatus) -> (Option<usize>, usize) {
    (status.payload_offset, status.stepped)
}

/// The example of the C allocator: 64 KiB, one allocation of 128 bytes, its offset and hops, and its free.
fn example<L: FreeList>() {
    let heap = SmallocGlobal::<L>::with_region_size(REGION);
    heap.init().expect("a small region can be mapped");
    let (start, status) = heap.smalloc(layout(128));
    assert!(status.success);
    assert_eq!((status.payload_offset, status.hops, status.stepped, status.probes), (Some(0), 0, 0, 0));
    assert_eq!(segments(&heap), [(0, 128, true), (128, REGION - 128, false)]);
    // SAFETY: the block is live.
    unsafe { heap.sfree(start.expect("it succeeded")) };
    assert_eq!(segments(&heap), [(0, REGION, false)]);
}

/// The region is mapped once, at the first use, whichever call that is.
fn init_is_not_needed_and_may_be_repeated<L: FreeList>() {
    let heap = SmallocGlobal::<L>::with_region_size(REGION - 100);
    let (start, _) = heap.smalloc(layout(1));
    let start = start.expect("the first use maps the region");
    heap.init().expect("a small region can be mapped");
    assert_eq!(heap.stats().region_size, REGION);
    assert_eq!(heap.stats().live_segments, 1);
    // SAFETY: the block is live.
    unsafe { heap.sfree(start) };
    heap.init().expect("a small region can be mapped");
}

/// `GlobalAlloc` takes the same path: blocks of one are freed by the other, and lie where they would lie.
fn both_doors_lead_to_one_heap<L: FreeList>() {
    let heap = SmallocGlobal::<L>::with_region_size(REGION);
    let (first, _) = heap.smalloc(layout(100));
    // SAFETY: the layout is not empty.
    let second = unsafe { heap.alloc(layout(200)) };
    let (third, status) = heap.smalloc(layout(300));
    let (first, third) = (first.unwrap(), third.unwrap());
    assert_eq!(second as usize - first.as_ptr() as usize, 112);
    assert_eq!(offset_and_hops(&status), (Some(320), 0));
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(first.as_ptr(), layout(100)) };
    // SAFETY: the block is live.
    unsafe { heap.sfree(NonNull::new(second).unwrap()) };
    // SAFETY: the block is live, has this layout, and grows into the wilderness.
    let third = unsafe { heap.realloc(third.as_ptr(), layout(300), 1000) };
    assert_eq!(segments(&heap), [(0, 320, false), (320, 1008, true), (1328, REGION - 1328, false)]);
    // SAFETY: the layout is not empty.
    let fourth = unsafe { heap.alloc_zeroed(layout(320)) };
    assert_eq!(fourth, first.as_ptr());
    // SAFETY: the block is live.
    unsafe { heap.sfree(NonNull::new(fourth).unwrap()) };
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(third, layout(1000)) };
    assert_eq!(segments(&heap), [(0, REGION, false)]);
}

/// Every field of the status of a refused request says so.
fn failure_has_a_status<L: FreeList>() {
    let heap = SmallocGlobal::<L>::with_region_size(REGION);
    let (start, status) = heap.smalloc(layout(REGION + 1));
    assert_eq!((start, status.success, status.payload_offset), (None, false, None));
    // SAFETY: the layout is not empty.
    assert!(unsafe { heap.alloc(layout(REGION + 1)) }.is_null());
    assert_eq!((heap.stats().failures, heap.stats().allocs), (2, 0));
}

fn segments<L: FreeList>(heap: &SmallocGlobal<L>) -> Vec<(usize, usize, bool)> {
    heap.check().expect("the heap is sound");
    let snapshot = heap.snapshot().expect("a small heap can be copied");
    snapshot.segments().map(|segment| (segment.offset, segment.size, segment.in_use)).collect()
}

on_both_lists! {
    example
    init_is_not_needed_and_may_be_repeated
    both_doors_lead_to_one_heap
    failure_has_a_status
}
