//! The calling thread's `errno`, which no success and no free may change.

use core::ffi::c_int;
use libc::__errno_location as location;

/// The number of the last call of the system that failed on this thread.
pub(crate) fn get() -> c_int {
    // SAFETY: the call has no conditions.
    let place = unsafe { location() };
    // SAFETY: the place is the thread's own and lives as long as the thread.
    unsafe { *place }
}

fn set(number: c_int) {
    // SAFETY: the call has no conditions.
    let place = unsafe { location() };
    // SAFETY: the place is the thread's own, and nothing refers to it during the store.
    unsafe { *place = number }
}

/// Runs `calls` and gives `errno` back the value that it had before.
pub(crate) fn unchanged<R>(calls: impl FnOnce() -> R) -> R {
    let before = get();
    let result = calls();
    set(before);
    result
}
