//! Replacing pages of the region by empty ones in place.

use crate::system::fatal::fatal;

/// Replaces pages by empty ones that belong to the mapping around them. False if the system refuses.
///
/// The kernel numbers pages within a mapping, and moved pages keep their old numbers. So moved pages are a mapping of
/// their own until they are mapped again.
///
/// # Safety
/// These are whole pages of the region that are or become committed, nobody uses them meanwhile, and their contents are
/// not needed.
pub(super) unsafe fn remap(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    let mapped = unsafe { map_at(start, bytes, libc::MAP_FIXED) };
    if !mapped {
        // SAFETY: the caller's promise.
        unsafe { restore_mapping(start, bytes) };
    }
    mapped
}

/// Maps pages of the region again if the kernel unmapped them and then failed to replace them. Ends the process if that
/// fails too, since the region would have a gap (R1).
///
/// # Safety
/// These are whole pages of the region and belong to this thread.
#[cold]
pub(super) unsafe fn restore_mapping(start: *mut u8, bytes: usize) {
    // SAFETY: the advice changes nothing. It fails if a page is not mapped.
    let mapped = unsafe { libc::madvise(start.cast(), bytes, libc::MADV_NORMAL) } == 0;
    // SAFETY: the flag keeps existing mappings.
    if !mapped && !unsafe { map_at(start, bytes, libc::MAP_FIXED_NOREPLACE) } {
        fatal(format_args!("the system unmapped {bytes} bytes at {start:p} and refuses to map them again"));
    }
}

/// Maps empty readable and writable pages. False if the system refuses.
///
/// # Safety
/// If `flag` allows replacing mappings, nothing refers to those in this range.
unsafe fn map_at(start: *mut u8, bytes: usize, flag: libc::c_int) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | flag;
    // SAFETY: the caller's promise.
    let there = unsafe { libc::mmap(start.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    there == start.cast()
}
