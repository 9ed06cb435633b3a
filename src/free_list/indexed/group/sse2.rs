//! Sixteen bytes at a time with SSE2, which every x86-64 has.

use super::HINTS;
use crate::region::Node;
use core::arch::x86_64::{
    __m128, __m128i, _mm_cmpeq_epi8, _mm_cvtsi128_si32, _mm_load_si128, _mm_max_epu8, _mm_max_ps, _mm_min_ps,
    _mm_movemask_epi8, _mm_set1_epi8, _mm_srli_si128,
};

/// The four quarters of a node.
#[inline]
#[target_feature(enable = "sse2")]
fn quarters(node: &Node) -> [__m128i; 4] {
    let (quarters, _) = node.0.as_chunks::<16>();
    let mut vectors = [_mm_set1_epi8(0); 4];
    for (vector, quarter) in vectors.iter_mut().zip(quarters) {
        // SAFETY: a node is aligned to 64 bytes, so each quarter is 16 bytes at a multiple of 16.
        *vector = unsafe { _mm_load_si128(quarter.as_ptr().cast()) };
    }
    vectors
}

/// The bytes that are `code` or more, one bit each. SSE2 compares signed, so: those that are the higher of the two.
#[inline]
pub(in super::super) fn at_least(node: &Node, code: u8) -> u64 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { at_least_sse2(node, code) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn at_least_sse2(node: &Node, code: u8) -> u64 {
    let code = _mm_set1_epi8(code.cast_signed());
    let mask = |vector| {
        let equal = _mm_cmpeq_epi8(_mm_max_epu8(vector, code), vector);
        u64::from(_mm_movemask_epi8(equal).cast_unsigned())
    };
    let [a, b, c, d] = quarters(node);
    mask(a) | mask(b) << 16 | mask(c) << 32 | mask(d) << 48
}

/// The highest byte.
#[inline]
pub(in super::super) fn highest(node: &Node) -> u8 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { highest_sse2(node) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn highest_sse2(node: &Node) -> u8 {
    let [a, b, c, d] = quarters(node);
    let high = _mm_max_epu8(_mm_max_epu8(a, b), _mm_max_epu8(c, d));
    let high = _mm_max_epu8(high, _mm_srli_si128::<8>(high));
    let high = _mm_max_epu8(high, _mm_srli_si128::<4>(high));
    let high = _mm_max_epu8(high, _mm_srli_si128::<2>(high));
    let high = _mm_max_epu8(high, _mm_srli_si128::<1>(high));
    (_mm_cvtsi128_si32(high) & 0xff) as u8
}

/// Four hints as the floats that they order as.
#[inline]
#[target_feature(enable = "sse2")]
fn floats(four: [i32; 4]) -> __m128 {
    // SAFETY: both are sixteen bytes, of which any are a value.
    unsafe { core::mem::transmute(four) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn hints(four: __m128) -> [i32; 4] {
    // SAFETY: as above.
    unsafe { core::mem::transmute(four) }
}

/// Lowers hints that are higher to `most`. SSE2 has a minimum of four floats, and none of integers so wide.
#[inline(always)]
pub(in super::super) fn lower(hints: &mut [i32; HINTS], most: i32) {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { lower_sse2(hints, most) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn lower_sse2(group: &mut [i32; HINTS], most: i32) {
    for four in group.as_chunks_mut().0 {
        *four = hints(_mm_min_ps(floats(*four), floats([most; 4])));
    }
}

/// Raises hints that are lower to `least`.
#[inline(always)]
pub(in super::super) fn raise(hints: &mut [i32; HINTS], least: i32) {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { raise_sse2(hints, least) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn raise_sse2(group: &mut [i32; HINTS], least: i32) {
    for four in group.as_chunks_mut().0 {
        *four = hints(_mm_max_ps(floats(*four), floats([least; 4])));
    }
}
