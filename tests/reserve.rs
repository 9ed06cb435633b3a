//! The reserve: open for the thread that spends it and for no other, and whole again when its blocks are freed.

use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, mpsc};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const RESERVE: usize = 128 * KIB;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

/// Allocates blocks of a KiB until there is no room; returns them.
fn fill<L: FreeList, const REGIONS: usize>(heap: &SmallocGlobal<L, REGIONS>) -> Vec<NonNull<u8>> {
    // SAFETY: the layout is not empty.
    std::iter::from_fn(|| NonNull::new(unsafe { heap.alloc(layout(KIB)) })).collect()
}

fn free<L: FreeList, const REGIONS: usize>(heap: &SmallocGlobal<L, REGIONS>, blocks: Vec<NonNull<u8>>) {
    // SAFETY: the blocks are live, and nothing uses them.
    blocks.into_iter().for_each(|block| unsafe { heap.sfree(block) });
}

/// The number of blocks for which there is room. They are freed again.
fn room<L: FreeList, const REGIONS: usize>(heap: &SmallocGlobal<L, REGIONS>) -> usize {
    let blocks = fill(heap);
    let count = blocks.len();
    free(heap, blocks);
    count
}

fn opens_and_closes<L: FreeList>(heap: &SmallocGlobal<L>) {
    let ordinary = (MIB - RESERVE) / KIB;
    assert_eq!(room(heap), ordinary);
    let kept = fill(heap);
    // For every kind of request, and repeatedly.
    for _ in 0..3 {
        assert_eq!((room(heap), heap.spend_reserve(|| room(heap)), room(heap)), (0, RESERVE / KIB, 0));
        assert_eq!(heap.check(), Ok(()));
    }
    // SAFETY: layouts are not empty; blocks are live and have these layouts.
    unsafe {
        assert!(heap.alloc_zeroed(layout(KIB)).is_null());
        let zeroed = heap.spend_reserve(|| heap.alloc_zeroed(layout(KIB)));
        assert!(!zeroed.is_null());
        assert!(heap.realloc(zeroed, layout(KIB), 4 * KIB).is_null());
        let grown = heap.spend_reserve(|| heap.realloc(zeroed, layout(KIB), 4 * KIB));
        assert!(!grown.is_null() && (0..KIB).all(|at| grown.add(at).read() == 0));
        // Blocks in the reserve leave less of it, and nothing for other threads above it.
        assert_eq!(heap.spend_reserve(|| heap.alloc(layout(RESERVE - 4 * KIB + 1))), std::ptr::null_mut());
        assert!(heap.alloc(layout(4 * KIB)).is_null());
        heap.dealloc(grown, layout(4 * KIB));
    }
    assert_eq!((room(heap), heap.spend_reserve(|| room(heap))), (0, RESERVE / KIB));
    // A panic closes the reserve.
    let caught = catch_unwind(AssertUnwindSafe(|| {
        heap.spend_reserve(|| std::panic::resume_unwind(Box::new(room(heap))));
    }));
    assert_eq!(*caught.expect_err("a panic").downcast::<usize>().expect("a number"), RESERVE / KIB);
    assert_eq!(room(heap), 0);
    free(heap, kept);
    assert_eq!((room(heap), heap.spend_reserve(|| room(heap))), (ordinary, MIB / KIB));
    assert_eq!(heap.check(), Ok(()));
}

#[test]
fn the_reserve_opens_and_closes() {
    static INDEXED: SmallocGlobal = SmallocGlobal::with_region_size(MIB).with_reserve(RESERVE);
    static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(MIB).with_reserve(RESERVE);
    opens_and_closes(&INDEXED);
    opens_and_closes(&LINKED);
}

/// The reserve is a part of the limit, whenever that is set.
#[test]
fn the_reserve_is_part_of_the_limit() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(MIB).with_reserve(RESERVE);
    assert_eq!(HEAP.set_limit(512 * KIB), 512 * KIB);
    assert_eq!((room(&HEAP), HEAP.spend_reserve(|| room(&HEAP))), (384, 512));
    assert_eq!(HEAP.set_limit(usize::MAX), MIB);
    assert_eq!((room(&HEAP), HEAP.spend_reserve(|| room(&HEAP))), (896, 1024));
    // A limit below the reserve leaves other threads nothing.
    assert_eq!(HEAP.set_limit(RESERVE), RESERVE);
    assert_eq!((room(&HEAP), HEAP.spend_reserve(|| room(&HEAP))), (0, 128));
}

#[test]
fn every_region_has_a_reserve() {
    static HEAP: SmallocGlobal<Indexed, 2> = SmallocGlobal::with_region_size(MIB).with_reserve(RESERVE);
    let kept = fill(&HEAP);
    assert_eq!(kept.len(), 2 * 896);
    assert_eq!((HEAP.spend_reserve(|| room(&HEAP)), room(&HEAP)), (2 * 128, 0));
    // In a scope, the reserve is that of its region. Scopes may nest in either order.
    assert_eq!(HEAP.in_region(1, || HEAP.spend_reserve(|| room(&HEAP))), 128);
    assert_eq!(HEAP.spend_reserve(|| HEAP.in_region(1, || room(&HEAP))), 128);
    free(&HEAP, kept);
    assert_eq!((room(&HEAP), HEAP.check()), (2 * 896, Ok(())));
}

/// One thread spends the reserve slowly; others request memory all the time and get none of it.
#[test]
fn other_threads_find_it_closed() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(MIB).with_reserve(RESERVE);
    let kept = fill(&HEAP);
    let (stop, tries) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while stop.load(Ordering::Relaxed) == 0 {
                    // SAFETY: the layout is not empty.
                    assert!(unsafe { HEAP.alloc(layout(16)) }.is_null());
                    tries.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..200 {
            let blocks = HEAP.spend_reserve(|| fill(&HEAP));
            assert_eq!(blocks.len(), RESERVE / KIB);
            // From the top down, so that no hole lies below a block that is still in use.
            free(&HEAP, blocks.into_iter().rev().collect());
        }
        stop.store(1, Ordering::Relaxed);
    });
    assert!(tries.into_inner() > 0);
    free(&HEAP, kept);
    assert_eq!((room(&HEAP), HEAP.check()), (896, Ok(())));
}

/// Two threads spend the reserve at the same time, each until its own closure ends.
#[test]
fn threads_spend_it_side_by_side() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(MIB).with_reserve(RESERVE);
    let kept = fill(&HEAP);
    let (barrier, (told, heard)) = (Barrier::new(2), mpsc::channel());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            HEAP.spend_reserve(|| {
                barrier.wait();
                barrier.wait();
                told.send(room(&HEAP)).expect("somebody listens");
            });
            told.send(room(&HEAP)).expect("somebody listens");
        });
        HEAP.spend_reserve(|| barrier.wait());
        assert_eq!(room(&HEAP), 0, "this thread has left, the other one has not");
        barrier.wait();
        assert_eq!([heard.recv(), heard.recv()], [Ok(RESERVE / KIB), Ok(0)]);
    });
    free(&HEAP, kept);
}
