//! The work of `malloc` and its relatives. `preload.c` calls these functions under the names of the C library.

use crate::global::HEAP;
use crate::system::{fail, fatal, keep_errno, page_size};
use crate::{foreign, mapped, nowhere, payload};
use core::alloc::Layout;
use core::ffi::{c_int, c_void};
use core::ptr::{self, NonNull};

/// The alignment of every block.
const GRANULE: usize = 16;

#[inline(always)]
fn given(block: *mut u8) -> *mut c_void {
    if block.is_null() { fail(libc::ENOMEM) } else { block.cast() }
}

/// Allocates; null if nothing fits. `errno` is unchanged.
#[inline(always)]
fn allocate(size: usize, align: usize, zeroed: bool) -> *mut u8 {
    let Ok(layout) = Layout::from_size_align(size, align) else { return ptr::null_mut() };
    // One comparison for both: 0 wraps to the largest number.
    if size.wrapping_sub(1) >= mapped::ALWAYS - 1 {
        return allocate_special(layout, zeroed);
    }
    let block = if zeroed { payload::alloc_zeroed(layout) } else { payload::alloc(layout) };
    if block.is_null() { allocate_mapped(layout) } else { block }
}

#[cold]
#[inline(never)]
fn allocate_special(layout: Layout, zeroed: bool) -> *mut u8 {
    if layout.size() == 0 {
        if let Some(block) = nowhere::take(layout.align()) {
            return block.as_ptr();
        }
    } else if mapped::are_allowed() {
        return allocate_mapped(layout);
    }
    if zeroed { payload::alloc_zeroed(layout) } else { payload::alloc(layout) }
}

/// A mapping is zeroed anyway.
#[cold]
#[inline(never)]
fn allocate_mapped(layout: Layout) -> *mut u8 {
    mapped::alloc(layout.size(), layout.align()).map_or(ptr::null_mut(), NonNull::as_ptr)
}

/// `malloc`.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_malloc(size: usize) -> *mut c_void {
    given(allocate(size, GRANULE, false))
}

/// `calloc`.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_calloc(count: usize, size: usize) -> *mut c_void {
    given(count.checked_mul(size).map_or(ptr::null_mut(), |bytes| allocate(bytes, GRANULE, true)))
}

/// `free`.
///
/// # Safety
/// Nothing uses the block any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_preload_free(block: *mut c_void) {
    match NonNull::new(block.cast::<u8>()) {
        // SAFETY: guaranteed by the caller.
        Some(block) if payload::contains(block) => unsafe { payload::free(block) },
        // SAFETY: guaranteed by the caller.
        Some(block) => unsafe { free_elsewhere(block) },
        None => {}
    }
}

/// Frees a block that is in no region.
#[cold]
#[inline(never)]
unsafe fn free_elsewhere(block: NonNull<u8>) {
    if nowhere::contains(block) {
        return nowhere::give(block);
    }
    let freed = keep_errno(|| {
        // SAFETY: guaranteed by the caller.
        let own = unsafe { mapped::free(block) };
        // SAFETY: guaranteed by the caller.
        own || unsafe { foreign::free(block) }
    });
    if !freed {
        // SAFETY: the heap does not contain the pointer, so this ends the process with a line that says so.
        unsafe { HEAP.sfree(block) }
    }
}

/// `operator new` (kind 1) and `new[]` (kind 2); null if nothing fits.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_new(size: usize, align: usize, kind: u8) -> *mut c_void {
    let block =
        if align.is_power_of_two() { allocate(size, align.max(GRANULE), false) } else { ptr::null_mut() };
    if let Some(block) = NonNull::new(block).filter(|&block| payload::contains(block)) {
        payload::mark(block, kind);
    }
    block.cast()
}

/// `operator delete` (kind 1) and `delete[]` (kind 2).
///
/// # Safety
/// Nothing uses the block any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_preload_delete(block: *mut c_void, kind: u8) {
    if let Some(block) = NonNull::new(block.cast::<u8>()).filter(|&block| payload::contains(block)) {
        payload::check_mark(block, kind);
    }
    // SAFETY: guaranteed by the caller.
    unsafe { smalloc_preload_free(block) }
}

/// `operator delete` with a size, and with an alignment or 1: a block of another size or alignment ends the process.
///
/// # Safety
/// Nothing uses the block any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_preload_delete_sized(
    block: *mut c_void,
    size: usize,
    align: usize,
    kind: u8,
) {
    let Some(block) = NonNull::new(block.cast::<u8>()) else { return };
    match Layout::from_size_align(size, align) {
        Ok(layout) if payload::contains(block) => {
            payload::check_mark(block, kind);
            // SAFETY: guaranteed by the caller.
            unsafe { payload::free_sized(block, layout) }
        }
        _ => {
            smalloc_preload_check(block.as_ptr().cast(), size, align);
            // SAFETY: guaranteed by the caller.
            unsafe { smalloc_preload_free(block.as_ptr().cast()) }
        }
    }
}

/// Ends the process unless a block can have been allocated with this size and alignment. Blocks of other allocators are
/// not checked.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_check(block: *mut c_void, size: usize, align: usize) {
    let Some(block) = NonNull::new(block.cast::<u8>()) else { return };
    let found = if payload::contains(block) {
        // A pointer that is no block is reported by the free that follows.
        payload::size(block).filter(|_| !payload::may_have(block, size))
    } else if nowhere::contains(block) {
        Some(0).filter(|&found| found != size)
    } else {
        mapped::size(block).filter(|&bytes| size.checked_next_multiple_of(page_size()) != Some(bytes))
    };
    if let Some(found) = found {
        fatal(format_args!(
            "wrong size: {block:p} is a block of {found} bytes, and is freed as one of {size}"
        ));
    }
    if !align.is_power_of_two() || block.addr().get() & align.wrapping_sub(1) != 0 {
        fatal(format_args!("wrong size: {block:p} is freed as one that is aligned to {align}"));
    }
}

/// `realloc`: with a size of 0 it frees the block and returns null, as glibc's does.
///
/// # Safety
/// The block is null or in use, and nothing uses it any more if it has moved.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_preload_realloc(block: *mut c_void, size: usize) -> *mut c_void {
    let Some(old) = NonNull::new(block.cast::<u8>()) else { return smalloc_preload_malloc(size) };
    if size == 0 {
        // SAFETY: guaranteed by the caller.
        unsafe { smalloc_preload_free(block) };
        return ptr::null_mut();
    }
    if Layout::from_size_align(size, GRANULE).is_err() {
        return fail(libc::ENOMEM);
    }
    if payload::contains(old) && size < mapped::ALWAYS {
        // SAFETY: guaranteed by the caller, and the size is that of a layout.
        if let Some(new) = unsafe { payload::resize(old, size) } {
            return new.as_ptr().cast();
        }
    }
    // SAFETY: guaranteed by the caller.
    unsafe { realloc_elsewhere(old, size) }
}

/// Resizes a block that is in no region, needs a mapping, or found no room.
#[cold]
#[inline(never)]
unsafe fn realloc_elsewhere(old: NonNull<u8>, size: usize) -> *mut c_void {
    if mapped::size(old).is_some()
        // SAFETY: guaranteed by the caller.
        && let Some(new) = unsafe { mapped::resize(old, size) }
    {
        return new.as_ptr().cast();
    }
    let Some(usable) = size_of_any(old) else {
        // SAFETY: the pointer is no block in use, so this ends the process with a line that says so.
        unsafe { smalloc_preload_free(old.as_ptr().cast()) };
        return ptr::null_mut();
    };
    let new = allocate(size, GRANULE, false);
    if new.is_null() {
        return fail(libc::ENOMEM);
    }
    // SAFETY: both blocks are in use and belong to this thread, and each has this many bytes.
    unsafe { new.copy_from_nonoverlapping(old.as_ptr(), usable.min(size)) };
    // SAFETY: guaranteed by the caller.
    unsafe { smalloc_preload_free(old.as_ptr().cast()) };
    new.cast()
}

/// The bytes that a block of any kind may use; `None` if it is not a block.
fn size_of_any(block: NonNull<u8>) -> Option<usize> {
    if payload::contains(block) {
        return payload::size(block);
    }
    if nowhere::contains(block) {
        return nowhere::is_taken(block).then_some(0);
    }
    mapped::size(block).or_else(|| keep_errno(|| foreign::size(block)))
}

/// `malloc_usable_size`.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_usable_size(block: *mut c_void) -> usize {
    let Some(block) = NonNull::new(block.cast::<u8>()) else { return 0 };
    size_of_any(block)
        .unwrap_or_else(|| fatal(format_args!("malloc_usable_size: {block:p} is not a block in use")))
}

/// `aligned_alloc`: any size and any power of two.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_aligned_alloc(align: usize, size: usize) -> *mut c_void {
    if !align.is_power_of_two() {
        return fail(libc::EINVAL);
    }
    given(allocate(size, align.max(GRANULE), false))
}

/// `memalign`: the alignment is rounded up to a power of two, as by glibc.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_memalign(align: usize, size: usize) -> *mut c_void {
    match align.checked_next_power_of_two() {
        Some(align) => given(allocate(size, align.max(GRANULE), false)),
        None => fail(libc::EINVAL),
    }
}

/// `posix_memalign`: returns the error number and leaves `errno` alone.
///
/// # Safety
/// `result` may be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_preload_posix_memalign(
    result: *mut *mut c_void,
    align: usize,
    size: usize,
) -> c_int {
    if !align.is_power_of_two() || align < size_of::<*mut c_void>() {
        return libc::EINVAL;
    }
    let block = allocate(size, align.max(GRANULE), false);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: guaranteed by the caller.
    unsafe { result.write(block.cast()) };
    0
}

/// `valloc`.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_valloc(size: usize) -> *mut c_void {
    given(allocate(size, page_size(), false))
}

/// `pvalloc`: whole pages.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_pvalloc(size: usize) -> *mut c_void {
    let pages = size.checked_next_multiple_of(page_size());
    given(pages.map_or(ptr::null_mut(), |bytes| allocate(bytes, page_size(), false)))
}
