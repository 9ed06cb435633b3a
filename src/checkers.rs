//! Tells AddressSanitizer (feature `asan`) and valgrind's memcheck (feature `valgrind`) which memory the program may
//! use. Without these features all functions are empty.
//!
//! Checkers know only `malloc`. Here they learn of payloads handed out, freed and resized in place, and all other
//! memory is poisoned. Then they report uses after free and accesses to memory never handed out, with the line at
//! fault; memcheck also reports leaks. If an address lies within some bytes of a block in use, memcheck places it
//! relative to that block, even if the address itself was freed.
//!
//! LeakSanitizer, a part of AddressSanitizer, learns of the heap's mappings: memory of `malloc` to which only payloads
//! in use refer is no leak.
//!
//! The few places where the heap itself touches free memory unpoison it for the access: [`unwatched`].

use core::ptr::NonNull;

/// Whether a checker may be present.
pub(crate) const ACTIVE: bool = cfg!(any(feature = "asan", feature = "valgrind"));

/// A heap has mapped this memory, in which pointers to memory of `malloc` may lie. LeakSanitizer looks at what is
/// accessible and not poisoned when it looks for leaks.
#[inline(always)]
pub(crate) fn mapped(memory: NonNull<[u8]>) {
    let _ = memory;
    #[cfg(feature = "asan")]
    asan::mapped(memory);
}

/// A heap is about to unmap memory that it told [`mapped`] of.
#[inline(always)]
pub(crate) fn unmapped(memory: NonNull<[u8]>) {
    let _ = memory;
    #[cfg(feature = "asan")]
    asan::unmapped(memory);
}

/// Poisons memory that the heap has committed and not handed out.
#[inline(always)]
pub(crate) fn opened(start: NonNull<u8>, bytes: usize) {
    poison(start, bytes);
}

/// Unpoisons memory that the heap returns to its owner.
#[inline(always)]
pub(crate) fn opened_for_owner(start: NonNull<u8>, bytes: usize) {
    let _ = (start, bytes);
    #[cfg(feature = "asan")]
    asan::unpoison(start, bytes);
    #[cfg(feature = "valgrind")]
    valgrind::unpoison(start, bytes);
}

/// These bytes of a payload in use are zero, or about to be cleared.
#[inline(always)]
pub(crate) fn zeroed(bytes: NonNull<[u8]>) {
    let _ = bytes;
    #[cfg(feature = "valgrind")]
    valgrind::unpoison(bytes.cast(), bytes.len());
}

/// A payload of `size` bytes is handed out. Unless they are `zeroed`, or about to be, memcheck treats them as
/// undefined.
#[inline(always)]
pub(crate) fn given(payload: NonNull<u8>, size: usize, zeroed: bool) {
    let _ = (payload, size, zeroed);
    #[cfg(feature = "asan")]
    asan::unpoison(payload, size);
    #[cfg(feature = "valgrind")]
    valgrind::given(payload, size, zeroed);
}

/// A payload of `size` bytes is freed. Called before another thread can get it.
#[inline(always)]
pub(crate) fn back(payload: NonNull<u8>, size: usize) {
    let _ = (payload, size);
    #[cfg(feature = "asan")]
    asan::poison(payload, size);
    #[cfg(feature = "valgrind")]
    valgrind::back(payload);
}

/// A payload was resized in place from `old` to `new` bytes. Called before another thread can get its tail.
#[inline(always)]
pub(crate) fn resized(payload: NonNull<u8>, old: usize, new: usize) {
    let _ = (payload, old, new);
    #[cfg(feature = "asan")]
    asan::resized(payload, old, new);
    #[cfg(feature = "valgrind")]
    valgrind::resized(payload, old, new);
}

/// Runs `access`, in which the heap touches poisoned memory.
#[inline(always)]
pub(crate) fn unwatched<R>(start: NonNull<u8>, bytes: usize, access: impl FnOnce() -> R) -> R {
    #[cfg(feature = "asan")]
    asan::unpoison(start, bytes);
    #[cfg(feature = "valgrind")]
    valgrind::unpoison(start, bytes);
    let result = access();
    poison(start, bytes);
    result
}

#[inline(always)]
fn poison(start: NonNull<u8>, bytes: usize) {
    let _ = (start, bytes);
    #[cfg(feature = "asan")]
    asan::poison(start, bytes);
    #[cfg(feature = "valgrind")]
    valgrind::poison(start, bytes);
}

/// AddressSanitizer's interface, which programs built with `-Zsanitizer=address` contain.
#[cfg(feature = "asan")]
mod asan {
    use core::ffi::c_void;
    use core::ptr::NonNull;

    unsafe extern "C" {
        fn __asan_poison_memory_region(start: *const c_void, bytes: usize);
        fn __asan_unpoison_memory_region(start: *const c_void, bytes: usize);
        fn __lsan_register_root_region(start: *const c_void, bytes: usize);
        fn __lsan_unregister_root_region(start: *const c_void, bytes: usize);
    }

    pub(super) fn mapped(memory: NonNull<[u8]>) {
        // SAFETY: LeakSanitizer reads only what is accessible, and until `unmapped` nothing else is mapped there.
        unsafe { __lsan_register_root_region(memory.as_ptr().cast(), memory.len()) };
    }

    pub(super) fn unmapped(memory: NonNull<[u8]>) {
        // SAFETY: this memory was registered by `mapped`, which the caller guarantees.
        unsafe { __lsan_unregister_root_region(memory.as_ptr().cast(), memory.len()) };
    }

    pub(super) fn unpoison(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the range is mapped memory of the heap, and only AddressSanitizer's shadow of it changes.
        unsafe { __asan_unpoison_memory_region(start.as_ptr().cast(), bytes) };
    }

    pub(super) fn poison(start: NonNull<u8>, bytes: usize) {
        // SAFETY: the range is mapped memory of the heap, and only AddressSanitizer's shadow of it changes.
        unsafe { __asan_poison_memory_region(start.as_ptr().cast(), bytes) };
    }

    pub(super) fn resized(payload: NonNull<u8>, old: usize, new: usize) {
        poison(payload, old);
        unpoison(payload, new);
    }
}

/// valgrind's client requests: a sequence of instructions without effect that valgrind recognises.
#[cfg(feature = "valgrind")]
mod valgrind {
    use core::arch::asm;
    use core::ptr::NonNull;

    #[cfg(not(target_arch = "x86_64"))]
    compile_error!("the feature `valgrind` is for x86-64: client requests are other instructions elsewhere");

    const MALLOCLIKE_BLOCK: usize = 0x1301;
    const FREELIKE_BLOCK: usize = 0x1302;
    const RESIZEINPLACE_BLOCK: usize = 0x130b;
    /// The first of memcheck's requests, whose codes begin with its initials.
    const MEMCHECK: usize = (b'M' as usize) << 24 | (b'C' as usize) << 16;
    const MAKE_MEM_NOACCESS: usize = MEMCHECK;
    const MAKE_MEM_DEFINED: usize = MEMCHECK + 2;

    fn request(code: usize, arguments: [usize; 4]) {
        let [a, b, c, d] = arguments;
        let words: [usize; 6] = [code, a, b, c, d, 0];
        // SAFETY: the four rotations add up to 128 bits, and the exchange is of a register with itself. Under valgrind
        // the words are read, and rdx receives the answer.
        unsafe {
            asm!(
                "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
                in("rax") words.as_ptr(), inout("rdx") 0_usize => _, options(nostack)
            );
        }
    }

    pub(super) fn given(payload: NonNull<u8>, size: usize, zeroed: bool) {
        // No red zones: the memory around a payload is poisoned already.
        request(MALLOCLIKE_BLOCK, [payload.addr().get(), size, 0, usize::from(zeroed)]);
    }

    pub(super) fn back(payload: NonNull<u8>) {
        request(FREELIKE_BLOCK, [payload.addr().get(), 0, 0, 0]);
    }

    pub(super) fn resized(payload: NonNull<u8>, old: usize, new: usize) {
        request(RESIZEINPLACE_BLOCK, [payload.addr().get(), old, new, 0]);
    }

    pub(super) fn unpoison(start: NonNull<u8>, bytes: usize) {
        request(MAKE_MEM_DEFINED, [start.addr().get(), bytes, 0, 0]);
    }

    pub(super) fn poison(start: NonNull<u8>, bytes: usize) {
        request(MAKE_MEM_NOACCESS, [start.addr().get(), bytes, 0, 0]);
    }
}
