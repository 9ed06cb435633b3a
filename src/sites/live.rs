//! The blocks in use whose call stacks were taken, by their place: a table of open addressing, at most half full.

use super::counts::Amount;
use super::frames::hash;
use crate::system::words::Words;

/// Entries at most: 32 bytes each.
const MOST_SLOTS: usize = 1 << 21;
/// Entries at first: one page.
const FIRST_SLOTS: usize = 128;
/// Words of an entry: key, stack, and amount. The key is never 0.
const WORDS: usize = 4;

/// A block's stack, and the blocks and bytes that it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) stack: u32,
    pub(crate) amount: Amount,
}

pub(crate) struct Live {
    words: Words,
    len: usize,
}

impl Live {
    pub(crate) const EMPTY: Self = Self { words: Words::NONE, len: 0 };

    /// Adds a block that is not in the table. False if there is no memory for it.
    pub(crate) fn insert(&mut self, key: u64, sample: Sample) -> bool {
        if self.len.wrapping_mul(2) >= self.slots() && !self.grow() {
            return false;
        }
        self.set(self.slot(key), key, sample);
        self.len = self.len.wrapping_add(1);
        true
    }

    /// A block's sample; `None` if it is not in the table.
    pub(crate) fn get(&self, key: u64) -> Option<Sample> {
        self.find(key).map(|slot| self.sample(slot))
    }

    /// Takes a block out; `None` if it is not in the table.
    pub(crate) fn remove(&mut self, key: u64) -> Option<Sample> {
        let slot = self.find(key)?;
        let sample = self.sample(slot);
        self.len = self.len.wrapping_sub(1);
        self.close(slot);
        Some(sample)
    }

    fn find(&self, key: u64) -> Option<usize> {
        if self.len == 0 {
            return None;
        }
        Some(self.slot(key)).filter(|&slot| self.key(slot) == key)
    }

    /// Empties an entry, and moves those behind it that would no longer be found.
    fn close(&mut self, slot: usize) {
        let mask = self.slots().wrapping_sub(1);
        let (mut free, mut next) = (slot, slot);
        loop {
            next = next.wrapping_add(1) & mask;
            let key = self.key(next);
            if key == 0 {
                break;
            }
            let first = hash(key) & mask;
            // Whether the free entry lies on the way from the first entry for this key to where it is.
            if next.wrapping_sub(first) & mask >= next.wrapping_sub(free) & mask {
                self.set(free, key, self.sample(next));
                free = next;
            }
        }
        self.words.set(free.wrapping_mul(WORDS), 0);
    }

    fn slots(&self) -> usize {
        self.words.count() / WORDS
    }

    /// The entry that holds a key, or is to hold it. One is free, since half of them are.
    fn slot(&self, key: u64) -> usize {
        let mask = self.slots().wrapping_sub(1);
        let mut slot = hash(key) & mask;
        loop {
            match self.key(slot) {
                0 => return slot,
                found if found == key => return slot,
                _ => slot = slot.wrapping_add(1) & mask,
            }
        }
    }

    fn key(&self, slot: usize) -> u64 {
        self.words.get(slot.wrapping_mul(WORDS))
    }

    fn sample(&self, slot: usize) -> Sample {
        let word = |index| self.words.get(slot.wrapping_mul(WORDS).wrapping_add(index));
        Sample { stack: word(1) as u32, amount: Amount::from_words(word(2), word(3)) }
    }

    fn set(&mut self, slot: usize, key: u64, sample: Sample) {
        let [parts, bytes] = sample.amount.words();
        for (index, word) in [key, sample.stack.into(), parts, bytes].into_iter().enumerate() {
            self.words.set(slot.wrapping_mul(WORDS).wrapping_add(index), word);
        }
    }

    /// Doubles the table. False if it has its largest size, or there is no memory.
    fn grow(&mut self) -> bool {
        let before = self.slots();
        let slots = before.wrapping_mul(2).max(FIRST_SLOTS);
        if slots > MOST_SLOTS {
            return false;
        }
        let Ok(words) = Words::new(slots.next_power_of_two().wrapping_mul(WORDS)) else { return false };
        let old = core::mem::replace(self, Self { words, len: self.len });
        for slot in (0..before).filter(|&slot| old.key(slot) != 0) {
            let key = old.key(slot);
            self.set(self.slot(key), key, old.sample(slot));
        }
        true
    }
}

#[cfg(test)]
#[path = "../../tests/unit/sites/live.rs"]
mod tests;
