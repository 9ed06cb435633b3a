//! An arena for several threads: no thread gets another one's memory, and the lock is released whatever happens.

use smalloc::{FreeList, Heap, HeapLock, Indexed, Linked};
use std::alloc::Layout;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

const MIB: usize = 1 << 20;
const THREADS: u8 = 64;

/// Allocates, fills, checks and frees blocks of its own.
fn work<L: FreeList>(heap: &HeapLock<L>, mark: u8) {
    let mut blocks = Vec::new();
    for round in 0..200_usize {
        let layout =
            Layout::from_size_align(1 + (round * 37 + usize::from(mark)) % 500, 16).expect("a power of two");
        let (block, _) = heap.lock().smalloc(layout);
        let block = block.expect("there is room");
        // SAFETY: the block belongs to this thread and has so many bytes.
        unsafe { block.write_bytes(mark, layout.size()) };
        blocks.push((block.as_ptr().expose_provenance(), layout));
        if round % 3 == 2 {
            let (address, layout) = blocks.swap_remove(round % blocks.len());
            let block = std::ptr::with_exposed_provenance_mut::<u8>(address);
            // SAFETY: the block is live and belongs to this thread.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            assert!(bytes.iter().all(|&byte| byte == mark), "another thread has written to the block");
            // SAFETY: the block is live and belongs to this thread, which does not use it any more.
            unsafe { heap.lock().dealloc(block, layout) };
        }
    }
    for (address, layout) in blocks {
        // SAFETY: as above.
        unsafe { heap.lock().dealloc(std::ptr::with_exposed_provenance_mut(address), layout) };
    }
}

fn many_threads_share_a_heap<L: FreeList + 'static>() {
    let heap = Arc::new(HeapLock::<L>::with_region_size(16 * MIB).expect("addresses are free"));
    let start = Arc::new(Barrier::new(THREADS.into()));
    let threads: Vec<_> = (0..THREADS)
        .map(|mark| {
            let (heap, start) = (Arc::clone(&heap), Arc::clone(&start));
            thread::spawn(move || {
                start.wait();
                work(&heap, mark);
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("its blocks were its own"));
    let heap = Arc::into_inner(heap).expect("all threads have ended").into_inner();
    assert_eq!((heap.stats().used_bytes, heap.stats().free_segments), (0, 1));
    heap.check().expect("the heap is sound");
}

#[test]
fn many_threads_share_an_indexed_heap() {
    many_threads_share_a_heap::<Indexed>();
}

#[test]
fn many_threads_share_a_linked_heap() {
    many_threads_share_a_heap::<Linked>();
}

#[test]
fn one_guard_at_a_time() {
    let heap = HeapLock::<Indexed>::with_region_size(MIB).expect("addresses are free");
    let guard = heap.lock();
    assert!(heap.try_lock().is_none());
    thread::scope(|scope| {
        assert!(scope.spawn(|| heap.try_lock().is_none()).join().expect("it does not wait"))
    });
    drop(guard);
    assert!(heap.try_lock().is_some());
}

/// More threads than cores wait for a guard that is held for long. All of them get it in the end.
#[test]
fn waiting_threads_get_the_heap() {
    let heap = HeapLock::<Indexed>::with_region_size(MIB).expect("addresses are free");
    thread::scope(|scope| {
        let guard = heap.lock();
        let waiting: Vec<_> =
            (0..8).map(|_| scope.spawn(|| heap.lock().smalloc(Layout::new::<u64>()).1.success)).collect();
        thread::sleep(Duration::from_millis(20));
        drop(guard);
        assert!(waiting.into_iter().all(|thread| thread.join().expect("it is served")));
    });
    assert_eq!(heap.lock().stats().live_segments, 8);
}

/// A panic while a guard is held releases the lock, and poisons nothing: no call of the heap panics halfway.
#[test]
fn a_panic_releases_the_lock() {
    let heap = HeapLock::new(Heap::<Indexed>::with_region_size(MIB).expect("addresses are free"));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _guard = heap.lock();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert!(heap.lock().smalloc(Layout::new::<u64>()).1.success);
}
