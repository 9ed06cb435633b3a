//! The C library's list of open streams, which `fork` locks.
//!
//! `fork` runs the prepare handlers first and locks the list after them. A thread that holds the list, as
//! `fflush(NULL)` does, may wait for a stream whose holder waits for a heap to enlarge its buffer. If the forking
//! thread held the heaps and waited for the list, none of the three could continue. So the list is locked before the
//! heaps; its lock is recursive.
//!
//! A process with a single thread waits for no other, and its fork leaves the list alone. So does this file: the fork
//! may have interrupted the thread while it holds the list.

use super::lock::flag_of_libc;
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether the thread that forks has locked the list.
static LOCKED: AtomicBool = AtomicBool::new(false);

#[cfg(all(target_env = "gnu", not(miri)))]
unsafe extern "C" {
    fn _IO_list_lock();
    fn _IO_list_unlock();
    fn _IO_list_resetlock();
}

/// Whether the process is known to have a single thread.
#[cfg(all(target_env = "gnu", not(miri)))]
fn is_single_threaded() -> bool {
    // SAFETY: the C library's variable can be read at any time.
    flag_of_libc().is_some_and(|flag| unsafe { flag.read_volatile() } != 0)
}

/// Locks the list before a fork.
pub(super) fn lock() {
    #[cfg(all(target_env = "gnu", not(miri)))]
    if !is_single_threaded() {
        // SAFETY: the call has no preconditions.
        unsafe { _IO_list_lock() };
        LOCKED.store(true, Ordering::Relaxed);
    }
}

/// Unlocks the list in the parent, if [`lock`] has locked it.
///
/// # Safety
/// This thread has called [`lock`].
pub(super) unsafe fn unlock() {
    #[cfg(all(target_env = "gnu", not(miri)))]
    if LOCKED.swap(false, Ordering::Relaxed) {
        // SAFETY: guaranteed by the caller.
        unsafe { _IO_list_unlock() };
    }
}

/// Resets the list in the child, whichever thread held it.
///
/// # Safety
/// The process has one thread. The C library has reset the lock already, since its parent had several.
pub(super) unsafe fn reset() {
    #[cfg(all(target_env = "gnu", not(miri)))]
    if LOCKED.swap(false, Ordering::Relaxed) {
        // SAFETY: guaranteed by the caller.
        unsafe { _IO_list_resetlock() };
    }
}
