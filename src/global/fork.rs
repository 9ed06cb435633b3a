//! `fork` support: registration, the handlers' work, and removal when the heap is dropped.

use super::held::LockedSlow;
use super::{Guarded, SmallocGlobal};
use crate::free_list::FreeList;
use crate::system::errno;
use crate::threads::fork_table;
use crate::threads::lock::{Lock, SlowReason};
use core::ptr;
use core::sync::atomic::Ordering;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Whether the heap is registered for `fork` at its current address.
    pub(super) fn is_registered(&self) -> bool {
        self.registered_at.load(Ordering::Relaxed) == ptr::from_ref(self).addr()
    }

    /// Whether no lock of the heap has been taken yet.
    #[inline]
    pub(super) fn is_unused(&self) -> bool {
        self.registered_at.load(Ordering::Relaxed) == fork_table::NOT_ATTEMPTED
    }

    /// Registers the heap before its first use. Every slow path calls this before it takes a lock; fast paths fail
    /// until it is done. Otherwise a child could inherit the lock of a thread that it does not have.
    #[inline]
    pub(super) fn ensure_registered(&self) {
        if self.is_unused() {
            self.register();
        }
    }

    /// Registers the heap at its current address, if it is a static.
    #[cold]
    #[inline(never)]
    pub(super) fn register(&self) {
        let handlers = [Self::before_fork, Self::after_fork, Self::after_fork_in_child];
        errno::unchanged(|| fork_table::add(ptr::from_ref(self).cast(), handlers, &self.registered_at));
        for shared in self.regions.all() {
            shared.lock.lock().set_slow(SlowReason::FirstUse, false);
        }
    }

    /// Locks the heap at `address` before a fork; false if it is no longer there.
    ///
    /// # Safety
    /// A `SmallocGlobal<L, REGIONS>` was registered at `address`, which is readable, and this thread is about to fork.
    pub(super) unsafe fn before_fork(address: *const ()) -> bool {
        // SAFETY: guaranteed by the caller. A heap that was moved away has left valid bytes: atomics and integers.
        let global = unsafe { &*address.cast::<Self>() };
        let there = global.is_registered();
        if there {
            // SAFETY: `after_fork` unlocks on the same thread, in both processes.
            global.regions.all().iter().for_each(|shared| unsafe { lock_for_fork(global, &shared.lock) });
            global.caches.before_fork();
        }
        there
    }

    /// Unlocks the heap at `address` after a fork, in the parent.
    ///
    /// # Safety
    /// `before_fork` has locked the heap on this thread.
    pub(super) unsafe fn after_fork(address: *const ()) -> bool {
        // SAFETY: guaranteed by the caller.
        let global = unsafe { &*address.cast::<Self>() };
        global.caches.after_fork();
        // SAFETY: this thread took the locks in `before_fork`.
        unsafe { global.regions.unlock_after_fork() };
        true
    }

    /// Unlocks the heap at `address` in the child, and ends what other threads had begun: they do not exist here.
    ///
    /// # Safety
    /// `before_fork` has locked the heap on this thread.
    pub(super) unsafe fn after_fork_in_child(address: *const ()) -> bool {
        // SAFETY: guaranteed by the caller.
        let global = unsafe { &*address.cast::<Self>() };
        for region in 0..REGIONS {
            let mut heap = global.enter_slow(region).guard;
            heap.stop_moving();
            // The thread that would have cleared this reason does not exist in the child.
            heap.set_slow(SlowReason::FirstUse, false);
            drop(heap);
        }
        global.empty_caches_in_child();
        global.drop_parents_page();
        // SAFETY: guaranteed by the caller.
        unsafe { Self::after_fork(address) }
    }
}

/// Takes a lock for a fork while nothing is being purged: the child would lack the thread that finishes the purge.
///
/// # Safety
/// As for [`Lock::lock_for_fork`].
unsafe fn lock_for_fork<L: FreeList, const REGIONS: usize>(
    global: &SmallocGlobal<L, REGIONS>,
    lock: &Lock<Guarded<L>>,
) {
    loop {
        drop(LockedSlow { global, guard: lock.lock() }.wait_until_idle());
        // SAFETY: released below, or kept as the caller guarantees.
        unsafe { lock.lock_for_fork() };
        if !lock.lock().is_purging() {
            return;
        }
        // SAFETY: this thread has just taken the lock, and holds no guard.
        unsafe { lock.unlock_after_fork() };
    }
}

impl<L: FreeList, const REGIONS: usize> Drop for SmallocGlobal<L, REGIONS> {
    fn drop(&mut self) {
        self.caches.detach();
        let address = self.registered_at.swap(fork_table::NOT_ATTEMPTED, Ordering::Relaxed);
        if address == ptr::from_ref(self).addr() {
            fork_table::remove(ptr::from_ref(self).cast());
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/global/fork.rs"]
mod tests;
