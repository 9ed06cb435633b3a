//! Where to begin a search: per class of sizes, a chunk below which no free segment of that class or above starts.
//!
//! Hints ascend with the class, so they are a staircase, and only the steps are kept: bit `k` of `steps` says that the
//! classes from the last step below `k` up to `k` share the hint `chunks[k]`. Classes above the last step have none:
//! no such segment is free below top.
//!
//! ```text
//! chunk
//!  none                    . . . . . .     steps   bit 4, 7, 12
//!   129            . . . . .               chunks  [4]: 0   [7]: 2   [12]: 129
//!     2      . . .
//!     0  . .
//!  class 3 4 5 6 7 8 ...   12 13 ...
//! ```
//!
//! What appears lowers the stairs in front of it, what a search has proven raises those behind it; both touch as many
//! steps as vanish, and at most two more.

#![expect(
    clippy::indexing_slicing,
    reason = "indexes are taken modulo the length, so none can be out of bounds"
)]

/// Sizes up to this one, in granules, have a class of their own, with the same number.
pub(super) const OWN_CLASS: usize = 47;
/// The hint of a class of which nothing is free below top.
pub(super) const NONE: usize = usize::MAX;
/// Classes, numbered from 1; 0 is unused.
const CLASSES: usize = 64;
/// The granules of the smallest segment of the last class.
const LARGEST_FIRST: usize = 8192;

/// The staircase.
#[derive(Debug)]
pub(super) struct Hints {
    steps: u64,
    chunks: [u32; CLASSES],
}

/// The class of every size code: the code up to [`OWN_CLASS`], then two classes to a doubling of the size. The last class
/// has all that is larger.
const CLASS_OF_CODE: [u8; 256] = {
    let mut classes = [0; 256];
    let mut code = 0;
    while code < 256 {
        classes[code] = if code <= OWN_CLASS {
            code as u8
        } else if code < 64 {
            OWN_CLASS as u8 + 1
        } else if code < 120 {
            // Four codes, a half of a doubling, to a class.
            OWN_CLASS as u8 + 2 + (code as u8 - 64) / 4
        } else {
            CLASSES as u8 - 1
        };
        code += 1;
    }
    classes
};

/// The class of a segment with that size code.
#[inline(always)]
pub(super) fn class(code: u8) -> usize {
    CLASS_OF_CODE[code as usize] as usize
}

/// The lowest class whose segments all have `n` granules; [`CLASSES`] if there is none.
pub(super) fn class_from(n: usize) -> usize {
    let first =
        n <= OWN_CLASS || (n <= LARGEST_FIRST && n.trailing_zeros() + n.leading_zeros() + 2 >= usize::BITS);
    let class = class(super::indexed::code(n));
    if first { class } else { class + 1 }
}

impl Hints {
    /// No class has anything free.
    pub(super) const EMPTY: Self = Self { steps: 0, chunks: [0; CLASSES] };

    #[inline(always)]
    fn chunk_at(&self, step: u32) -> usize {
        self.chunks[step as usize % CLASSES] as usize
    }

    /// The hint of a class.
    #[inline(always)]
    pub(super) fn get(&self, class: usize) -> usize {
        let steps = self.steps >> (class % CLASSES);
        if steps == 0 { NONE } else { self.chunk_at(class as u32 + steps.trailing_zeros()) }
    }

    /// A free segment of the class starts in the chunk now.
    #[inline(always)]
    pub(super) fn appeared(&mut self, class: usize, chunk: usize) {
        if self.get(class) > chunk {
            self.lower(class, chunk);
        }
    }

    /// Lowers the class to the chunk, and all below it that are above the chunk.
    #[inline(never)]
    fn lower(&mut self, class: usize, chunk: usize) {
        let step = 1_u64 << (class % CLASSES);
        let mut below = self.steps & (step | (step - 1));
        while below != 0 {
            let highest = 63 - below.leading_zeros();
            if self.chunk_at(highest) <= chunk {
                break;
            }
            below ^= 1 << highest;
            self.steps ^= 1 << highest;
        }
        self.steps |= step;
        self.chunks[class % CLASSES] = chunk as u32;
    }

    /// A search has shown that nothing of the class or above starts below the chunk; nowhere, if that is [`NONE`].
    pub(super) fn raise(&mut self, class: usize, chunk: usize) {
        if class >= CLASSES {
            return;
        }
        let mut above = self.steps >> class << class;
        let mut last = above.trailing_zeros();
        if above == 0 || self.chunk_at(last) >= chunk {
            return;
        }
        // The classes below keep their hint: the step that they share with this one ends in front of it.
        let kept = class - 1;
        if kept > 0 && self.steps >> kept & 1 == 0 {
            self.steps |= 1 << kept;
            self.chunks[kept % CLASSES] = self.chunks[last as usize % CLASSES];
        }
        // Of the steps that are lower than the chunk, the last one is as high as it now.
        loop {
            self.steps ^= above & above.wrapping_neg();
            above &= above.wrapping_sub(1);
            let next = above.trailing_zeros();
            if above == 0 || self.chunk_at(next) >= chunk {
                break;
            }
            last = next;
        }
        if chunk != NONE {
            self.steps |= 1 << last;
            self.chunks[last as usize % CLASSES] = chunk as u32;
        }
    }

    /// No free segment starts in these chunks: hints that say one of them say the end instead.
    pub(super) fn skip(&mut self, chunks: core::ops::Range<usize>) {
        for chunk in &mut self.chunks {
            if chunks.contains(&(*chunk as usize)) {
                *chunk = chunks.end as u32;
            }
        }
    }

    /// Whether hints ascend with the class.
    pub(super) fn ascend(&self) -> bool {
        (2..CLASSES).all(|class| self.get(class - 1) <= self.get(class))
    }
}
