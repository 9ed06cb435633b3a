//! What a `fork` does to a heap that is a static, and the end of one that is not.

use super::SmallocGlobal;
use crate::fork;
use crate::free_list::FreeList;
use crate::unlocked;
use core::ptr;
use core::sync::atomic::Ordering;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Locks the heap at an address for a fork, if it is there.
    ///
    /// # Safety
    /// A `SmallocGlobal<L>` was at that address, in memory that can be read, and this thread is about to fork.
    pub(super) unsafe fn before_fork(address: *const ()) -> bool {
        // SAFETY: the caller's promise; what was moved away has left its bytes, which are atomics and numbers.
        let global = unsafe { &*address.cast::<Self>() };
        let there = global.covered_at.load(Ordering::Relaxed) == address.addr();
        if there {
            // SAFETY: after_fork is called by the same thread in both processes.
            global.regions.all().iter().for_each(|shared| unsafe { unlocked::lock_for_fork(&shared.heap) });
        }
        there
    }

    /// Unlocks the heap at an address after a fork, in the parent.
    ///
    /// # Safety
    /// `before_fork` has locked it on this thread.
    pub(super) unsafe fn after_fork(address: *const ()) -> bool {
        // SAFETY: the caller's promise.
        let global = unsafe { &*address.cast::<Self>() };
        // SAFETY: this thread took the lock in before_fork.
        unsafe { global.regions.unlock_after_fork() };
        true
    }

    /// The same in the child, in which no other thread is left that could finish what it has begun.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn after_fork_in_child(address: *const ()) -> bool {
        // SAFETY: the caller's promise.
        let global = unsafe { &*address.cast::<Self>() };
        for (region, shared) in global.regions.all().iter().enumerate() {
            let heap = global.lock(region);
            shared.handed_over.forget_late();
            heap.stop_moving();
            drop(heap);
        }
        global.leave_page_to_parent();
        // SAFETY: the caller's promise.
        unsafe { Self::after_fork(address) }
    }
}

impl<L: FreeList, const REGIONS: usize> Drop for SmallocGlobal<L, REGIONS> {
    fn drop(&mut self) {
        let address = self.covered_at.swap(0, Ordering::Relaxed);
        if address == ptr::from_ref(self).addr() {
            fork::uncover(ptr::from_ref(self).cast());
        }
    }
}
