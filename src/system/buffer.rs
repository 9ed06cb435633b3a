//! A fixed-capacity list in memory of its own, for data that must not come from the heap.

use super::errno;
use super::mapping::Mapping;
use core::marker::PhantomData;

/// A list faulted in when it is created, so that filling it under the heap's lock takes no page faults.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    memory: Mapping,
    len: usize,
    entries: PhantomData<T>,
}

impl<T: Copy> Buffer<T> {
    pub(crate) const EMPTY: Self = Self { memory: Mapping::NONE, len: 0, entries: PhantomData };

    /// A buffer for at least `capacity` entries. Fails with the system's `errno`.
    pub(crate) fn populated(capacity: usize) -> Result<Self, i32> {
        let bytes = capacity.max(1).checked_mul(size_of::<T>()).ok_or(libc::ENOMEM)?;
        let memory = errno::unchanged(|| Mapping::anonymous(bytes, libc::MAP_POPULATE))?;
        Ok(Self { memory, ..Self::EMPTY })
    }

    /// Appends an entry; false if the buffer is full.
    pub(crate) fn push(&mut self, entry: T) -> bool {
        if self.len >= self.capacity() {
            return false;
        }
        // SAFETY: `len` is below the capacity.
        let place = unsafe { self.memory.entry::<T>(self.len) };
        // SAFETY: the mapping is writable, and page alignment suits `T`.
        unsafe { place.write(entry) };
        self.len = self.len.wrapping_add(1);
        true
    }

    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    pub(crate) fn capacity(&self) -> usize {
        self.memory.bytes() / size_of::<T>().max(1)
    }

    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: index 0 is at most the mapping's length.
        let first = unsafe { self.memory.entry::<T>(0) };
        // SAFETY: the first `len` entries have been written, and the mapping lives as long as the borrow of `self`.
        unsafe { core::slice::from_raw_parts(first.as_ptr(), self.len) }
    }
}
