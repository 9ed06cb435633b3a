//! Words in memory of their own, for tables that must not come from the heap.

use super::errno;
use super::mapping::Mapping;

/// Numbered words that are 0 until they are set. Only those that were set take memory.
#[derive(Debug)]
pub(crate) struct Words {
    memory: Mapping,
}

impl Words {
    pub(crate) const NONE: Self = Self { memory: Mapping::NONE };

    /// At least `count` words. Fails with the system's `errno`.
    pub(crate) fn new(count: usize) -> Result<Self, i32> {
        let bytes = count.checked_mul(size_of::<u64>()).ok_or(libc::ENOMEM)?;
        let memory = errno::unchanged(|| Mapping::anonymous(bytes, libc::MAP_NORESERVE))?;
        Ok(Self { memory })
    }

    pub(crate) fn count(&self) -> usize {
        self.memory.bytes() / size_of::<u64>()
    }

    /// A word; 0 for a number that is too large.
    pub(crate) fn get(&self, index: usize) -> u64 {
        if index >= self.count() {
            return 0;
        }
        // SAFETY: the index is below the number of words.
        let place = unsafe { self.memory.entry::<u64>(index) };
        // SAFETY: the mapping is readable and page-aligned, and all its bytes are initialised.
        unsafe { place.read() }
    }

    /// Sets a word. A number that is too large changes nothing.
    pub(crate) fn set(&mut self, index: usize, word: u64) {
        if index < self.count() {
            // SAFETY: the index is below the number of words.
            let place = unsafe { self.memory.entry::<u64>(index) };
            // SAFETY: the mapping is writable and page-aligned, and borrowed mutably.
            unsafe { place.write(word) };
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/system/words.rs"]
mod tests;
