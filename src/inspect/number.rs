//! The number conversions of this room, in one place.
//!
//! Only 64-bit machines are supported, so `usize` and `u64` hold the same numbers. A conversion to `f64` keeps 53 bits,
//! which is enough for shares and means.
#![allow(clippy::as_conversions)]

pub(super) const fn wide(n: usize) -> u64 {
    n as u64
}

pub(super) const fn narrow(n: u64) -> usize {
    n as usize
}

/// The nearest `f64`.
pub(super) const fn float(n: u64) -> f64 {
    n as f64
}

/// The integer part of `x`: 0 if `x` is negative or not a number, the largest `u64` if it is too large.
pub(super) const fn floor(x: f64) -> u64 {
    x as u64
}

/// The largest `k` with `2^k <= n`, for `n` above 0.
pub(super) const fn floor_log2(n: usize) -> usize {
    (usize::BITS - 1).wrapping_sub(n.leading_zeros()) as usize
}

/// `later - earlier` as a signed number. Sizes are far below `isize::MAX`.
pub(super) const fn signed_difference(later: usize, earlier: usize) -> isize {
    (later as isize).wrapping_sub(earlier as isize)
}

/// `part / whole`, or 0 if `whole` is 0.
pub(super) fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { float(part) / float(whole) }
}
