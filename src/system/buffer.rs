//! A list in memory of its own, for what must not come from the heap.

use super::errno;
use super::mapping::Mapping;
use core::marker::PhantomData;

/// A list of fixed capacity, all of it faulted in when it is made: a snapshot is written to one while the heap's lock is
/// held.
#[derive(Debug)]
pub(crate) struct Buffer<T> {
    memory: Mapping,
    len: usize,
    entries: PhantomData<T>,
}

impl<T: Copy> Buffer<T> {
    /// No room, and no memory.
    pub(crate) const EMPTY: Self = Self { memory: Mapping::NONE, len: 0, entries: PhantomData };

    /// Room for at least `capacity` entries, or the system's `errno`.
    pub(crate) fn populated(capacity: usize) -> Result<Self, i32> {
        let bytes = capacity.max(1).checked_mul(size_of::<T>()).ok_or(libc::ENOMEM)?;
        let memory = errno::unchanged(|| Mapping::anonymous(bytes, libc::MAP_POPULATE))?;
        Ok(Self { memory, ..Self::EMPTY })
    }

    /// Appends an entry; false when the buffer is full.
    pub(crate) fn push(&mut self, entry: T) -> bool {
        if self.len >= self.capacity() {
            return false;
        }
        // SAFETY: len is less than the capacity.
        let place = unsafe { self.memory.entry::<T>(self.len) };
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
        self.memory.bytes() / size_of::<T>().max(1)
    }

    /// The entries.
    pub(crate) fn as_slice(&self) -> &[T] {
        // SAFETY: entry 0 lies in the mapping, or where an empty slice may begin.
        let first = unsafe { self.memory.entry::<T>(0) };
        // SAFETY: the first len entries have been written, and live as long as the buffer.
        unsafe { core::slice::from_raw_parts(first.as_ptr(), self.len) }
    }
}
