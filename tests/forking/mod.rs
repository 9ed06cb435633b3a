//! Functions for tests of `fork`: fork, use a heap, and check its lock from another thread.

use crate::case;
use smalloc::{FreeList, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

const PIECE: Layout = Layout::new::<[u8; 100]>();

/// The status of a child that has run `work`: 0 if it succeeded.
pub fn fork(work: impl FnOnce() -> bool) -> i32 {
    case::wait(case::fork(|| i32::from(!work())))
}

/// Whether a heap allocates, frees, and passes its check.
pub fn is_usable<L: FreeList, const REGIONS: usize>(heap: &SmallocGlobal<L, REGIONS>) -> bool {
    // SAFETY: the layout is not empty.
    let block = unsafe { heap.alloc(PIECE) };
    if block.is_null() {
        return false;
    }
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(block, PIECE) };
    heap.check().is_ok()
}

/// The question to another thread, and its answer.
static ASKED: AtomicU32 = AtomicU32::new(0);
const LOOK: u32 = 1;
pub const FREE: u32 = 2;
pub const TAKEN: u32 = 3;

/// Asks the other thread whether the heap's lock is free.
pub unsafe extern "C" fn ask() {
    ASKED.store(LOOK, Ordering::Release);
    while ASKED.load(Ordering::Acquire) == LOOK {
        thread::yield_now();
    }
}

/// The answers of the other thread when it is asked during `work`.
pub fn found_by_another<L: FreeList, const REGIONS: usize>(
    heap: &SmallocGlobal<L, REGIONS>,
    work: impl FnOnce(),
) -> u32 {
    thread::scope(|scope| {
        scope.spawn(|| {
            while ASKED.load(Ordering::Acquire) != LOOK {
                thread::yield_now();
            }
            let found = if heap.try_stats().is_some() { FREE } else { TAKEN };
            ASKED.store(found, Ordering::Release);
        });
        work();
    });
    ASKED.load(Ordering::Relaxed)
}
