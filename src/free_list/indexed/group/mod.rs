//! 64 bytes of an index node looked at as one: which are at least so high, and which is the highest. And eight hints
//! lowered or raised as one.
//!
//! One name over several implementations, chosen here: SSE2 is part of every x86-64 and NEON of every aarch64.

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
pub(super) use neon::{at_least, highest};
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) use scalar::{at_least, highest};
// Compilers know these as single instructions of NEON.
#[cfg(not(target_arch = "x86_64"))]
pub(super) use scalar::{lower, raise};
#[cfg(target_arch = "x86_64")]
pub(super) use sse2::{at_least, highest, lower, raise};

#[cfg(test)]
#[path = "../../../../tests/unit/free_list/indexed/group.rs"]
mod tests;
