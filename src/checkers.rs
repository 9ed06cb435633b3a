//! What memory checkers are told: AddressSanitizer with the feature `asan`, valgrind's memcheck with the feature
//! `valgrind`. Without these features nothing is told, and the calls are empty.
//!
//! Checkers know the blocks of `malloc`. Of this heap they are told when a payload is given out, comes back, or is
//! resized in place, and that nobody may touch the rest. Then they report, with the line that did it, a use after free
//! and an access to memory that was never given out; memcheck reports what is never freed, too. Of what lies within
//! some bytes of a block in use, memcheck says that it is before or after that block, even where it was freed.
//!
//! The heap itself touches free memory in few places. Those open it for the time of the access: [`unwatched`].

use core::ptr::NonNull;

/// Whether anybody is told.
pub(crate) const ACTIVE: bool = cfg!(any(feature = "asan", feature = "valgrind"));

/// The heap has opened memory, which nobody has been given yet.
#[inline(always)]
pub(crate) fn opened(start: NonNull<u8>, bytes: usize) {
    close(start, bytes);
}

/// Memory that was the heap's belongs to its owner again, who may touch all of it.
#[inline(always)]
pub(crate) fn opened_for_owner(start: NonNull<u8>, bytes: usize) {
    let _ = (start, bytes);
    #[cfg(feature = "asan")]
    asan::open(start, bytes);
    #[cfg(feature = "valgrind")]
    valgrind::open(start, bytes);
}

/// These bytes of a payload in use are zero, or about to be cleared.
#[inline(always)]
pub(crate) fn zeroed(bytes: NonNull<[u8]>) {
    let _ = bytes;
    #[cfg(feature = "valgrind")]
    valgrind::open(bytes.cast(), bytes.len());
}

/// A payload of `size` bytes is handed out. Unless all of them are `zeroed`, or about to be, memcheck takes its contents for
/// unknown.
#[inline(always)]
pub(crate) fn given(payload: NonNull<u8>, size: usize, zeroed: bool) {
    let _ = (payload, size, zeroed);
    #[cfg(feature = "asan")]
    asan::open(payload, size);
    #[cfg(feature = "valgrind")]
    valgrind::given(payload, size, zeroed);
}

/// A payload of `size` bytes comes back. Told while it is nobody else's yet.
#[inline(always)]
pub(crate) fn back(payload: NonNull<u8>, size: usize) {
    let _ = (payload, size);
    #[cfg(feature = "asan")]
    asan::close(payload, size);
    #[cfg(feature = "valgrind")]
    valgrind::back(payload);
}

/// A payload of `old` bytes has `new` bytes now, in the same place. Told before its tail is anybody else's.
#[inline(always)]
pub(crate) fn resized(payload: NonNull<u8>, old: usize, new: usize) {
    let _ = (payload, old, new);
    #[cfg(feature = "asan")]
    asan::resized(payload, old, new);
    #[cfg(feature = "valgrind")]
    valgrind::resized(payload, old, new);
}

/// Runs `access`, by which the heap touches memory that the program must not touch.
#[inline(always)]
pub(crate) fn unwatched<R>(start: NonNull<u8>, bytes: usize, access: impl FnOnce() -> R) -> R {
    #[cfg(feature = "asan")]
    asan::open(start, bytes);
    #[cfg(feature = "valgrind")]
    valgrind::open(start, bytes);
    let result = access();
    close(start, bytes);
    result
}

#[inline(always)]
fn close(start: NonNull<u8>, bytes: usize) {
    let _ = (start, bytes);
    #[cfg(feature = "asan")]
    asan::close(start, bytes);
    #[cfg(feature = "valgrind")]
    valgrind::close(start, bytes);
}

/// AddressSanitizer's own functions, which a program has that is built with `-Zsanitizer=address`.
#[cfg(feature = "asan")]
mod asan {
    use core::ffi::c_void;
    use core::ptr::NonNull;

    unsafe extern "C" {
        fn __asan_poison_memory_region(start: *const c_void, bytes: usize);
        fn __asan_unpoison_memory_region(start: *const c_void, bytes: usize);
    }

    pub(super) fn open(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the range is the heap's, which is mapped; only AddressSanitizer's notes on it change.
        unsafe { __asan_unpoison_memory_region(start.as_ptr().cast(), bytes) };
    }

    pub(super) fn close(start: NonNull<u8>, bytes: usize) {
        // SAFETY: as above.
        unsafe { __asan_poison_memory_region(start.as_ptr().cast(), bytes) };
    }

    pub(super) fn resized(payload: NonNull<u8>, old: usize, new: usize) {
        close(payload, old);
        open(payload, new);
    }
}

/// valgrind's client requests: instructions that do nothing, in an order that valgrind knows.
#[cfg(feature = "valgrind")]
mod valgrind {
    use core::arch::asm;
    use core::ptr::NonNull;

    #[cfg(not(target_arch = "x86_64"))]
    compile_error!("the feature `valgrind` is for x86-64: client requests are other instructions elsewhere");

    const MALLOCLIKE_BLOCK: usize = 0x1301;
    const FREELIKE_BLOCK: usize = 0x1302;
    const RESIZEINPLACE_BLOCK: usize = 0x130b;
    /// The first of memcheck's requests, which bear its initials.
    const MEMCHECK: usize = (b'M' as usize) << 24 | (b'C' as usize) << 16;
    const MAKE_MEM_NOACCESS: usize = MEMCHECK;
    const MAKE_MEM_DEFINED: usize = MEMCHECK + 2;

    fn request(code: usize, arguments: [usize; 4]) {
        let [a, b, c, d] = arguments;
        let words: [usize; 6] = [code, a, b, c, d, 0];
        // SAFETY: the four rotations add up to 128 bits and the exchange is of a register with itself. Under valgrind
        // the words are read, and rdx takes the answer.
        unsafe {
            asm!(
                "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
                in("rax") words.as_ptr(), inout("rdx") 0_usize => _, options(nostack)
            );
        }
    }

    pub(super) fn given(payload: NonNull<u8>, size: usize, zeroed: bool) {
        // No red zones: what lies around a payload is closed already.
        request(MALLOCLIKE_BLOCK, [payload.addr().get(), size, 0, usize::from(zeroed)]);
    }

    pub(super) fn back(payload: NonNull<u8>) {
        request(FREELIKE_BLOCK, [payload.addr().get(), 0, 0, 0]);
    }

    pub(super) fn resized(payload: NonNull<u8>, old: usize, new: usize) {
        request(RESIZEINPLACE_BLOCK, [payload.addr().get(), old, new, 0]);
    }

    pub(super) fn open(start: NonNull<u8>, bytes: usize) {
        request(MAKE_MEM_DEFINED, [start.addr().get(), bytes, 0, 0]);
    }

    pub(super) fn close(start: NonNull<u8>, bytes: usize) {
        request(MAKE_MEM_NOACCESS, [start.addr().get(), bytes, 0, 0]);
    }
}
