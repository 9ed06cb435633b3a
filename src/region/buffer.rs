//! Memory of its own for what must not come from the heap.

use super::{map, unmap, whole_pages};
use crate::errno;
use core::ptr::{self, NonNull};

/// A list of fixed capacity in memory of its own, all of it faulted in when it is made: what a snapshot is written
/// to while the heap's lock is held.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    start: NonNull<T>,
    len: usize,
    capacity: usize,
}

// SAFETY: a buffer owns its memory alone.
unsafe impl<T: Send> Send for Buffer<T> {}
// SAFETY: shared access only reads.
unsafe impl<T: Sync> Sync for Buffer<T> {}

impl<T: Copy> Buffer<T> {
    /// No room, and no memory.
    pub(crate) const EMPTY: Self = Self { start: NonNull::dangling(), len: 0, capacity: 0 };

    /// Room for at least `capacity` entries, or the system's `errno`.
    pub(crate) fn populated(capacity: usize) -> Result<Self, i32> {
        let bytes = capacity.max(1).checked_mul(size_of::<T>()).ok_or(libc::ENOMEM)?;
        let bytes = whole_pages(bytes);
        let start = errno::unchanged(|| {
            map(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_POPULATE)
        })?;
        // SAFETY: a successful mapping is not null.
        let start = unsafe { NonNull::new_unchecked(start) };
        Ok(Self { start: start.cast(), len: 0, capacity: bytes / size_of::<T>().max(1) })
    }

    /// Appends an entry; false when the buffer is full.
    pub(crate) fn push(&mut self, entry: T) -> bool {
        if self.len >= self.capacity {
            return false;
        }
        // SAFETY: len is less than the capacity, so the place lies inside the mapping.
        let place = unsafe { self.start.add(self.len) };
        // SAFETY: the place is writable, and mappings are page-aligned.
        unsafe { place.write(entry) };
        self.len = self.len.wrapping_add(1);
        true
    }

    /// Forgets all entries.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    /// Entries that fit.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The entries.
    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: the first len entries have been written, and live as long as the buffer.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T> Drop for Buffer<T> {
    fn drop(&mut self) {
        let bytes = whole_pages(self.capacity.wrapping_mul(size_of::<T>()));
        // SAFETY: the buffer owns the mapping, and borrows of it have ended.
        errno::unchanged(|| unsafe { unmap(self.start.as_ptr().cast(), bytes) });
    }
}
