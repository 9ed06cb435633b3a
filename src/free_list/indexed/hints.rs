//! Where to begin a search: per class of sizes, a chunk below which no free segment of that class or above starts.
//!
//! ```text
//! chunk
//!  none                    . . . . . .
//!   129            . . . . .
//!     2      . . .
//!     0  . .
//!  class 3 4 5 6 7 8 ...   12 13 ...
//! ```
//!
//! Hints ascend with the class. So what appears lowers the hint of its class and those of the classes below, down to the
//! first that is low enough; what a search has proven raises the hints above, up to the first that is high enough.
//!
//! Of large sizes a class has many, and a search for one of them may look at all segments that are slightly too small.
//! What the last such search has proven for its size is remembered: the [`Proof`].

#![expect(
    clippy::indexing_slicing,
    reason = "indexes are taken modulo the length, so none can be out of bounds"
)]

use super::group::{self, GREATEST_HINT, LEAST_HINT};
use super::size_code::{CLASSES, class, code};
use static_assertions::const_assert;

/// The hint of a class of which nothing is free below top.
pub(super) const NONE: usize = (GREATEST_HINT - LEAST_HINT) as usize;
/// Hints that are lowered or raised together.
const GROUP: usize = group::HINTS;

const_assert!(crate::region::MAX_REGION / crate::region::GRANULE / crate::region::CHUNK < NONE);

/// No free segment of `n` granules or more starts below the chunk; none at all, if that is [`NONE`]. No bound below it exceeds
/// the code of `n`: the search has put them right. That must hold, for a later search begins at the chunk, never looks at
/// them, and yet raises hints past them.
#[derive(Debug)]
struct Proof {
    n: usize,
    chunk: usize,
}

/// The hints of all classes, in ascending order.
#[derive(Debug)]
pub(super) struct Hints {
    /// A chunk for each class, as [`hint`] says. A group below those that is never too high, and one above that is never too
    /// low, so that groups may begin and end anywhere.
    chunks: [i32; GROUP + CLASSES + GROUP],
    proof: Proof,
}

/// How a chunk is kept as a hint.
#[inline(always)]
const fn hint(chunk: usize) -> i32 {
    LEAST_HINT.wrapping_add(chunk as i32)
}

impl Hints {
    /// No class has anything free.
    pub(super) const EMPTY: Self = {
        let mut chunks = [GREATEST_HINT; GROUP + CLASSES + GROUP];
        let mut below = 0;
        while below < GROUP {
            chunks[below] = LEAST_HINT;
            below += 1;
        }
        Self { chunks, proof: Proof { n: usize::MAX, chunk: 0 } }
    };

    /// The hint of a class.
    #[inline(always)]
    pub(super) fn get(&self, class: usize) -> usize {
        (self.chunks[GROUP + class % CLASSES] as usize).wrapping_sub(LEAST_HINT as usize)
    }

    /// The chunk at which a search for `n` granules begins; nothing fits if that is [`NONE`].
    #[inline(always)]
    pub(super) fn begin(&self, n: usize, code: u8) -> usize {
        let hint = self.get(class(code));
        if n >= self.proof.n { hint.max(self.proof.chunk) } else { hint }
    }

    /// Whether that `n` granules are free in the chunk would refute the proof.
    #[inline(always)]
    pub(super) fn refuted(&self, n: usize, chunk: usize) -> bool {
        n >= self.proof.n && chunk < self.proof.chunk
    }

    /// A free segment of `n` granules starts in the chunk now: what is proven holds below that.
    #[inline(always)]
    pub(super) fn refute(&mut self, n: usize, chunk: usize) {
        if self.refuted(n, chunk) {
            self.proof.chunk = chunk;
        }
    }

    /// A free segment of the class starts in the chunk now.
    #[inline(always)]
    pub(super) fn appeared(&mut self, class: usize, chunk: usize) {
        let chunk = hint(chunk);
        let end = GROUP + class % CLASSES + 1;
        for group in self.chunks[..end].as_rchunks_mut::<GROUP>().1.iter_mut().rev() {
            let lowest = group[0];
            group::lower(group, chunk);
            if lowest <= chunk {
                return;
            }
        }
    }

    /// A search has shown that nothing of the class or above starts below the chunk; nowhere, if that is [`NONE`].
    #[inline(always)]
    pub(super) fn raise(&mut self, class: usize, chunk: usize) {
        let chunk = hint(chunk);
        let start = GROUP + class.min(CLASSES);
        for group in self.chunks[start..].as_chunks_mut::<GROUP>().0 {
            let highest = group[GROUP - 1];
            group::raise(group, chunk);
            if highest >= chunk {
                return;
            }
        }
    }

    /// After a search for `n` granules that ended at the chunk, and looked at segments in vain that the next one would look at
    /// again. The proof for a smaller size holds for this one too, and stays as long as it says more than the hint.
    #[cold]
    pub(super) fn prove(&mut self, n: usize, code: u8, chunk: usize) {
        if n <= self.proof.n || self.proof.chunk <= self.get(class(code)) {
            self.proof = Proof { n, chunk };
        }
    }

    /// No free segment starts in these chunks: hints that say one of them say the end instead.
    pub(super) fn skip(&mut self, chunks: core::ops::Range<usize>) {
        let inside = hint(chunks.start)..hint(chunks.end);
        for hint in self.chunks.iter_mut().skip(GROUP).filter(|hint| inside.contains(hint)) {
            *hint = inside.end;
        }
    }

    /// Whether this bound lies below the proof's chunk and above the code of its size, which no segment there can have.
    pub(super) fn outbids(&self, bound: u8, chunk: usize) -> bool {
        chunk < self.proof.chunk && bound > code(self.proof.n)
    }

    /// For tests of what is checked.
    #[cfg(test)]
    pub(super) fn set_proof(&mut self, n: usize, chunk: usize) {
        self.proof = Proof { n, chunk };
    }

    /// The same.
    #[cfg(test)]
    pub(super) fn set(&mut self, class: usize, chunk: usize) {
        self.chunks[GROUP + class % CLASSES] = hint(chunk);
    }

    /// Whether hints ascend with the class.
    pub(super) fn ascend(&self) -> bool {
        self.chunks.is_sorted()
    }
}
