//! A thread-local word, 0 at first, that exists as soon as the thread does (initial-exec storage).
//!
//! Without `std`, stable Rust has no thread-locals, so the word is defined and accessed in assembly. Other targets use
//! the value of the pthread key: slower, and a thread that allocates after its last destructor gets a new number.

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
pub(super) use assembly::{get, set};
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
pub(super) use key::{get, set};

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod assembly {
    use core::arch::asm;

    /// The word's symbol. Two versions of the crate in one program have two words.
    macro_rules! name {
        () => {
            concat!("smalloc_home_", env!("CARGO_PKG_VERSION_MAJOR"), "_", env!("CARGO_PKG_VERSION_MINOR"))
        };
    }

    core::arch::global_asm!(
        concat!(".section .tbss.", name!(), ",\"awT\",@nobits"),
        concat!(".globl ", name!()),
        concat!(".hidden ", name!()),
        concat!(".type ", name!(), ",@object"),
        concat!(".size ", name!(), ",8"),
        ".p2align 3",
        concat!(name!(), ":"),
        ".zero 8",
        ".text"
    );

    #[inline(always)]
    #[cfg(target_arch = "x86_64")]
    pub(in crate::threads::home) fn get() -> *const () {
        let word: *const ();
        // SAFETY: reads a word of the thread's own storage.
        unsafe {
            asm!(
                concat!("mov {0}, qword ptr [rip + ", name!(), "@GOTTPOFF]"),
                "mov {0}, qword ptr fs:[{0}]",
                out(reg) word, options(pure, readonly, nostack, preserves_flags)
            );
        }
        word
    }

    #[cfg(target_arch = "x86_64")]
    pub(in crate::threads::home) fn set(word: *const ()) {
        // SAFETY: writes a word of the thread's own storage, to which nothing refers.
        unsafe {
            asm!(
                concat!("mov {0}, qword ptr [rip + ", name!(), "@GOTTPOFF]"),
                "mov qword ptr fs:[{0}], {1}",
                out(reg) _, in(reg) word, options(nostack, preserves_flags)
            );
        }
    }

    #[inline(always)]
    #[cfg(target_arch = "aarch64")]
    pub(in crate::threads::home) fn get() -> *const () {
        let word: *const ();
        // SAFETY: reads a word of the thread's own storage.
        unsafe {
            asm!(
                concat!("adrp {0}, :gottprel:", name!()),
                concat!("ldr {0}, [{0}, :gottprel_lo12:", name!(), "]"),
                "mrs {1}, tpidr_el0",
                "ldr {0}, [{1}, {0}]",
                out(reg) word, out(reg) _, options(pure, readonly, nostack, preserves_flags)
            );
        }
        word
    }

    #[cfg(target_arch = "aarch64")]
    pub(in crate::threads::home) fn set(word: *const ()) {
        // SAFETY: writes a word of the thread's own storage, to which nothing refers.
        unsafe {
            asm!(
                concat!("adrp {0}, :gottprel:", name!()),
                concat!("ldr {0}, [{0}, :gottprel_lo12:", name!(), "]"),
                "mrs {1}, tpidr_el0",
                "str {2}, [{1}, {0}]",
                out(reg) _, out(reg) _, in(reg) word, options(nostack, preserves_flags)
            );
        }
    }
}

#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
mod key {
    use crate::threads::home::{DELETED, KEY};
    use core::ptr;
    use core::sync::atomic::Ordering;

    pub(in crate::threads::home) fn get() -> *const () {
        match KEY.load(Ordering::Relaxed) {
            0 => ptr::null(),
            // Threads that are still there when the process exits all have number 0.
            DELETED => ptr::without_provenance(1),
            // SAFETY: the key is deleted only when no thread uses this library any more, or the process exits.
            key => unsafe { libc::pthread_getspecific(key.wrapping_sub(1)) }.cast_const().cast(),
        }
    }

    /// Before the key exists nothing is stored; the caller then stores the number as the key's value.
    pub(in crate::threads::home) fn set(word: *const ()) {
        match KEY.load(Ordering::Relaxed) {
            0 | DELETED => {}
            // SAFETY: the key is deleted only when no thread uses this library any more, or the process exits.
            key => unsafe { drop(libc::pthread_setspecific(key.wrapping_sub(1), word.cast())) },
        }
    }
}
