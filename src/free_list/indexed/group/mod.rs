//! The 64 entries of an index node, sixteen at a time: which is the first that is high enough, and which is the
//! highest. And eight hints lowered or raised at once.
//!
//! One name over several implementations, chosen here: SSE2 is part of every x86-64 and NEON of every aarch64.

use crate::region::{NODE, Node};

/// The bits of a byte that are compared. The highest one is a mark.
pub(super) const VALUE: u8 = 0x7f;
/// Entries that are compared at once.
pub(super) const PART: usize = 16;
/// Hints that are lowered or raised as one.
pub(super) const HINTS: usize = 8;
/// The least hint. From here to the greatest they are the bits of positive floats, which order as these integers do.
pub(super) const LEAST_HINT: i32 = f32::MIN_POSITIVE.to_bits() as i32;
/// The greatest hint.
pub(super) const GREATEST_HINT: i32 = f32::MAX.to_bits() as i32;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(test, not(target_arch = "x86_64")))]
#[cfg_attr(all(target_arch = "aarch64", not(test)), expect(dead_code, reason = "NEON has the rest"))]
mod scalar;
#[cfg(target_arch = "x86_64")]
mod sse2;

#[cfg(target_arch = "aarch64")]
use neon::bytes_at_least;
#[cfg(target_arch = "aarch64")]
pub(super) use neon::highest;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
use scalar::bytes_at_least;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) use scalar::highest;
// Compilers know these as single instructions of NEON.
#[cfg(not(target_arch = "x86_64"))]
pub(super) use scalar::{highest_short, lower, raise};
#[cfg(not(target_arch = "x86_64"))]
use scalar::{shorts_at_least, words_at_least};
#[cfg(target_arch = "x86_64")]
use sse2::{bytes_at_least, shorts_at_least, words_at_least};
#[cfg(target_arch = "x86_64")]
pub(super) use sse2::{highest, highest_short, lower, raise};

/// The type of a node's 64 entries. None is negative.
pub(super) trait Entry: Copy {
    /// The entries that are `least` or more, one bit each.
    fn at_least(entries: &[Self; PART], least: Self) -> u32;
}

impl Entry for u8 {
    #[inline(always)]
    fn at_least(entries: &[Self; PART], least: Self) -> u32 {
        bytes_at_least(entries, least)
    }
}

impl Entry for u16 {
    #[inline(always)]
    fn at_least(entries: &[Self; PART], least: Self) -> u32 {
        shorts_at_least(entries, least)
    }
}

impl Entry for i32 {
    #[inline(always)]
    fn at_least(entries: &[Self; PART], least: Self) -> u32 {
        words_at_least(entries, least)
    }
}

/// The lowest place, at or above `from`, of an entry that is `least` or more; 64 if there is none.
#[inline(always)]
pub(super) fn first_from<T: Entry>(node: &Node<T>, from: usize, least: T) -> usize {
    let mut wanted = u32::MAX << (from % PART);
    // It is in the first part most of the time.
    for (part, entries) in node.0.as_chunks::<PART>().0.iter().enumerate().skip(from / PART) {
        let fits = T::at_least(entries, least) & wanted;
        if fits != 0 {
            return PART * part + fits.trailing_zeros() as usize;
        }
        wanted = u32::MAX;
    }
    NODE
}

/// The level whose first node has all entries, where level 0 has `count`.
pub(super) fn root_of(mut count: usize) -> usize {
    let mut root = 0;
    while count > NODE {
        count = count.div_ceil(NODE);
        root += 1;
    }
    root
}

#[cfg(test)]
#[path = "../../../../tests/unit/free_list/indexed/group.rs"]
mod tests;
