//! One byte after the other: for machines without vectors, and the measure for the others.

use super::HINTS;
use crate::region::Node;

/// The bytes that are `code` or more, one bit each.
pub(in super::super) fn at_least(node: &Node, code: u8) -> u64 {
    node.0.iter().rev().fold(0, |mask, &byte| mask << 1 | u64::from(byte >= code))
}

/// The highest byte.
pub(in super::super) fn highest(node: &Node) -> u8 {
    node.0.iter().fold(0, |high, &byte| high.max(byte))
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
