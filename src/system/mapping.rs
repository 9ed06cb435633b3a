//! Mapped memory: `mmap`, `munmap`, and the size of a page.
//!
//! Beside `region`, where the heap's own memory is, this is the only place that computes pointers.

use super::errno;
use core::ptr::{self, NonNull};

/// The system's page size in bytes: 4 KiB on x86-64, up to 64 KiB on aarch64.
pub(crate) fn page_size() -> usize {
    // SAFETY: the call has no preconditions.
    let answer = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(answer).unwrap_or(4096)
}

/// `bytes` rounded up to whole pages. Page sizes are powers of two.
pub(crate) fn whole_pages(bytes: usize) -> usize {
    let mask = page_size().wrapping_sub(1);
    bytes.saturating_add(mask) & !mask
}

/// Anonymous memory of `bytes` bytes with the given protection, at `wish` if that is free; its start, or the system's
/// `errno`.
pub(crate) fn map(wish: *mut u8, bytes: usize, protection: i32, flags: i32) -> Result<*mut u8, i32> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: a new anonymous mapping that replaces none touches nothing that exists.
    let start = unsafe { libc::mmap(wish.cast(), bytes, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED { Err(errno::get()) } else { Ok(start.cast()) }
}

/// Unmaps `bytes` bytes, if there are any.
///
/// # Safety
/// Nothing refers to that memory any more.
pub(crate) unsafe fn unmap(start: *mut u8, bytes: usize) {
    if bytes > 0 {
        // SAFETY: the caller owns the range and nothing refers to it.
        unsafe { libc::munmap(start.cast(), bytes) };
    }
}

/// The element of that index of an array.
///
/// # Safety
/// The array has that many elements, or one fewer.
pub(super) unsafe fn nth<T>(first: NonNull<T>, index: usize) -> NonNull<T> {
    // SAFETY: the caller's promise.
    unsafe { first.add(index) }
}

/// As aligned as a mapping.
#[repr(align(4096))]
struct Page;

/// A mapping of its own, unmapped when it is dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is an address and a size; whoever owns it owns the memory, on whichever thread.
unsafe impl Send for Mapping {}
// SAFETY: through a shared reference there are only addresses; what is done with them is the user's to justify.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// No memory, at an address that suits every type.
    pub(crate) const NONE: Self = Self { start: NonNull::<Page>::dangling().cast(), bytes: 0 };

    /// Zeroed memory of at least `bytes` bytes, in whole pages. The error is the system's `errno`.
    pub(crate) fn anonymous(bytes: usize, flags: i32) -> Result<Self, i32> {
        let bytes = whole_pages(bytes);
        let start = map(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags)?;
        // SAFETY: a successful mapping is not null.
        Ok(Self { start: unsafe { NonNull::new_unchecked(start) }, bytes })
    }

    /// The `bytes` bytes of a file from `offset` on, seen by all processes that map them. The error is the system's
    /// `errno`.
    pub(crate) fn of_file(
        descriptor: libc::c_int,
        offset: libc::off_t,
        bytes: usize,
        protection: i32,
    ) -> Result<Self, i32> {
        // SAFETY: a new mapping that replaces none touches nothing that exists.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, descriptor, offset) };
        if start == libc::MAP_FAILED {
            return Err(errno::get());
        }
        // SAFETY: a successful mapping is not null.
        Ok(Self { start: unsafe { NonNull::new_unchecked(start.cast()) }, bytes })
    }

    /// Size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where entry number `index` of an array that begins with the mapping lies.
    ///
    /// # Safety
    /// The mapping has that many entries, or one fewer.
    #[inline(always)]
    pub(crate) unsafe fn entry<T>(&self, index: usize) -> NonNull<T> {
        // SAFETY: the caller's promise.
        unsafe { self.start.cast::<T>().add(index) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is owned, and borrows of what is in it have ended.
        errno::unchanged(|| unsafe { unmap(self.start.as_ptr(), self.bytes) });
    }
}
