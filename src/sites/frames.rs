//! All call frames, each with a number: an address, and the frame of its caller. Stacks that begin alike share frames.
//!
//! Frames are found by an index of open addressing, which is at most half full.

use crate::system::words::Words;

/// Frames at most: 16 bytes each, and up to 32 in the index.
const MOST: usize = 1 << 20;
/// Entries of the index at first: one page.
const FIRST_SLOTS: usize = 512;
/// Words of a frame: its address, and the number of its caller.
const WORDS: usize = 2;

pub(crate) struct Frames {
    /// The frame with number `n`, counted from 1, at word `WORDS * n`.
    words: Words,
    /// Numbers of frames, 0 in free entries. Its size is a power of two.
    index: Words,
    len: usize,
}

impl Frames {
    pub(crate) const EMPTY: Self = Self { words: Words::NONE, index: Words::NONE, len: 0 };

    /// Number of frames, and the largest number of a frame.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Caller and address of a frame; zeros if there is none of this number.
    pub(crate) fn get(&self, number: usize) -> (u32, u64) {
        if number > self.len {
            return (0, 0);
        }
        let at = number.wrapping_mul(WORDS);
        (self.words.get(at.wrapping_add(1)) as u32, self.words.get(at))
    }

    /// The number of a frame, which is new if it is larger than [`len`](Self::len) was. `None` if there is no memory.
    pub(crate) fn number(&mut self, caller: u32, address: u64) -> Option<u32> {
        if self.len.wrapping_mul(2) >= self.index.count() {
            self.grow()?;
        }
        let slot = self.slot(caller, address);
        if let found @ 1.. = self.index.get(slot) {
            return Some(found as u32);
        }
        let number = self.len.wrapping_add(1);
        if number >= MOST {
            return None;
        }
        let at = number.wrapping_mul(WORDS);
        self.words.set(at, address);
        self.words.set(at.wrapping_add(1), caller.into());
        self.index.set(slot, number as u64);
        self.len = number;
        Some(number as u32)
    }

    /// The entry of the index that holds the frame, or is to hold it. One is free, since half of them are.
    fn slot(&self, caller: u32, address: u64) -> usize {
        let mask = self.index.count().wrapping_sub(1);
        let mut slot = hash(address ^ u64::from(caller) << 40) & mask;
        loop {
            match self.index.get(slot) {
                0 => return slot,
                number if self.get(number as usize) == (caller, address) => return slot,
                _ => slot = slot.wrapping_add(1) & mask,
            }
        }
    }

    /// Doubles the index.
    fn grow(&mut self) -> Option<()> {
        if self.words.count() == 0 {
            self.words = Words::new(MOST.wrapping_mul(WORDS)).ok()?;
        }
        let slots = self.index.count().wrapping_mul(2).max(FIRST_SLOTS).next_power_of_two();
        self.index = Words::new(slots).ok()?;
        for number in 1..=self.len {
            let (caller, address) = self.get(number);
            let slot = self.slot(caller, address);
            self.index.set(slot, number as u64);
        }
        Some(())
    }
}

/// Spreads keys that differ in few bits.
pub(crate) fn hash(key: u64) -> usize {
    let mixed = (key ^ (key >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (mixed ^ (mixed >> 32)) as usize
}

#[cfg(test)]
#[path = "../../tests/unit/sites/frames.rs"]
mod tests;
