//! Threads whose payloads move while others allocate and purge, and their children.

use crate::case;
use crate::{KIB, MIB, holds, is_zero, layout, mappings_in, write};
use smalloc::SmallocGlobal;
use std::alloc::GlobalAlloc;
use std::sync::atomic::{AtomicBool, Ordering};

static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(4 << 30);

/// Grows payloads until told to stop.
fn work(seed: usize, stop: &AtomicBool) {
    for turn in 0.. {
        let mut size = MIB + 4 * KIB * (turn % 7);
        // SAFETY: the layout is not empty.
        let mut payload = unsafe { HEAP.alloc(layout(size)) };
        write(payload, 0, size, seed);
        while size < 4 * MIB {
            // SAFETY: the payload is live and has this size.
            payload = unsafe { HEAP.realloc(payload, layout(size), 2 * size) };
            assert!(!payload.is_null() && holds(payload, size, seed), "{size} bytes changed");
            write(payload, size, 2 * size, seed);
            size *= 2;
        }
        // SAFETY: as above.
        unsafe { HEAP.dealloc(payload, layout(size)) };
        if turn >= 2 && stop.load(Ordering::Relaxed) {
            return;
        }
    }
}

/// Allocates zeroed blocks, checks them, and leaves them dirty, until told to stop.
fn work_small(stop: &AtomicBool) {
    let mut size = KIB;
    while !stop.load(Ordering::Relaxed) {
        // SAFETY: the layout is not empty.
        let block = unsafe { HEAP.alloc_zeroed(layout(size)) };
        assert!(!block.is_null() && is_zero(block, size), "{size} bytes are not zero");
        write(block, 0, size, size);
        assert!(holds(block, size, size));
        // SAFETY: the block is live and has this size.
        unsafe { HEAP.dealloc(block, layout(size)) };
        size = size * 3 % (701 * KIB) / 8 * 8 + KIB;
    }
}

/// Mappings in the region of the static heap.
fn mappings_of_static() -> usize {
    let (block, status) = HEAP.smalloc(layout(1));
    let (block, offset) = (block.expect("there is room"), status.payload_offset.expect("there is room"));
    let start = block.as_ptr().addr() - offset;
    // SAFETY: the block is live.
    unsafe { HEAP.sfree(block) };
    mappings_in(start, start + HEAP.stats().region_size)
}

/// A child has the whole heap. Its large payloads are copied, so that it has no more mappings than it inherited.
fn in_child() -> bool {
    work(9, &AtomicBool::new(true));
    HEAP.trim();
    let before = mappings_of_static();
    // Side by side, so that most of them have to move.
    // SAFETY: the layout is not empty.
    let blocks = [(); 8].map(|()| unsafe { HEAP.alloc(layout(MIB)) });
    blocks.iter().for_each(|&block| write(block, 0, MIB, 9));
    // SAFETY: the blocks are live and have this size.
    let moved = blocks.map(|block| unsafe { HEAP.realloc(block, layout(MIB), 2 * MIB) });
    moved.iter().all(|&block| holds(block, MIB, 9)) && mappings_of_static() <= before && HEAP.check().is_ok()
}

/// Tells threads to stop, also when the test fails.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Threads whose payloads move, others that allocate and purge, and children.
pub fn forking() {
    // A heap that grows in a child may take a mapping for each step.
    // SAFETY: the layout is not empty, and the block is live.
    unsafe { HEAP.dealloc(HEAP.alloc(layout(128 * MIB)), layout(128 * MIB)) };
    let stop = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(stop);
        scope.spawn(|| work_small(stop));
        for seed in 1..=3 {
            scope.spawn(move || work(seed, stop));
        }
        for _ in 0..5 {
            HEAP.trim();
            let status = case::wait(case::fork(|| i32::from(!in_child())));
            assert_eq!(status, 0, "the child's end");
        }
    });
    // With the feature `hardened`, the blocks freed last are still in quarantine.
    assert!(cfg!(feature = "hardened") || HEAP.stats().used_bytes == 0);
    HEAP.check().expect("the heap is sound");
}

#[test]
fn threads_and_children_keep_their_contents() {
    case::run("forking").assert_success();
}
