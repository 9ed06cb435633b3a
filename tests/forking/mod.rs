//! What the tests of `fork` do: fork, use a heap, and look at one from another thread meanwhile.

use crate::case;
use smalloc::{FreeList, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

const PIECE: Layout = Layout::new::<[u8; 100]>();

/// The status of a child that has done `work`: 0 if that went well.
pub fn fork(work: impl FnOnce() -> bool) -> i32 {
    case::wait(case::fork(|| i32::from(!work())))
}

/// Whether a heap gives and takes, and is whole.
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

/// What another thread is asked, and what it has found.
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

/// What the other thread finds when it is asked during `work`.
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
