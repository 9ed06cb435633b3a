//! The thread-local pointer to the thread's cache. It exists as soon as the thread does (initial-exec storage), and
//! points to an empty cache at first, so it is never null.

use super::cache::Cache;

/// The cache of a thread that has none yet.
pub(super) static EMPTY: Cache = Cache::none();
/// The cache of a thread that shall have none: it is setting one up, or it ends.
pub(super) static REFUSED: Cache = Cache::none();

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
pub(super) use assembly::{get, set};
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
pub(super) use none::{get, set};

#[cfg(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)))]
mod assembly {
    use super::{Cache, EMPTY};
    use core::arch::asm;
    use core::ptr;

    /// The word's symbol. Two versions of the crate in one program have two words.
    macro_rules! name {
        () => {
            concat!("smalloc_cache_", env!("CARGO_PKG_VERSION_MAJOR"), "_", env!("CARGO_PKG_VERSION_MINOR"))
        };
    }

    core::arch::global_asm!(
        concat!(".section .tdata.", name!(), ",\"awT\",@progbits"),
        concat!(".globl ", name!()),
        concat!(".hidden ", name!()),
        concat!(".type ", name!(), ",@object"),
        concat!(".size ", name!(), ",8"),
        ".p2align 3",
        concat!(name!(), ":"),
        ".quad {empty}",
        ".text",
        empty = sym EMPTY,
    );

    #[inline(always)]
    pub(in crate::threads::caches) fn get() -> &'static Cache {
        let cache: *const Cache;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: reads a word of the thread's own storage.
        unsafe {
            asm!(
                concat!("mov {0}, qword ptr [rip + ", name!(), "@GOTTPOFF]"),
                "mov {0}, qword ptr fs:[{0}]",
                out(reg) cache, options(readonly, nostack, preserves_flags)
            );
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: reads a word of the thread's own storage.
        unsafe {
            asm!(
                concat!("adrp {0}, :gottprel:", name!()),
                concat!("ldr {0}, [{0}, :gottprel_lo12:", name!(), "]"),
                "mrs {1}, tpidr_el0",
                "ldr {0}, [{1}, {0}]",
                out(reg) cache, out(reg) _, options(readonly, nostack, preserves_flags)
            );
        }
        // SAFETY: the word always points to a cache, and caches are never unmapped.
        unsafe { &*cache }
    }

    pub(in crate::threads::caches) fn set(cache: &'static Cache) {
        let cache = ptr::from_ref(cache);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: writes a word of the thread's own storage, to which nothing refers.
        unsafe {
            asm!(
                concat!("mov {0}, qword ptr [rip + ", name!(), "@GOTTPOFF]"),
                "mov qword ptr fs:[{0}], {1}",
                out(reg) _, in(reg) cache, options(nostack, preserves_flags)
            );
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: writes a word of the thread's own storage, to which nothing refers.
        unsafe {
            asm!(
                concat!("adrp {0}, :gottprel:", name!()),
                concat!("ldr {0}, [{0}, :gottprel_lo12:", name!(), "]"),
                "mrs {1}, tpidr_el0",
                "str {2}, [{1}, {0}]",
                out(reg) _, out(reg) _, in(reg) cache, options(nostack, preserves_flags)
            );
        }
    }
}

/// Without such a word, no thread has a cache.
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
mod none {
    use super::{Cache, REFUSED};

    #[inline(always)]
    pub(in crate::threads::caches) fn get() -> &'static Cache {
        &REFUSED
    }

    pub(in crate::threads::caches) fn set(_cache: &'static Cache) {}
}
