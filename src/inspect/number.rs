//! The conversions that the inspector needs, in one place.
//!
//! The crate is for 64-bit machines, so a `usize` and a `u64` hold the same numbers; only a conversion to `f64` loses
//! anything, and a share or a mean needs no more than its 53 bits.
#![allow(clippy::as_conversions)]

/// A `usize` as a `u64`.
pub(super) const fn wide(n: usize) -> u64 {
    n as u64
}

/// A `u64` as a `usize`.
pub(super) const fn narrow(n: u64) -> usize {
    n as usize
}

/// The nearest `f64`.
pub(super) const fn float(n: u64) -> f64 {
    n as f64
}

/// The integer part of `x`: 0 when it is negative or not a number, the largest `u64` when it is too large.
pub(super) const fn floor(x: f64) -> u64 {
    x as u64
}

/// The exponent of the largest power of two that is not above `n`, which is not 0.
pub(super) const fn floor_log2(n: usize) -> usize {
    (usize::BITS - 1).wrapping_sub(n.leading_zeros()) as usize
}

/// `later - earlier` as a signed number, for sizes that lie far below `isize::MAX`.
pub(super) const fn signed_difference(later: usize, earlier: usize) -> isize {
    (later as isize).wrapping_sub(earlier as isize)
}

/// `part / whole`, and 0 when there is no whole.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}
