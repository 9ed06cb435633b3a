//! `fork` support: registration, the handlers' work, and removal when the heap is dropped.

use super::{Guarded, SmallocGlobal};
use crate::debugger;
use crate::free_list::FreeList;
use crate::region::{Extent, Granule};
use crate::system::clock::{monotonic_ns, sleep_ns};
use crate::system::errno;
use crate::threads::fork_table::{Before, Handlers};
use crate::threads::lock::{Lock, SlowReason, thread_token};
use crate::threads::preparing::is_preparing;
use core::ptr;
use core::sync::atomic::Ordering;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Whether the heap is registered for `fork` at its current address.
    pub(super) fn is_registered(&self) -> bool {
        self.registration.is_at(ptr::from_ref(self).addr())
    }

    /// Whether no lock of the heap has been taken yet.
    #[inline]
    pub(super) fn is_unused(&self) -> bool {
        self.registration.is_not_attempted()
    }

    /// Registers the heap before its first use. Every slow path calls this before it takes a lock; fast paths fail
    /// until it is done. Otherwise a child could inherit the lock of a thread that it does not have.
    #[inline]
    pub(super) fn ensure_registered(&self) {
        if self.is_unused() {
            self.register();
        }
        if self.forked_inside.load(Ordering::Relaxed) {
            self.finish_fork();
        }
    }

    /// Registers the heap at its current address, if it is a static.
    #[cold]
    #[inline(never)]
    pub(super) fn register(&self) {
        let handlers = Handlers {
            is_inside: Self::is_inside,
            before: Self::before_fork,
            in_child: Self::in_forked_child,
            after: Self::after_fork,
            unload: Self::unload,
        };
        errno::unchanged(|| self.registration.register(ptr::from_ref(self).cast(), handlers));
        for shared in self.regions.all() {
            shared.lock.learn_threads();
            shared.lock.lock().set_slow(SlowReason::FirstUse, false);
        }
    }

    /// Whether this thread holds a lock of the heap at `address`: it forks in a signal handler that has interrupted a
    /// call.
    ///
    /// # Safety
    /// A `SmallocGlobal<L, REGIONS>` was registered at `address`, which is readable.
    pub(super) unsafe fn is_inside(address: *const ()) -> bool {
        // SAFETY: guaranteed by the caller. A heap that lives elsewhere now has left its bytes here, or another heap
        // has taken the place.
        let global = unsafe { &*address.cast::<Self>() };
        global.is_registered() && global.regions.all().iter().any(|shared| shared.lock.is_held_here())
    }

    /// Locks the heap at `address` before a fork, except for what this thread holds.
    ///
    /// # Safety
    /// A `SmallocGlobal<L, REGIONS>` was registered at `address`, which is readable, and this thread is about to fork.
    pub(super) unsafe fn before_fork(address: *const (), inside: bool) -> Before {
        // SAFETY: guaranteed by the caller. A heap that lives elsewhere now has left its bytes here, or another heap
        // has taken the place.
        let global = unsafe { &*address.cast::<Self>() };
        if !global.is_registered() {
            return Before::Gone;
        }
        let others = || global.regions.all().iter().filter(|shared| !shared.lock.is_held_here());
        // SAFETY: `after_fork` unlocks on the same thread, in both processes.
        if others().all(|shared| unsafe { lock_for_fork(&shared.lock, inside) } || inside) {
            global.caches.before_fork();
            return Before::Locked;
        }
        // SAFETY: this thread took the locks above.
        unsafe { global.regions.unlock_after_fork() };
        Before::GaveUp
    }

    /// Unlocks the heap at `address` after a fork.
    ///
    /// # Safety
    /// `before_fork` has locked the heap on this thread.
    pub(super) unsafe fn after_fork(address: *const ()) {
        // SAFETY: guaranteed by the caller.
        let global = unsafe { &*address.cast::<Self>() };
        global.caches.after_fork();
        // SAFETY: this thread took the locks in `before_fork`.
        unsafe { global.regions.unlock_after_fork() };
    }

    /// Ends in the child what other threads had begun on the heap at `address`: they do not exist here. If this thread
    /// is inside a call, its next slow call does that, and the locks that other threads hold are lost.
    ///
    /// # Safety
    /// `before_fork` has locked the heap on this thread.
    pub(super) unsafe fn in_forked_child(address: *const ()) {
        // SAFETY: guaranteed by the caller.
        let global = unsafe { &*address.cast::<Self>() };
        let locks = || global.regions.all().iter().map(|shared| &shared.lock);
        if locks().all(Lock::is_locked_for_fork) {
            global.forget_other_threads();
            return global.empty_caches_in_child();
        }
        global.forked_inside.store(true, Ordering::Relaxed);
        for lock in locks() {
            if lock.is_locked_for_fork() || lock.is_held_here() {
                lock.set_slow(SlowReason::Forked, true);
            } else {
                lock.abandon();
            }
        }
    }

    /// [`forget_other_threads`](Self::forget_other_threads), if the process was forked inside a call.
    #[cold]
    #[inline(never)]
    pub(super) fn finish_fork(&self) {
        if self.forked_inside.swap(false, Ordering::Relaxed) {
            self.forget_other_threads();
        }
    }

    fn forget_other_threads(&self) {
        let me = thread_token();
        let mut complete = true;
        for shared in self.regions.all() {
            if shared.lock.is_abandoned() {
                complete = false;
                continue;
            }
            let mut heap = shared.lock.lock();
            heap.stop_moving();
            heap.forget_purge_of_others(me);
            // The threads that would have cleared these do not exist in the child.
            heap.set_slow(SlowReason::FirstUse, false);
            heap.set_slow(SlowReason::Forked, false);
            let purging = heap.is_purging();
            heap.set_slow(SlowReason::Purge, purging);
        }
        if complete {
            self.drop_parents_page();
        }
    }
}

/// The longest wait for a lock before a fork, in nanoseconds, of a thread inside a call. Then it leaves the lock out:
/// the thread that has it may wait for this one.
const PATIENCE_NS: u64 = 1_000_000_000;
/// Nanoseconds between two looks whether another thread has finished its purge.
const PURGE_WAIT_NS: u32 = 100_000;

/// Takes a lock for a fork while nothing is being purged: the child would lack the thread that finishes the purge. A
/// purge by this thread continues in both processes. False if the lock's thread prepares a fork itself, and the lock is
/// not taken; also after a while if this thread is `inside` a call.
///
/// # Safety
/// As for [`Lock::lock_for_fork`].
unsafe fn lock_for_fork<L: FreeList>(lock: &Lock<Guarded<L>>, inside: bool) -> bool {
    let start = if inside { monotonic_ns() } else { 0 };
    let give_up =
        |thread: usize| is_preparing(thread) || inside && monotonic_ns().saturating_sub(start) > PATIENCE_NS;
    let all = Extent::new(Granule(0), Granule(usize::MAX));
    loop {
        // SAFETY: released below, or kept as the caller guarantees.
        if !unsafe { lock.lock_for_fork(give_up) } {
            return false;
        }
        let by = lock.lock().purged_by(all);
        let Some(other) = by.filter(|&by| by != thread_token()) else { return true };
        if give_up(other) && inside {
            // Its pages count as dirty in the child.
            return true;
        }
        // SAFETY: this thread has just taken the lock, and holds no guard.
        unsafe { lock.unlock_after_fork() };
        if give_up(other) {
            return false;
        }
        sleep_ns(PURGE_WAIT_NS);
    }
}

impl<L: FreeList, const REGIONS: usize> Drop for SmallocGlobal<L, REGIONS> {
    fn drop(&mut self) {
        self.caches.detach();
        if self.is_registered() {
            self.regions.all().iter().for_each(|shared| debugger::remove(ptr::from_ref(shared).addr()));
        }
        self.registration.unregister();
    }
}

#[cfg(test)]
#[path = "../../tests/unit/global/fork.rs"]
mod tests;
