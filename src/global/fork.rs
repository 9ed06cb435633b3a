//! What a `fork` does to a heap that is a static, and the end of one that is not.

use super::held::Slow;
use super::{Guarded, SmallocGlobal};
use crate::free_list::FreeList;
use crate::system::errno;
use crate::threads::fork_table;
use crate::threads::lock::{Lock, SlowReason};
use core::ptr;
use core::sync::atomic::Ordering;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Whether the heap is covered where it is now.
    pub(super) fn is_registered(&self) -> bool {
        self.registered_at.load(Ordering::Relaxed) == ptr::from_ref(self).addr()
    }

    /// Whether nobody has taken a lock of the heap yet.
    #[inline]
    pub(super) fn is_unused(&self) -> bool {
        self.registered_at.load(Ordering::Relaxed) == fork_table::NOT_ATTEMPTED
    }

    /// Covers the heap before its first use. Everybody who takes a lock of it calls this first, or takes it only if it is
    /// not watched: in the child of a fork, a lock that another thread held is held for ever, if the heap is not covered.
    #[inline]
    pub(super) fn ensure_registered(&self) {
        if self.is_unused() {
            self.register();
        }
    }

    /// Covers the heap where it is now, if that is a static.
    #[cold]
    #[inline(never)]
    pub(super) fn register(&self) {
        let handlers = [Self::before_fork, Self::after_fork, Self::after_fork_in_child];
        errno::unchanged(|| fork_table::add(ptr::from_ref(self).cast(), handlers, &self.registered_at));
        for shared in self.regions.all() {
            shared.lock.lock().set_slow(SlowReason::FirstUse, false);
        }
    }

    /// Locks the heap at an address for a fork, if it is there.
    ///
    /// # Safety
    /// A `SmallocGlobal<L>` was at that address, in memory that can be read, and this thread is about to fork.
    pub(super) unsafe fn before_fork(address: *const ()) -> bool {
        // SAFETY: the caller's promise; what was moved away has left its bytes, which are atomics and numbers.
        let global = unsafe { &*address.cast::<Self>() };
        let there = global.is_registered();
        if there {
            // SAFETY: after_fork is called by the same thread in both processes.
            global.regions.all().iter().for_each(|shared| unsafe { lock_for_fork(global, &shared.lock) });
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
        for region in 0..REGIONS {
            let mut heap = global.enter_slow(region).guard;
            heap.stop_moving();
            // Who was about to say so in the parent is not there.
            heap.set_slow(SlowReason::FirstUse, false);
            drop(heap);
        }
        global.leave_page_to_parent();
        // SAFETY: the caller's promise.
        unsafe { Self::after_fork(address) }
    }
}

/// Takes the lock for the time of a `fork`, when nothing is being purged: the child has not the thread that would see to the
/// end of it.
///
/// # Safety
/// As for [`Lock::lock_for_fork`].
unsafe fn lock_for_fork<L: FreeList, const REGIONS: usize>(
    global: &SmallocGlobal<L, REGIONS>,
    lock: &Lock<Guarded<L>>,
) {
    loop {
        drop(Slow { global, guard: lock.lock() }.idle());
        // SAFETY: the caller's promise, or released below.
        unsafe { lock.lock_for_fork() };
        if !lock.lock().is_purging() {
            return;
        }
        // SAFETY: this thread took it just now, and holds no guard.
        unsafe { lock.unlock_after_fork() };
    }
}

impl<L: FreeList, const REGIONS: usize> Drop for SmallocGlobal<L, REGIONS> {
    fn drop(&mut self) {
        let address = self.registered_at.swap(fork_table::NOT_ATTEMPTED, Ordering::Relaxed);
        if address == ptr::from_ref(self).addr() {
            fork_table::remove(ptr::from_ref(self).cast());
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/global/fork.rs"]
mod tests;
