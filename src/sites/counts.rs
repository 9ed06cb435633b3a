//! Bytes and blocks by call stack.

use crate::system::words::Words;

/// Stacks at most: 32 bytes each, of which only those that are used take memory.
const MOST: usize = 1 << 20;
/// Words of a stack.
const WORDS: usize = 4;
/// Parts of a block, the unit in which blocks are counted: a sample stands for a fractional number of them.
const PARTS: f64 = 256.0;

/// Blocks and bytes, each as the estimate that its samples stand for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    /// In parts of a block.
    parts: u64,
    pub(crate) bytes: u64,
}

impl Amount {
    pub(crate) fn new(bytes: usize, weight: f64) -> Self {
        Self { parts: (weight * PARTS) as u64, bytes: (bytes as f64 * weight) as u64 }
    }

    pub(crate) fn from_words(parts: u64, bytes: u64) -> Self {
        Self { parts, bytes }
    }

    pub(crate) fn words(self) -> [u64; 2] {
        [self.parts, self.bytes]
    }

    /// The nearest whole number.
    pub(crate) fn blocks(self) -> u64 {
        (self.parts as f64 / PARTS + 0.5) as u64
    }

    fn plus(self, other: Self) -> Self {
        Self { parts: self.parts.wrapping_add(other.parts), bytes: self.bytes.wrapping_add(other.bytes) }
    }

    fn minus(self, other: Self) -> Self {
        Self { parts: self.parts.wrapping_sub(other.parts), bytes: self.bytes.wrapping_sub(other.bytes) }
    }
}

/// In use now, and of all requests so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) live: Amount,
    pub(crate) all: Amount,
}

pub(crate) struct Counts(Words);

impl Counts {
    pub(crate) const EMPTY: Self = Self(Words::NONE);

    pub(crate) fn new() -> Result<Self, i32> {
        Words::new(MOST.wrapping_mul(WORDS)).map(Self)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.count() == 0
    }

    pub(crate) fn get(&self, stack: usize) -> Count {
        let at = stack.wrapping_mul(WORDS);
        let word = |index| self.0.get(at.wrapping_add(index));
        Count { live: Amount::from_words(word(0), word(1)), all: Amount::from_words(word(2), word(3)) }
    }

    pub(crate) fn placed(&mut self, stack: u32, amount: Amount) {
        let before = self.get(stack as usize);
        self.set(stack, Count { live: before.live.plus(amount), all: before.all.plus(amount) });
    }

    pub(crate) fn freed(&mut self, stack: u32, amount: Amount) {
        let before = self.get(stack as usize);
        self.set(stack, Count { live: before.live.minus(amount), ..before });
    }

    fn set(&mut self, stack: u32, count: Count) {
        let at = (stack as usize).wrapping_mul(WORDS);
        let words = count.live.words().into_iter().chain(count.all.words());
        words.enumerate().for_each(|(index, word)| self.0.set(at.wrapping_add(index), word));
    }
}
