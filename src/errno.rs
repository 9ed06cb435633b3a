//! The calling thread's `errno`, which no success and no free may change.

use core::ffi::c_int;

#[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as location;
#[cfg(any(target_os = "linux", target_os = "dragonfly"))]
use libc::__errno_location as location;
#[cfg(any(target_vendor = "apple", target_os = "freebsd"))]
use libc::__error as location;
#[cfg(any(target_os = "solaris", target_os = "illumos"))]
use libc::___errno as location;

/// The number of the last system call that failed on this thread.
pub(crate) fn get() -> c_int {
    // SAFETY: the location is the thread's own and lives as long as the thread.
    unsafe { *location() }
}

fn set(number: c_int) {
    // SAFETY: as in `get`; nothing else refers to it during the store.
    unsafe { *location() = number }
}

/// Gives `errno` the value back that it had when this was made.
#[must_use = "errno is restored when this is dropped"]
pub(crate) struct Preserved(c_int);

impl Preserved {
    pub(crate) fn new() -> Self {
        Preserved(get())
    }
}

impl Drop for Preserved {
    fn drop(&mut self) {
        set(self.0);
    }
}
