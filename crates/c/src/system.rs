//! `errno`, messages, variables, and the size of a page.

use core::ffi::{CStr, c_int, c_void};
use core::fmt::{self, Write};
use core::ptr;

/// Sets `errno`.
pub(crate) fn set_errno(number: c_int) {
    // SAFETY: the call has no preconditions.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the location belongs to this thread, and nothing borrows it.
    unsafe { *place = number }
}

fn errno() -> c_int {
    // SAFETY: the call has no preconditions.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: the location belongs to this thread, and nothing borrows it.
    unsafe { *place }
}

/// Runs `calls` and restores `errno`.
pub(crate) fn keep_errno<R>(calls: impl FnOnce() -> R) -> R {
    let before = errno();
    let result = calls();
    set_errno(before);
    result
}

/// Null, with `errno` set.
#[cold]
pub(crate) fn fail(number: c_int) -> *mut c_void {
    set_errno(number);
    ptr::null_mut()
}

/// The size of a page in bytes, a power of two.
pub(crate) fn page_size() -> usize {
    // SAFETY: the call has no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Whether a variable is set and not empty. False in a program that runs with more rights than its caller.
pub(crate) fn is_set(name: &CStr) -> bool {
    value(name).is_some_and(|value| !value.is_empty())
}

/// The value of a variable. `None` in a program that runs with more rights than its caller.
pub(crate) fn value(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: the call has no preconditions.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return None;
    }
    // SAFETY: the name is NUL-terminated.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    // SAFETY: environment strings are NUL-terminated.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) }.to_bytes())
}

/// Writes `smalloc: <message>` and a newline to standard error.
#[cold]
pub(crate) fn say(message: fmt::Arguments<'_>) {
    // A failure to write is not reported.
    let _ = writeln!(StandardError, "smalloc: {message}");
}

/// Writes a message and aborts.
#[cold]
pub(crate) fn fatal(message: fmt::Arguments<'_>) -> ! {
    say(message);
    // SAFETY: `abort` may be called in any state of the process.
    unsafe { libc::abort() }
}

/// Standard error, without a buffer and without an allocation.
pub(crate) struct StandardError;

impl Write for StandardError {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: pointer and length are those of a live string.
        let written = unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
        if written < 0 { Err(fmt::Error) } else { Ok(()) }
    }
}
