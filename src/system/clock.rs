//! Clocks, and sleeping.

use super::errno;
use core::ptr;

/// Nanoseconds on a clock that only goes forward.
pub(crate) fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// The same clock in steps of some milliseconds, which is faster to read.
pub(crate) fn coarse_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC_COARSE)
}

/// Nanoseconds since the system started: the same for all processes.
pub(crate) fn boot_ns() -> u64 {
    clock_ns(libc::CLOCK_BOOTTIME)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is valid for writes.
    unsafe { libc::clock_gettime(clock, &mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Sleeps for so many nanoseconds, less than a second, or until a signal arrives.
pub(crate) fn sleep_ns(nanoseconds: u32) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds.into() };
    // SAFETY: the time is valid and is only read; the null pointer says that the rest of the time is not wanted.
    errno::unchanged(|| unsafe { libc::nanosleep(&time, ptr::null_mut()) });
}
