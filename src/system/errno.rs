//! The calling thread's `errno`, which no success and no free may change.

use core::ffi::{CStr, c_char, c_int};
use core::fmt;
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

/// Shows the system's words for a number, and the number: `No space left on device (errno 28)`.
pub(crate) struct Reason(pub(crate) c_int);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text: [c_char; 96] = [0; 96];
        // SAFETY: the buffer is writable for its whole length, of which the last byte is never written.
        unsafe { libc::strerror_r(self.0, text.as_mut_ptr(), text.len() - 1) };
        // SAFETY: the buffer ends in a zero and outlives the text.
        let reason = unsafe { CStr::from_ptr(text.as_ptr()) };
        write!(f, "{} (errno {})", reason.to_str().unwrap_or("unknown reason"), self.0)
    }
}
