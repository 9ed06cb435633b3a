//! The limits of a heap: regions filled to the last granule, and requests that no region can hold.

use crate::REGION;
use crate::oracle::GRANULE;
use crate::table::Player;
use smalloc::{FreeList, Heap, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;

/// Every refusal can be repeated, and the place of one freed block holds one block.
fn filled_to_the_last_granule<L: FreeList>() {
    for size in [GRANULE, 2 * GRANULE, 63 * GRANULE, 64 * GRANULE, 65 * GRANULE, REGION] {
        let mut player = Player::<L>::new(REGION);
        let blocks = REGION / size;
        for number in 0..blocks {
            assert_eq!(player.agree(size, 1).offset, Some(number * size));
        }
        refuse_thrice(&mut player, size);
        for number in [0, blocks / 2, blocks - 1] {
            player.give(number);
            assert_eq!(player.agree(size, 1).offset, Some(number * size));
            refuse_thrice(&mut player, size);
            player.swap_in_last(number);
        }
        player.give_all();
    }
}

fn refuse_thrice<L: FreeList>(player: &mut Player<L>, size: usize) {
    for _again in 0..3 {
        assert_eq!(player.agree(size, 1).offset, None);
        player.verify();
    }
}

/// No granule is lost at the end of the region when the sizes do not divide it.
fn rest_at_the_end_is_given_out<L: FreeList>() {
    let mut player = Player::<L>::new(REGION);
    for size in [1000, 500, 100, 16] {
        while player.agree(size, 1).offset.is_some() {}
    }
    assert_eq!(player.heap.stats().free_bytes, 0);
    assert_eq!(player.heap.stats().top, REGION);
    player.verify();
    player.give_all();
}

/// Layouts that no region of 64 KiB can hold, up to the largest that exist.
fn impossible_layouts() -> Vec<Layout> {
    let largest = isize::MAX.unsigned_abs();
    let mut layouts = Vec::new();
    for size in [REGION + 1, 1 << 32, (1 << 36) + 1, largest / 2, largest - 15, largest - 1, largest] {
        layouts.push(Layout::from_size_align(size, 1).unwrap());
    }
    for power in 0..=62 {
        let align = 1_usize << power;
        for size in [largest - (align - 1), REGION + 1] {
            layouts.push(Layout::from_size_align(size, align).expect("at most the largest layout"));
        }
    }
    // No block can have a huge alignment, since no user-space address is a multiple of it.
    for power in 48..=62 {
        layouts.push(Layout::from_size_align(0, 1 << power).unwrap());
        layouts.push(Layout::from_size_align(1, 1 << power).unwrap());
    }
    layouts
}

/// Every call returns null, and the heap is unchanged to the byte.
fn impossible_requests<L: FreeList>() {
    let mut heap = Heap::<L>::with_region_size(REGION).expect("a small region can be mapped");
    refuse_all(&mut heap);
    // Also with a hole below a block, and after everything was freed.
    let layout = Layout::from_size_align(100, 4).unwrap();
    let [hole, block] = [heap.smalloc(layout).0.unwrap(), heap.smalloc(layout).0.unwrap()];
    // SAFETY: the block is live and has 100 bytes.
    unsafe { block.write_bytes(0x5A, 100) };
    // SAFETY: the block is live.
    unsafe { heap.sfree(hole) };
    refuse_all(&mut heap);
    refuse_growth(&mut heap, block, layout);
    // SAFETY: the block is live and was written.
    let bytes = unsafe { std::slice::from_raw_parts(block.as_ptr(), 100) };
    assert_eq!(bytes, [0x5A; 100]);
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(block.as_ptr(), layout) };
    refuse_all(&mut heap);
    assert_eq!(heap.smalloc(Layout::from_size_align(REGION, 1).unwrap()).1.payload_offset, Some(0));
}

fn refuse_all<L: FreeList>(heap: &mut Heap<L>) {
    for layout in impossible_layouts() {
        let before = state(heap);
        let (start, status) = heap.smalloc(layout);
        assert_eq!((start, status.success, status.payload_offset), (None, false, None), "{layout:?}");
        assert!(heap.alloc(layout).is_null(), "{layout:?}");
        assert!(heap.alloc_zeroed(layout).is_null(), "{layout:?}");
        assert_eq!(heap.stats().failures, before.1 + 3);
        assert_eq!(heap.stats().last_failed_size, layout.size());
        assert_eq!(state(heap).0, before.0, "{layout:?}");
    }
    heap.check().expect("the heap is sound");
}

fn refuse_growth<L: FreeList>(heap: &mut Heap<L>, block: NonNull<u8>, layout: Layout) {
    let largest = isize::MAX.unsigned_abs() & !(layout.align() - 1);
    for size in [REGION, REGION + 1, 1 << 36, largest - layout.align(), largest] {
        let before = state(heap);
        // SAFETY: the block is live, has this layout, and the size rounded up to it is at most the largest.
        let moved = unsafe { heap.realloc(block.as_ptr(), layout, size) };
        assert!(moved.is_null(), "{size} bytes");
        assert_eq!(state(heap), (before.0, before.1 + 1), "{size} bytes");
    }
    heap.check().expect("the heap is sound");
}

/// Every segment, and the number of failed requests.
fn state<L: FreeList>(heap: &Heap<L>) -> (Vec<smalloc::Segment>, u64) {
    let snapshot = heap.snapshot().expect("a small heap can be copied");
    (snapshot.segments().collect(), heap.stats().failures)
}

/// The same requests by the calls of the global allocator, which has slow paths of its own.
fn impossible_requests_of_a_program<L: FreeList>()
where
    SmallocGlobal<L>: GlobalAlloc,
{
    let heap = SmallocGlobal::<L>::with_region_size(REGION);
    let layout = Layout::from_size_align(100, 4).unwrap();
    let segments = || heap.snapshot().expect("a small heap can be copied").segments().collect::<Vec<_>>();
    let refuse = || {
        let before = segments();
        for layout in impossible_layouts() {
            // SAFETY: all calls of this heap accept an empty layout.
            let refused = unsafe { [heap.alloc(layout), heap.alloc_zeroed(layout)] };
            assert!(refused.iter().all(|start| start.is_null()), "{layout:?}");
            assert!(!heap.smalloc(layout).1.success, "{layout:?}");
            assert_eq!(heap.stats().last_failed_size, layout.size());
        }
        assert_eq!(segments(), before);
    };
    // The very first request, which maps the region, is an impossible one.
    // SAFETY: the layout is not empty.
    assert!(unsafe { heap.alloc(Layout::from_size_align(isize::MAX.unsigned_abs(), 1).unwrap()) }.is_null());
    assert_eq!(segments().len(), 1);
    refuse();
    // SAFETY: the layout is not empty.
    let [hole, block] = unsafe { [heap.alloc(layout), heap.alloc(layout)] };
    // SAFETY: the block is live and has 100 bytes.
    unsafe { block.write_bytes(0x5A, 100) };
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(hole, layout) };
    refuse();
    let before = segments();
    let largest = isize::MAX.unsigned_abs() & !(layout.align() - 1);
    for size in [REGION, REGION + 1, 1 << 36, largest - layout.align(), largest] {
        // SAFETY: the block is live, has this layout, and the size rounded up to it is at most the largest.
        assert!(unsafe { heap.realloc(block, layout, size) }.is_null(), "{size} bytes");
        // SAFETY: as above.
        assert!(unsafe { heap.realloc_zeroed(block, layout, size) }.is_null(), "{size} bytes");
    }
    assert_eq!(segments(), before);
    // SAFETY: the block is live and was written.
    assert_eq!(unsafe { std::slice::from_raw_parts(block, 100) }, [0x5A; 100]);
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(block, layout) };
    assert_eq!(heap.stats().used_bytes, 0);
    heap.check().expect("the heap is sound");
}

/// Four threads fill one small heap until all of them are refused: no block is handed out twice, and none is lost.
fn refused_in_several_threads<L: FreeList + 'static>()
where
    SmallocGlobal<L>: Sync,
{
    let heap = SmallocGlobal::<L>::with_region_size(REGION);
    let layout = Layout::from_size_align(4 * GRANULE, 16).unwrap();
    for _round in 0..20 {
        let taken: Vec<Vec<usize>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| fill(&heap, layout))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
        });
        let mut offsets: Vec<usize> = taken.concat();
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), REGION / layout.size());
        assert_eq!(heap.stats().free_bytes, 0);
        heap.check().expect("the heap is sound");
        for address in offsets {
            // SAFETY: the block is live and has this layout.
            unsafe { heap.dealloc(std::ptr::with_exposed_provenance_mut(address), layout) };
        }
        assert_eq!((heap.stats().free_segments, heap.stats().live_segments), (1, 0));
    }
}

/// The addresses of all blocks that this thread got before ten refusals.
fn fill<L: FreeList>(heap: &SmallocGlobal<L>, layout: Layout) -> Vec<usize> {
    let mut taken = Vec::new();
    let mut refusals = 0;
    while refusals < 10 {
        // SAFETY: the layout is not empty.
        let start = unsafe { heap.alloc(layout) };
        if start.is_null() {
            refusals += 1;
        } else {
            taken.push(start.expose_provenance());
        }
    }
    taken
}

/// Sizes are rounded up to whole pages, and to 64 KiB at least.
fn regions_are_whole_pages<L: FreeList>() {
    // SAFETY: this call reads a number.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
    for (asked, given) in
        [(1, REGION), (REGION, REGION), (REGION + 1, REGION + page), (REGION + page, REGION + page)]
    {
        let mut player = Player::<L>::new(asked);
        assert_eq!(player.heap.region_size(), given, "{asked} bytes asked");
        assert_eq!(player.agree(given, 1).offset, Some(0));
        assert_eq!(player.agree(1, 1).offset, None);
        player.give_all();
    }
}

on_both_lists! {
    filled_to_the_last_granule
    rest_at_the_end_is_given_out
    impossible_requests
    impossible_requests_of_a_program
    refused_in_several_threads
    regions_are_whole_pages
}
