//! The start of a search for each small size: a chunk below which no free segment of that size or more begins.
//!
//! ```text
//! chunk
//!  none                    . . . . . .
//!   129            . . . . .
//!     2      . . .
//!     0  . .
//!  size 1  2 3 4 5 6 7 8 ...  62 63
//! ```
//!
//! Hints ascend with the size. So a free segment that appears lowers the hint of its size and those of smaller ones,
//! down to the first that is low enough; what a search has shown raises the hints of larger sizes, up to the first that
//! is high enough.

#![expect(
    clippy::indexing_slicing,
    reason = "indexes are taken modulo the length, so none can be out of bounds"
)]

use super::group::{self, GREATEST_HINT, LEAST_HINT};
use crate::region::CHUNK;
use static_assertions::const_assert;

/// The hint of a size of which nothing is free below top.
pub(super) const NONE: usize = (GREATEST_HINT - LEAST_HINT) as usize;
/// Hints that are lowered or raised together.
const GROUP: usize = group::HINTS;
/// The largest size in granules that has a hint: the largest that is less than a chunk.
pub(super) const LARGEST: usize = SIZES - 1;
const SIZES: usize = CHUNK;

const_assert!(crate::region::MAX_REGION / crate::region::GRANULE / crate::region::CHUNK < NONE);
const_assert!(SIZES.is_multiple_of(GROUP));

/// The hints of all sizes up to [`LARGEST`], in ascending order.
#[derive(Debug)]
pub(super) struct Hints {
    /// A chunk for each size, as [`hint`] says. A group below those that is never too high, and one above that is never
    /// too low, so that groups may begin and end anywhere.
    chunks: [i32; GROUP + SIZES + GROUP],
}

/// The hint that stands for a chunk.
#[inline(always)]
const fn hint(chunk: usize) -> i32 {
    LEAST_HINT.wrapping_add(chunk as i32)
}

impl Hints {
    /// Nothing is free.
    pub(super) const EMPTY: Self = {
        let mut chunks = [GREATEST_HINT; GROUP + SIZES + GROUP];
        let mut below = 0;
        while below < GROUP {
            chunks[below] = LEAST_HINT;
            below += 1;
        }
        Self { chunks }
    };

    /// The chunk where a search for `n` granules begins, at most [`LARGEST`]; nothing fits if that is [`NONE`].
    #[inline(always)]
    pub(super) fn get(&self, n: usize) -> usize {
        (self.chunks[GROUP + n % SIZES] as usize).wrapping_sub(LEAST_HINT as usize)
    }

    /// A free segment of `n` granules begins in the chunk now.
    #[inline(always)]
    pub(super) fn lower(&mut self, n: usize, chunk: usize) {
        let (n, chunk) = (n.min(LARGEST), hint(chunk));
        if self.chunks[GROUP + n] > chunk {
            self.lower_up_to(n, chunk);
        }
    }

    #[inline(always)]
    fn lower_up_to(&mut self, n: usize, chunk: i32) {
        let mut lower = &mut self.chunks[..GROUP + n + 1];
        while let Some((rest, group)) = lower.split_last_chunk_mut::<GROUP>() {
            let lowest = group[0];
            group::lower(group, chunk);
            if lowest <= chunk {
                return;
            }
            lower = rest;
        }
    }

    /// A search has shown that nothing of `n` granules or more begins below the chunk; nowhere, if that is [`NONE`].
    #[inline(always)]
    pub(super) fn raise(&mut self, n: usize, chunk: usize) {
        let chunk = hint(chunk);
        let mut higher = &mut self.chunks[GROUP + n.min(SIZES)..];
        while let Some((group, rest)) = higher.split_first_chunk_mut::<GROUP>() {
            let highest = group[GROUP - 1];
            group::raise(group, chunk);
            if highest >= chunk {
                return;
            }
            higher = rest;
        }
    }

    /// No free segment begins in these chunks: hints that say one of them say the end instead.
    pub(super) fn skip(&mut self, chunks: core::ops::Range<usize>) {
        let inside = hint(chunks.start)..hint(chunks.end);
        for hint in self.chunks.iter_mut().skip(GROUP).filter(|hint| inside.contains(hint)) {
            *hint = inside.end;
        }
    }

    /// Whether hints ascend with the size.
    pub(super) fn ascend(&self) -> bool {
        self.chunks.is_sorted()
    }

    /// Breaks a hint, for tests of the checks.
    #[cfg(test)]
    pub(super) fn set(&mut self, n: usize, chunk: usize) {
        self.chunks[GROUP + n % SIZES] = hint(chunk);
    }
}
