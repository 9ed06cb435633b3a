//! A block with a canary that holds its length, since `free` has no size; and zeros in every new block.
//!
//! ```text
//! | block: the requested bytes | canary: 33 to 48 bytes, the last of them its length |
//! ```
//!
//! The canary reaches two granules behind the block, or more: overflows often miss the first byte. A changed canary
//! ends the process when the block is freed, resized, or asked for its size. Its bytes tell which operator of C++
//! allocated the block: none, `new`, or `new[]`.
use crate::global::HEAP;
use crate::system::fatal;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::slice;

/// The first byte of a canary, plus the number of the operator.
const CANARY: u8 = 0xa5;
const OPERATORS: u8 = 2;
const SHORTEST: usize = 33;
const LONGEST: usize = 48;

/// Called when the process exits, or the library is unloaded: finds writes after a free to blocks that are still in
/// quarantine.
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: extern "C" fn() = {
    extern "C" fn look() {
        if let Err(found) = HEAP.check() {
            fatal(format_args!("found at exit: {found} of region {}", found.region));
        }
    }
    look
};

/// Allocates; null if nothing fits.
pub(crate) fn alloc(layout: Layout) -> *mut u8 {
    alloc_zeroed(layout)
}

/// Allocates zeros; null if nothing fits.
pub(crate) fn alloc_zeroed(layout: Layout) -> *mut u8 {
    let Ok(larger) = Layout::from_size_align(layout.size().wrapping_add(SHORTEST), layout.align()) else {
        return core::ptr::null_mut();
    };
    // SAFETY: the layout has at least one byte.
    let block = unsafe { HEAP.alloc_zeroed(larger) };
    if let Some(block) = NonNull::new(block) {
        write_canary(block, layout.size());
    }
    block
}

/// Whether an address can be that of a block.
pub(crate) fn contains(block: NonNull<u8>) -> bool {
    HEAP.contains(block.as_ptr())
}

/// The bytes that a block may use, which are the requested ones; `None` if it is not a block.
pub(crate) fn size(block: NonNull<u8>) -> Option<usize> {
    let bytes = HEAP.usable_size(block)?;
    // SAFETY: a payload in use has this many bytes.
    let bytes = unsafe { slice::from_raw_parts(block.as_ptr(), bytes) };
    let length = bytes.last().map_or(0, |&last| usize::from(last));
    let (content, canary) = bytes.split_at_checked(bytes.len().wrapping_sub(length)).unwrap_or_default();
    let (_, marks) = canary.split_last().unwrap_or((&0, &[]));
    let first = marks.first().map_or(0, |&mark| mark);
    let known = (CANARY..=CANARY + OPERATORS).contains(&first) && (SHORTEST..=LONGEST).contains(&length);
    if !known || marks.iter().any(|&mark| mark != first) {
        fatal(format_args!(
            "overflow: {block:p}: a byte behind the end of the block, of {} bytes or less, has changed",
            bytes.len().wrapping_sub(SHORTEST)
        ));
    }
    Some(content.len())
}

fn write_canary(block: NonNull<u8>, size: usize) {
    let canary = canary(block, size);
    let length = canary.len() as u8;
    canary.fill(CANARY);
    if let Some(last) = canary.last_mut() {
        *last = length;
    }
}

/// The bytes behind a block of `size` bytes.
fn canary<'a>(block: NonNull<u8>, size: usize) -> &'a mut [u8] {
    let length = HEAP.usable_size(block).unwrap_or(size).wrapping_sub(size);
    // SAFETY: the payload has more bytes than the block, up to its usable size.
    let start = unsafe { block.add(size) };
    // SAFETY: the payload has these bytes, and the canary does not belong to the program.
    unsafe { slice::from_raw_parts_mut(start.as_ptr(), length) }
}

/// Notes that an operator `new` allocated the block: 1 for `new`, 2 for `new[]`.
pub(crate) fn mark(block: NonNull<u8>, kind: u8) {
    let Some(size) = size(block) else { return };
    if let Some((_, marks)) = canary(block, size).split_last_mut() {
        marks.fill(CANARY.wrapping_add(kind));
    }
}

/// Ends the process if the other operator `new` allocated the block.
pub(crate) fn check_mark(block: NonNull<u8>, kind: u8) {
    let Some(size) = size(block) else { return };
    let found = canary(block, size).first().map_or(0, |&mark| mark.wrapping_sub(CANARY));
    if found != 0 && found != kind {
        let name = |kind| if kind == 1 { "" } else { "[]" };
        fatal(format_args!(
            "wrong operator: {block:p} was allocated by new{} and freed by delete{}",
            name(found),
            name(kind)
        ));
    }
}

/// Whether a block was allocated with `size` bytes.
pub(crate) fn may_have(block: NonNull<u8>, wanted: usize) -> bool {
    size(block) == Some(wanted)
}

/// Frees a block. Anything else ends the process.
///
/// # Safety
/// Nothing uses the block any more.
pub(crate) unsafe fn free(block: NonNull<u8>) {
    // A pointer that is no block is reported below.
    let _ = size(block);
    // SAFETY: guaranteed by the caller.
    unsafe { HEAP.sfree(block) }
}

/// Frees a block that was allocated with this layout. Anything else ends the process.
///
/// # Safety
/// Nothing uses the block any more.
pub(crate) unsafe fn free_sized(block: NonNull<u8>, layout: Layout) {
    let found = size(block);
    if found.is_some_and(|found| found != layout.size()) || !block.addr().get().is_multiple_of(layout.align())
    {
        fatal(format_args!(
            "wrong layout: {block:p} was allocated with {} bytes, the layout has {} bytes (align {})",
            found.unwrap_or(0),
            layout.size(),
            layout.align()
        ));
    }
    // SAFETY: guaranteed by the caller.
    unsafe { free(block) }
}

/// Resizes a block; `None`, and nothing has changed, if nothing fits. Anything else than a block ends the process.
///
/// # Safety
/// Nothing uses the old block any more if it has moved, and the new size is one of a layout.
pub(crate) unsafe fn resize(block: NonNull<u8>, new_size: usize) -> Option<NonNull<u8>> {
    // A pointer that is no block is reported below.
    let _ = size(block);
    // SAFETY: guaranteed by the caller.
    let moved = unsafe { HEAP.srealloc(block, new_size.checked_add(SHORTEST)?) };
    if let Some(moved) = moved {
        write_canary(moved, new_size);
    }
    moved
}
