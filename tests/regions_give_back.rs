//! Memory that other threads free in a region is purged too, though the owner never frees and never searches again.
#![cfg(not(feature = "hardened"))]

use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

/// A piece is small enough to be queued.
const PIECE: Layout = Layout::new::<[u8; 32 << 10]>();
const REGION: usize = 256 << 20;

/// A piece that was written, as a number, which may be sent to any thread.
fn take<const N: usize, L: FreeList>(heap: &SmallocGlobal<L, N>) -> usize {
    // SAFETY: the layout is not empty.
    let piece = unsafe { heap.alloc(PIECE) };
    assert!(!piece.is_null());
    // SAFETY: the piece has that many bytes.
    unsafe { piece.write_bytes(7, PIECE.size()) };
    piece.expose_provenance()
}

fn give<const N: usize, L: FreeList>(heap: &SmallocGlobal<L, N>, piece: usize) {
    // SAFETY: the piece is in use, and nothing else uses it.
    unsafe { heap.dealloc(std::ptr::with_exposed_provenance_mut(piece), PIECE) };
}

/// An owner that allocates as many pieces as it is asked for, and never frees.
fn own<const N: usize, L: FreeList>(
    heap: &SmallocGlobal<L, N>,
    asked: &Receiver<usize>,
    pieces: &Sender<Vec<usize>>,
) {
    for count in asked {
        pieces.send((0..count).map(|_| take(heap)).collect()).unwrap();
    }
}

/// Runs `work` with an owner in another region than the caller's.
fn with_owner<const N: usize, L: FreeList>(
    heap: &'static SmallocGlobal<L, N>,
    work: impl FnOnce(&dyn Fn(usize) -> Vec<usize>),
) {
    give(heap, take(heap));
    let (ask, asked) = channel();
    let (send, pieces) = channel();
    thread::scope(|scope| {
        scope.spawn(move || own(heap, &asked, &send));
        work(&|count| {
            ask.send(count).unwrap();
            pieces.recv().unwrap()
        });
        drop(ask);
    });
}

#[test]
fn trimming_purges_queued_blocks() {
    static HEAP: SmallocGlobal<Indexed, 64> = SmallocGlobal::with_region_size(REGION);
    with_owner(&HEAP, |owner| {
        owner(100).into_iter().for_each(|piece| give(&HEAP, piece));
        // The caller's own piece is free as well.
        assert_eq!(HEAP.trim(), 101 * PIECE.size());
        assert_eq!((HEAP.stats().handed_over, HEAP.trim()), (100, 0));
    });
}

#[test]
fn memory_of_an_owner_that_never_frees_is_purged() {
    static INDEXED: SmallocGlobal<Indexed, 64> = SmallocGlobal::with_region_size(REGION);
    static LINKED: SmallocGlobal<Linked, 64> = SmallocGlobal::with_region_size(REGION);
    consume(&INDEXED);
    consume(&LINKED);
}

/// Frees 64 MiB of an owner that allocates all the while, so that the owner drains the queue.
fn consume<L: FreeList>(heap: &'static SmallocGlobal<L, 64>) {
    with_owner(heap, |owner| {
        let mut kept = Vec::new();
        for some in owner(2000).chunks(100) {
            some.iter().for_each(|&piece| give(heap, piece));
            kept.extend(owner(1));
        }
        let stats = heap.stats();
        assert_eq!((stats.handed_over, stats.live_segments), (2000, 20));
        assert!(stats.purged_total as usize > 500 * PIECE.size(), "{stats}");
        kept.into_iter().for_each(|piece| give(heap, piece));
    });
    assert_eq!(heap.check(), Ok(()));
}
