//! The calls of a piece of code on its own thread, while other threads use the same heap.

use smalloc::{Indexed, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(256 << 20);
static FOUR: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(16 << 20);

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// Runs `work` while three other threads allocate and free in the same heap.
fn beside_others<R>(heap: &(impl GlobalAlloc + Sync), work: impl FnOnce() -> R) -> R {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for size in [16, 100, 3000] {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    // SAFETY: the layout is not empty, and the block is live.
                    unsafe { heap.dealloc(heap.alloc(layout(size)), layout(size)) };
                }
            });
        }
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

/// One call of each kind.
fn calls(heap: &impl GlobalAlloc) {
    // SAFETY: layouts are not empty; blocks are live when they are used, and have these layouts.
    unsafe {
        let first = heap.alloc(layout(100));
        let second = heap.alloc_zeroed(layout(200));
        let kept = heap.realloc(second, layout(200), 150);
        heap.dealloc(first, layout(100));
        heap.dealloc(kept, layout(150));
    }
}

#[test]
fn only_calls_of_the_thread_count() {
    beside_others(&HEAP, || {
        for _ in 0..200 {
            let ((), measured) = HEAP.measure_thread(|| calls(&HEAP));
            assert_eq!((measured.allocs, measured.frees, measured.reallocs), (2, 2, 1));
            assert_eq!((measured.requested, measured.used_bytes, measured.peak_growth), (300, 0, 112 + 208));
        }
        let (text, measured) = HEAP.measure_thread(|| "x".repeat(1000));
        assert_eq!((measured.allocs, measured.frees, measured.used_bytes), (1, 0, 1008));
        assert_eq!(
            measured.to_string(),
            "allocs 1, frees 0, reallocs 0, requested 1000 bytes, used 1008 bytes more, at most 1008"
        );
        let ((), measured) = HEAP.measure_thread(|| drop(text));
        assert_eq!((measured.frees, measured.used_bytes, measured.peak_growth), (1, -1008, 0));
    });
}

/// A vector that grows past its neighbours moves. Each move is one `realloc`, and both places are in use meanwhile.
#[test]
fn moves_count_once() {
    beside_others(&HEAP, || {
        let (moved, measured) = HEAP.measure_thread(|| {
            // SAFETY: layouts are not empty; blocks are live when they are used, and have these layouts.
            unsafe {
                let block = HEAP.alloc(layout(1000));
                let behind = HEAP.alloc(layout(16));
                let moved = HEAP.realloc(block, layout(1000), 200_000);
                HEAP.dealloc(moved, layout(200_000));
                HEAP.dealloc(behind, layout(16));
                moved != block
            }
        });
        assert_eq!((measured.allocs, measured.frees, measured.reallocs), (2, 2, 1));
        assert_eq!((measured.used_bytes, moved), (0, true));
        assert_eq!(measured.peak_growth, 1008 + 16 + 200_000);
    });
}

#[test]
fn measurements_nest_and_a_panic_ends_one() {
    let ((inner, panicked), outer) = HEAP.measure_thread(|| {
        let kept = vec![0_u8; 5000];
        let ((), inner) = HEAP.measure_thread(|| drop(vec![0_u8; 2000]));
        drop(kept);
        let panicked = std::panic::catch_unwind(AssertUnwindSafe(|| {
            HEAP.measure_thread(|| std::panic::resume_unwind(Box::new(1_u64)))
        }));
        (inner, panicked.is_err())
    });
    assert_eq!((inner.allocs, inner.frees, inner.used_bytes, inner.peak_growth), (1, 1, 0, 2000));
    assert!(panicked && outer.allocs >= 3 && outer.peak_growth == 7008);
    // The measurement leaves nothing behind: the next one of this thread starts at 0, and calls are fast again.
    assert_eq!(HEAP.measure_thread(|| ()).1, HEAP.measure_thread(|| ()).1);
}

/// More threads than slots: those that find none wait, and all of them count exactly.
#[test]
fn many_threads_are_measured_at_once() {
    std::thread::scope(|scope| {
        for size in 1..=300 {
            scope.spawn(move || {
                let (block, measured) = HEAP.measure_thread(|| vec![0_u8; 16 * size]);
                assert_eq!((measured.allocs, measured.used_bytes), (1, 16 * size as isize));
                drop(block);
            });
        }
    });
}

/// With several regions, a free counts for the thread that makes it, in whichever region the block lies. Frees that
/// other threads have queued for its region do not count.
#[test]
fn frees_in_other_regions_count_where_they_are_made() {
    beside_others(&FOUR, || {
        let (give, take) = channel::<usize>();
        let (done, wait) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for address in take {
                    // SAFETY: the block is live and has this layout.
                    unsafe { FOUR.dealloc(std::ptr::with_exposed_provenance_mut(address), layout(64)) };
                    done.send(()).expect("somebody waits");
                }
            });
            let theirs = scope.spawn(|| {
                [0; 100].map(|_| {
                    // SAFETY: the layout is not empty.
                    unsafe { FOUR.alloc(layout(64)) }.expose_provenance()
                })
            });
            let theirs = theirs.join().expect("it does not panic");
            for block in theirs {
                // SAFETY: the layout is not empty; the blocks are live and have this layout.
                let ((), measured) = FOUR.measure_thread(|| unsafe {
                    let left = FOUR.alloc(layout(64)).expose_provenance();
                    give.send(left).expect("a thread frees it");
                    wait.recv().expect("it has");
                    FOUR.dealloc(FOUR.alloc(layout(64)), layout(64));
                    FOUR.dealloc(std::ptr::with_exposed_provenance_mut(block), layout(64));
                });
                assert_eq!((measured.allocs, measured.frees), (2, 2));
                assert_eq!((measured.used_bytes, measured.peak_growth), (0, 128));
            }
            drop(give);
        });
    });
    FOUR.check().expect("the heap is sound");
}
