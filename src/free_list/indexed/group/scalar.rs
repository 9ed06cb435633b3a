//! One entry after the other: for machines without vectors, and the measure for the others.

use super::{HINTS, PART, VALUE};
use crate::region::Node;

/// The bytes that are `least` or more, one bit each.
pub(super) fn bytes_at_least(bytes: &[u8; PART], least: u8) -> u32 {
    mask(bytes, |byte| byte & VALUE >= least)
}

/// The same for entries of 16 bits.
pub(super) fn shorts_at_least(shorts: &[u16; PART], least: u16) -> u32 {
    mask(shorts, |short| short >= least)
}

/// The same for entries of 32 bits.
pub(super) fn words_at_least(words: &[i32; PART], least: i32) -> u32 {
    mask(words, |word| word >= least)
}

fn mask<T: Copy>(entries: &[T; PART], is_high: impl Fn(T) -> bool) -> u32 {
    entries.iter().rev().fold(0, |mask, &entry| mask << 1 | u32::from(is_high(entry)))
}

/// The highest byte.
pub(in super::super) fn highest(node: &Node<u8>) -> u8 {
    node.0.iter().fold(0, |high, &byte| high.max(byte & VALUE))
}

/// The highest of entries of 16 bits.
pub(in super::super) fn highest_short(node: &Node<u16>) -> u16 {
    node.0.iter().copied().fold(0, u16::max)
}

/// Lowers hints that are higher to `most`.
#[inline(always)]
pub(in super::super) fn lower(hints: &mut [i32; HINTS], most: i32) {
    *hints = hints.map(|hint| hint.min(most));
}

/// Raises hints that are lower to `least`.
#[inline(always)]
pub(in super::super) fn raise(hints: &mut [i32; HINTS], least: i32) {
    *hints = hints.map(|hint| hint.max(least));
}
