//! The memory of a region allocator: one private mapping of a fixed size.

use std::io;
use std::ptr::{self, NonNull};

/// Regions begin at a multiple of this, in bytes. The buddy system wastes the bytes below its first aligned block, so a
/// generous alignment treats every allocator alike.
const ALIGN: usize = 128 << 20;

/// A readable and writable mapping that is unmapped when it is dropped. The kernel provides its pages at the first
/// access, so an allocator is charged only for the memory that it uses.
#[derive(Debug)]
pub struct Region {
    mapping: NonNull<u8>,
    mapped: usize,
    base: NonNull<u8>,
    size: usize,
}

// SAFETY: the region is plain memory without thread affinity; only the allocator that owns it reads and writes it.
unsafe impl Send for Region {}
// SAFETY: as for `Send`; `Region` itself never touches the memory after it is mapped.
unsafe impl Sync for Region {}

impl Region {
    /// Maps `size` bytes.
    ///
    /// # Panics
    ///
    /// If the kernel refuses the mapping: no measurement can go on without it.
    pub fn map(size: usize) -> Self {
        let mapped = size + ALIGN;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice replaces nothing.
        let address =
            unsafe { libc::mmap(ptr::null_mut(), mapped, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert!(address != libc::MAP_FAILED, "mmap of {mapped} bytes: {}", io::Error::last_os_error());
        let mapping = NonNull::new(address.cast::<u8>()).expect("mmap never returns null here");
        let padding = mapping.as_ptr().align_offset(ALIGN);
        // SAFETY: `padding` is less than `ALIGN`, so `size` bytes follow it inside the mapping.
        let base = unsafe { mapping.add(padding) };
        Self { mapping, mapped, base, size }
    }

    /// The first byte of the region.
    pub fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The size of the region in bytes.
    pub fn size(&self) -> usize {
        self.size
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `map`, and its owner hands out no block any more.
        let status = unsafe { libc::munmap(self.mapping.as_ptr().cast(), self.mapped) };
        assert_eq!(status, 0, "munmap: {}", io::Error::last_os_error());
    }
}
