//! The calling thread's `errno`. No successful call and no free may change it.

use core::ffi::{CStr, c_char, c_int};
use core::fmt;
use libc::__errno_location as location;

/// Error number of the thread's last failed system call.
pub(crate) fn get() -> c_int {
    // SAFETY: the call has no preconditions.
    let place = unsafe { location() };
    // SAFETY: the location belongs to this thread and lives as long as it.
    unsafe { *place }
}

pub(crate) fn set(number: c_int) {
    // SAFETY: the call has no preconditions.
    let place = unsafe { location() };
    // SAFETY: the location belongs to this thread, and nothing borrows it.
    unsafe { *place = number }
}

/// Runs `calls` and restores `errno`.
pub(crate) fn unchanged<R>(calls: impl FnOnce() -> R) -> R {
    let before = get();
    let result = calls();
    set(before);
    result
}

/// Formats an error number as in `No space left on device (errno 28)`.
pub(crate) struct Reason(pub(crate) c_int);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text: [c_char; 96] = [0; 96];
        // SAFETY: the buffer is writable for the length passed, which leaves its last byte zero.
        unsafe { libc::strerror_r(self.0, text.as_mut_ptr(), text.len() - 1) };
        // SAFETY: the buffer is NUL-terminated and outlives `reason`.
        let reason = unsafe { CStr::from_ptr(text.as_ptr()) };
        write!(f, "{} (errno {})", reason.to_str().unwrap_or("unknown reason"), self.0)
    }
}
