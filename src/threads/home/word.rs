//! A word that every thread has from its beginning, 0 at first: the loader sets it aside with the thread's stack.
//!
//! The language has no name for such a word outside of the standard library, so it is made and used in assembly. On other
//! systems the value of the pthread key takes its place, which is slower, and is dealt anew for a thread that still
//! allocates after its last destructor.

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
pub(super) use assembly::{get, set};
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
pub(super) use key::{get, set};

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod assembly {
    use core::arch::asm;

    /// The word's name for the linker. Two versions of the crate in one program have two words.
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
    pub(in crate::threads::home) fn get() -> usize {
        let word: usize;
        // SAFETY: the word is the thread's own, and is only read.
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
    pub(in crate::threads::home) fn set(word: usize) {
        // SAFETY: the word is the thread's own, and nothing refers to it.
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
    pub(in crate::threads::home) fn get() -> usize {
        let word: usize;
        // SAFETY: the word is the thread's own, and is only read.
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
    pub(in crate::threads::home) fn set(word: usize) {
        // SAFETY: the word is the thread's own, and nothing refers to it.
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
    use crate::threads::home::KEY;
    use core::sync::atomic::Ordering;

    pub(in crate::threads::home) fn get() -> usize {
        match KEY.load(Ordering::Relaxed) {
            0 => 0,
            // SAFETY: the key exists as long as the process.
            key => unsafe { libc::pthread_getspecific(key.wrapping_sub(1)) }.addr(),
        }
    }

    /// The number is remembered with the destructor.
    pub(in crate::threads::home) fn set(_word: usize) {}
}
