//! The C library's list of open streams, which `fork` locks.
//!
//! `fork` runs the prepare handlers first and locks the list after them. A thread that holds the list, as `fflush(NULL)`
//! does, may wait for a stream whose holder waits for a heap to enlarge its buffer. If the forking thread held the heaps
//! and waited for the list, none of the three could go on. So the list is locked before the heaps; its lock is recursive.

#[cfg(all(target_env = "gnu", not(miri)))]
unsafe extern "C" {
    fn _IO_list_lock();
    fn _IO_list_unlock();
    fn _IO_list_resetlock();
}

/// Locks the list before a fork.
pub(super) fn lock() {
    #[cfg(all(target_env = "gnu", not(miri)))]
    // SAFETY: the call has no preconditions.
    unsafe {
        _IO_list_lock();
    }
}

/// Unlocks the list after a fork, in the parent.
///
/// # Safety
/// This thread has called [`lock`].
pub(super) unsafe fn unlock() {
    #[cfg(all(target_env = "gnu", not(miri)))]
    // SAFETY: guaranteed by the caller.
    unsafe {
        _IO_list_unlock();
    }
}

/// Unlocks the list after a fork, in the child, whoever held it.
///
/// # Safety
/// The process has one thread. The C library has reset the lock already if its parent had several.
pub(super) unsafe fn reset() {
    #[cfg(all(target_env = "gnu", not(miri)))]
    // SAFETY: guaranteed by the caller.
    unsafe {
        _IO_list_resetlock();
    }
}
