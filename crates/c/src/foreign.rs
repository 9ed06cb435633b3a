//! Blocks of another `malloc`: that of the C library, which serves libraries that do not use this one, such as those
//! that were opened with `RTLD_DEEPBIND`.
//!
//! A pointer outside of all our heaps counts as a block of the C library if every word in front of it that can be
//! checked says so. Anything else is misuse.

use crate::system::{fatal, say, value};
use core::ffi::{CStr, c_void};
use core::mem;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicBool, Ordering};

/// Flags in the size word in front of a block of the C library.
const FLAGS: usize = 7;
const IS_MAPPED: usize = 2;
const IN_OTHER_ARENA: usize = 4;
/// The least bytes of a chunk, which is a block with the words in front of it.
const LEAST_CHUNK: usize = 32;
/// Alignment and largest size of the memory of an arena other than the first.
const ARENA: usize = 64 << 20;

/// The bytes that a block of the C library may use; `None` if it is not one.
pub(crate) fn size(block: NonNull<u8>) -> Option<usize> {
    let address = block.addr().get();
    if !address.is_multiple_of(16) {
        return None;
    }
    let [before, word] = words_at(address.checked_sub(16)?)?;
    let bytes = word & !FLAGS;
    if word & IS_MAPPED != 0 {
        let page = crate::system::page_size();
        let start = address.wrapping_sub(16).checked_sub(before)?;
        let whole =
            start.is_multiple_of(page) && before.wrapping_add(bytes).is_multiple_of(page) && bytes >= page;
        return whole.then_some(bytes.wrapping_sub(16));
    }
    if bytes < LEAST_CHUNK || !bytes.is_multiple_of(16) {
        return None;
    }
    let end = address.wrapping_sub(16).checked_add(bytes)?;
    let inside = if word & IN_OTHER_ARENA != 0 {
        // The memory of such an arena begins with the address of its arena.
        let start = address & !(ARENA - 1);
        end <= start.wrapping_add(ARENA) && words_at(start).is_some_and(|[arena, _]| arena != 0)
    } else {
        // SAFETY: the call changes nothing.
        end <= unsafe { libc::sbrk(0) }.addr()
    };
    inside.then_some(bytes.wrapping_sub(8))
}

/// Two words at an address that may not be mapped.
fn words_at(address: usize) -> Option<[usize; 2]> {
    let mut words = [0_usize; 2];
    let to = libc::iovec { iov_base: words.as_mut_ptr().cast(), iov_len: mem::size_of_val(&words) };
    let from =
        libc::iovec { iov_base: ptr::without_provenance_mut(address), iov_len: mem::size_of_val(&words) };
    // SAFETY: the call has no preconditions.
    let own = unsafe { libc::getpid() };
    // SAFETY: the words may be written; the kernel checks the other address.
    let read = unsafe { libc::process_vm_readv(own, &to, 1, &from, 1, 0) };
    (usize::try_from(read) == Ok(mem::size_of_val(&words))).then_some(words)
}

/// Frees a block of the C library, and reports the first one; false if it is not one. With `SMALLOC_STRICT=1`, ends the
/// process instead.
///
/// # Safety
/// Nothing uses the block any more.
pub(crate) unsafe fn free(block: NonNull<u8>) -> bool {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if size(block).is_none() {
        return false;
    }
    if value(c"SMALLOC_STRICT") == Some(b"1") {
        fatal(format_args!("foreign pointer: {block:p} is a block of the C library's own malloc"));
    }
    if !TOLD.swap(true, Ordering::Relaxed) {
        say(format_args!(
            "{block:p} is a block of the C library's own malloc, and was freed there (reported once; SMALLOC_STRICT=1 \
             ends the process instead)"
        ));
    }
    let Some(free) = function(c"__libc_free") else { return true };
    // SAFETY: the C library's function has this type.
    let free: unsafe extern "C" fn(*mut c_void) = unsafe { mem::transmute(free) };
    // SAFETY: the block belongs to the C library.
    unsafe { free(block.as_ptr().cast()) };
    true
}

fn function(name: &CStr) -> Option<NonNull<c_void>> {
    // SAFETY: the name is NUL-terminated.
    NonNull::new(unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) })
}
