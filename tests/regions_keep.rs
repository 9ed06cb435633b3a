//! Regions side by side keep no more free memory together than one heap does.
//!
//! One test in a process of its own: threads of other tests would take numbers, so that two threads shared a home and
//! its heap learned from both.
#![cfg(not(feature = "hardened"))]

use smalloc::{Indexed, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::Barrier;
use std::thread;

const THREADS: usize = 16;
const PIECE: Layout = Layout::new::<[u8; 32 << 10]>();

static HEAP: SmallocGlobal<Indexed, THREADS> = SmallocGlobal::with_region_size(256 << 20);

fn take() -> *mut u8 {
    // SAFETY: the layout is not empty.
    let piece = unsafe { HEAP.alloc(PIECE) };
    assert!(!piece.is_null());
    // SAFETY: the piece has that many bytes.
    unsafe { piece.write_bytes(7, PIECE.size()) };
    piece
}

fn give(piece: *mut u8) {
    // SAFETY: the piece is in use, and nothing else uses it.
    unsafe { HEAP.dealloc(piece, PIECE) };
}

#[test]
fn regions_share_the_memory_that_is_always_kept() {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                give(take());
                start.wait();
                // One after the other, and a mebibyte at the end, so that the heap checks for a purge while it becomes
                // free.
                let pieces: Vec<*mut u8> = (0..32).map(|_| take()).collect();
                pieces.into_iter().for_each(give);
                (0..100).for_each(|_| give(take()));
            });
        }
    });
    let kept = HEAP.trim();
    assert!(kept <= 2 << 20, "{kept} bytes were kept");
}
