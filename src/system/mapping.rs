//! Memory mappings and the page size.
//!
//! Pointers are computed only here and in `region`.

use super::errno;
use core::ptr::{self, NonNull};

pub(crate) fn page_size() -> usize {
    // SAFETY: the call has no preconditions.
    let answer = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(answer).unwrap_or(4096)
}

/// `bytes` rounded up to whole pages; page sizes are powers of two.
pub(crate) fn whole_pages(bytes: usize) -> usize {
    let mask = page_size().wrapping_sub(1);
    bytes.saturating_add(mask) & !mask
}

/// Maps `bytes` bytes of anonymous memory, at `hint` if that is free. Returns its start, or the system's `errno`.
pub(crate) fn map(hint: *mut u8, bytes: usize, protection: i32, flags: i32) -> Result<*mut u8, i32> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: without MAP_FIXED, a new mapping replaces nothing.
    let start = unsafe { libc::mmap(hint.cast(), bytes, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED { Err(errno::get()) } else { Ok(start.cast()) }
}

/// Unmaps `bytes` bytes; 0 does nothing.
///
/// # Safety
/// The caller owns the range, and nothing refers to it any more.
pub(crate) unsafe fn unmap(start: *mut u8, bytes: usize) {
    if bytes > 0 {
        // SAFETY: guaranteed by the caller.
        unsafe { libc::munmap(start.cast(), bytes) };
    }
}

/// Tells the kernel and debuggers whether core files hold these pages. False if the system refuses.
///
/// # Safety
/// The caller owns the range.
pub(crate) unsafe fn set_dumped(start: *mut u8, bytes: usize, dumped: bool) -> bool {
    let advice = if dumped { libc::MADV_DODUMP } else { libc::MADV_DONTDUMP };
    // SAFETY: the advice changes no contents, and the range is the caller's.
    unsafe { libc::madvise(start.cast(), bytes, advice) == 0 }
}

/// Pointer to element `index` of an array.
///
/// # Safety
/// The array has at least `index` elements.
pub(super) unsafe fn nth<T>(first: NonNull<T>, index: usize) -> NonNull<T> {
    // SAFETY: guaranteed by the caller: the result is in the array or one past its end.
    unsafe { first.add(index) }
}

/// The bytes at an address.
///
/// # Safety
/// They are readable, and nothing writes to them while the reference is used.
#[cfg(feature = "sites")]
pub(crate) unsafe fn bytes_at<'a>(address: usize, bytes: usize) -> &'a [u8] {
    // SAFETY: guaranteed by the caller.
    unsafe { core::slice::from_raw_parts(ptr::with_exposed_provenance(address), bytes) }
}

/// Has the alignment of the smallest page.
#[repr(align(4096))]
struct PageAligned;

#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: a mapping is an address and a size, and ownership of the memory may move between threads.
unsafe impl Send for Mapping {}
// SAFETY: a shared reference only gives addresses; code that dereferences them has its own argument.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// No memory, at an address that is aligned for every type.
    pub(crate) const NONE: Self = Self { start: NonNull::<PageAligned>::dangling().cast(), bytes: 0 };

    /// Maps at least `bytes` bytes of zeroed memory, in whole pages. Fails with the system's `errno`.
    pub(crate) fn anonymous(bytes: usize, flags: i32) -> Result<Self, i32> {
        let bytes = whole_pages(bytes);
        let start = map(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags)?;
        // SAFETY: a successful `mmap` does not return null.
        Ok(Self { start: unsafe { NonNull::new_unchecked(start) }, bytes })
    }

    /// Maps `bytes` bytes of a file from `offset` on, shared with other processes. Fails with the system's `errno`.
    pub(crate) fn of_file(
        descriptor: libc::c_int,
        offset: libc::off_t,
        bytes: usize,
        protection: i32,
    ) -> Result<Self, i32> {
        // SAFETY: without MAP_FIXED, a new mapping replaces nothing.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_SHARED, descriptor, offset) };
        if start == libc::MAP_FAILED {
            return Err(errno::get());
        }
        // SAFETY: a successful `mmap` does not return null.
        Ok(Self { start: unsafe { NonNull::new_unchecked(start.cast()) }, bytes })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Pointer to entry `index` of an array at the mapping's start.
    ///
    /// # Safety
    /// The mapping has room for at least `index` entries.
    #[inline(always)]
    pub(crate) unsafe fn entry<T>(&self, index: usize) -> NonNull<T> {
        // SAFETY: guaranteed by the caller: the result is in the mapping or one past its end.
        unsafe { self.start.cast::<T>().add(index) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping, and borrows of its contents have ended.
        errno::unchanged(|| unsafe { unmap(self.start.as_ptr(), self.bytes) });
    }
}
