//! System calls that are no cancellation points.
//!
//! The C library's `write`, `open`, `nanosleep` and some others are cancellation points: a thread that was cancelled by
//! `pthread_cancel` ends in them. In the heap it would end with the heap's lock held, or with locks of its caller, who
//! does not expect the end there. `syscall` is no cancellation point. A failed call returns -1 and sets `errno`.

use super::errno;
use core::ffi::{CStr, c_int, c_long};
use core::ptr;

/// Zeros that are written at a time where the system cannot allocate blocks. Blocks are at least this large.
const ZEROS: [u8; 4096] = [0; 4096];

/// Opens a file, and creates it with the permissions `mode` if `flags` say so.
pub(super) fn open(path: &CStr, flags: c_int, mode: libc::mode_t) -> c_int {
    let (here, flags, mode) = (c_long::from(libc::AT_FDCWD), c_long::from(flags), c_long::from(mode));
    // SAFETY: the path is NUL-terminated.
    unsafe { libc::syscall(libc::SYS_openat, here, path.as_ptr(), flags, mode) as c_int }
}

/// Closes a descriptor that is not used again.
pub(super) fn close(descriptor: c_int) {
    // SAFETY: the call has no preconditions.
    unsafe { libc::syscall(libc::SYS_close, c_long::from(descriptor)) };
}

/// Reads where a symbolic link leads, without a NUL. Returns the bytes read.
#[cfg(feature = "sites")]
pub(crate) fn read_link(path: &CStr, to: &mut [u8]) -> isize {
    let (here, path) = (c_long::from(libc::AT_FDCWD), path.as_ptr());
    // SAFETY: the path is NUL-terminated, and pointer and length are those of the slice.
    unsafe { libc::syscall(libc::SYS_readlinkat, here, path, to.as_mut_ptr(), to.len()) as isize }
}

/// Removes a file.
pub(super) fn unlink(path: &CStr) {
    // SAFETY: the path is NUL-terminated.
    unsafe { libc::syscall(libc::SYS_unlinkat, c_long::from(libc::AT_FDCWD), path.as_ptr(), 0_usize) };
}

/// Reads from the start of a file. Returns the bytes read.
pub(super) fn read_start(descriptor: c_int, to: &mut [u8]) -> isize {
    let (descriptor, from) = (c_long::from(descriptor), 0_usize);
    // SAFETY: pointer and length are those of the slice.
    unsafe { libc::syscall(libc::SYS_pread64, descriptor, to.as_mut_ptr(), to.len(), from) as isize }
}

/// Writes to a file at its position. Returns the bytes written.
#[cfg(not(miri))]
pub(super) fn write<T: Copy>(descriptor: c_int, from: &[T]) -> isize {
    let bytes = size_of_val(from);
    // SAFETY: pointer and length are those of the slice.
    unsafe { libc::syscall(libc::SYS_write, c_long::from(descriptor), from.as_ptr(), bytes) as isize }
}

#[cfg(miri)]
pub(super) fn write<T: Copy>(descriptor: c_int, from: &[T]) -> isize {
    // SAFETY: pointer and length are those of the slice.
    unsafe { libc::write(descriptor, from.as_ptr().cast(), size_of_val(from)) }
}

/// Writes to a file at `offset`, in bytes. Returns the bytes written.
pub(super) fn write_at<T: Copy>(descriptor: c_int, from: &[T], offset: libc::off_t) -> isize {
    let (descriptor, bytes) = (c_long::from(descriptor), size_of_val(from));
    // SAFETY: pointer and length are those of the slice.
    unsafe { libc::syscall(libc::SYS_pwrite64, descriptor, from.as_ptr(), bytes, offset) as isize }
}

/// Allocates blocks for `bytes` bytes at `offset`, which is the file's end. If the file system does not support that,
/// zeros are written. Fails with the system's `errno`.
pub(super) fn allocate(descriptor: c_int, offset: libc::off_t, bytes: usize) -> Result<(), i32> {
    let file = c_long::from(descriptor);
    // SAFETY: the call has no preconditions.
    let allocate = || unsafe { libc::syscall(libc::SYS_fallocate, file, 0_usize, offset, bytes) as isize };
    match retried(allocate) {
        Ok(_) => Ok(()),
        Err(libc::EOPNOTSUPP) => write_zeros(descriptor, offset, bytes),
        Err(errno) => Err(errno),
    }
}

#[cold]
fn write_zeros(descriptor: c_int, offset: libc::off_t, bytes: usize) -> Result<(), i32> {
    let mut done = 0;
    while let Some(zeros) = ZEROS.get(..bytes.saturating_sub(done).min(ZEROS.len()))
        && !zeros.is_empty()
    {
        let at = offset.saturating_add_unsigned(done as u64);
        match retried(|| write_at(descriptor, zeros, at))? {
            0 => return Err(libc::ENOSPC),
            written => done = done.saturating_add(written),
        }
    }
    Ok(())
}

/// Repeats a call while a signal interrupts it. Fails with the system's `errno`.
fn retried(call: impl Fn() -> isize) -> Result<usize, i32> {
    loop {
        match usize::try_from(call()) {
            Ok(result) => return Ok(result),
            Err(_) if errno::get() == libc::EINTR => {}
            Err(_) => return Err(errno::get()),
        }
    }
}

/// Sleeps for `nanoseconds`, which is less than a second, or until a signal arrives.
pub(super) fn sleep_ns(nanoseconds: u32) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: nanoseconds.into() };
    let nowhere = ptr::null_mut::<libc::timespec>();
    #[cfg(not(miri))]
    // SAFETY: `time` is a valid duration, and a null pointer means that the remaining time is not wanted.
    unsafe {
        let clock = c_long::from(libc::CLOCK_MONOTONIC);
        libc::syscall(libc::SYS_clock_nanosleep, clock, 0_usize, &raw const time, nowhere)
    };
    #[cfg(miri)]
    // SAFETY: as above.
    unsafe {
        libc::nanosleep(&time, nowhere)
    };
}

/// Whether the program has locked a part of these pages in memory (`mlock`). Changes nothing.
pub(crate) fn is_locked(start: *mut u8, bytes: usize) -> bool {
    // To invalidate pages that no file backs means nothing, but is refused if they are locked.
    let flags = c_long::from(libc::MS_ASYNC | libc::MS_INVALIDATE);
    // SAFETY: the call neither reads nor writes the pages.
    unsafe { libc::syscall(libc::SYS_msync, start, bytes, flags) != 0 && errno::get() == libc::EBUSY }
}
