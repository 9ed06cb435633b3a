//! A block is a payload of the heap.

use crate::global::HEAP;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;

/// Allocates; null if nothing fits.
#[inline(always)]
pub(crate) fn alloc(layout: Layout) -> *mut u8 {
    // SAFETY: this allocator accepts empty layouts too, and takes a granule for them.
    unsafe { HEAP.alloc(layout) }
}

/// Allocates zeros; null if nothing fits.
#[inline(always)]
pub(crate) fn alloc_zeroed(layout: Layout) -> *mut u8 {
    // SAFETY: this allocator accepts empty layouts too, and takes a granule for them.
    unsafe { HEAP.alloc_zeroed(layout) }
}

/// Whether an address can be that of a block.
#[inline(always)]
pub(crate) fn contains(block: NonNull<u8>) -> bool {
    HEAP.contains(block.as_ptr())
}

/// The bytes that a block may use; `None` if it is not a block.
pub(crate) fn size(block: NonNull<u8>) -> Option<usize> {
    HEAP.usable_size(block)
}

/// Whether a block can have been allocated with `size` bytes.
pub(crate) fn may_have(block: NonNull<u8>, size: usize) -> bool {
    HEAP.usable_size(block) == size.max(1).checked_next_multiple_of(16)
}

/// Notes that an operator `new` allocated the block, which only hardened blocks remember.
#[inline(always)]
pub(crate) fn mark(_block: NonNull<u8>, _kind: u8) {}

/// Ends the process if the other operator `new` allocated the block, which only hardened blocks remember.
#[inline(always)]
pub(crate) fn check_mark(_block: NonNull<u8>, _kind: u8) {}

/// Frees a block. Anything else ends the process.
///
/// # Safety
/// Nothing uses the block any more.
#[inline(always)]
pub(crate) unsafe fn free(block: NonNull<u8>) {
    // SAFETY: guaranteed by the caller.
    unsafe { HEAP.sfree(block) }
}

/// Frees a block that was allocated with this layout. Anything else ends the process.
///
/// # Safety
/// Nothing uses the block any more.
#[inline(always)]
pub(crate) unsafe fn free_sized(block: NonNull<u8>, layout: Layout) {
    // SAFETY: guaranteed by the caller.
    unsafe { HEAP.dealloc(block.as_ptr(), layout) }
}

/// Resizes a block; `None`, and nothing has changed, if nothing fits. Anything else than a block ends the process.
///
/// # Safety
/// Nothing uses the old block any more if it has moved, and the new size is one of a layout.
#[inline(always)]
pub(crate) unsafe fn resize(block: NonNull<u8>, new_size: usize) -> Option<NonNull<u8>> {
    // SAFETY: guaranteed by the caller.
    unsafe { HEAP.srealloc(block, new_size) }
}
