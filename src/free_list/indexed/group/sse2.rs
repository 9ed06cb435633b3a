//! Sixteen bytes at a time with SSE2, which every x86-64 has.

use super::{HINTS, PART, VALUE};
use crate::region::Node;
use core::arch::x86_64::{
    __m128, __m128i, _mm_add_epi16, _mm_and_si128, _mm_cmpeq_epi16, _mm_cmpgt_epi8, _mm_cmpgt_epi32,
    _mm_cvtsi128_si32, _mm_loadu_si128, _mm_max_epu8, _mm_max_ps, _mm_min_ps, _mm_movemask_epi8,
    _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi8, _mm_set1_epi16, _mm_set1_epi32, _mm_setzero_si128,
    _mm_srli_si128, _mm_subs_epu16,
};

/// Entries as vectors of sixteen bytes, of which each has `PER`.
#[inline]
#[target_feature(enable = "sse2")]
fn vectors<T, const PER: usize, const N: usize>(entries: &[T]) -> [__m128i; N] {
    const { assert!(size_of::<[T; PER]>() == size_of::<__m128i>()) }
    let mut vectors = [_mm_setzero_si128(); N];
    for (vector, part) in vectors.iter_mut().zip(entries.as_chunks::<PER>().0) {
        // SAFETY: the part has as many bytes as a vector, and this load needs no alignment.
        *vector = unsafe { _mm_loadu_si128(part.as_ptr().cast()) };
    }
    vectors
}

/// The bytes that are `least` or more, one bit each.
#[inline(always)]
pub(super) fn bytes_at_least(bytes: &[u8; PART], least: u8) -> u32 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { bytes_at_least_sse2(bytes, least) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn bytes_at_least_sse2(bytes: &[u8; PART], least: u8) -> u32 {
    let [bytes] = vectors::<_, 16, _>(bytes);
    // Without the mark, no byte is negative.
    let bytes = _mm_and_si128(bytes, _mm_set1_epi8(VALUE.cast_signed()));
    _mm_movemask_epi8(_mm_cmpgt_epi8(_mm_set1_epi8(least.cast_signed()), bytes)).cast_unsigned() ^ 0xffff
}

/// The same for entries of 16 bits: `least` minus such an entry saturates to 0.
#[inline(always)]
pub(super) fn shorts_at_least(shorts: &[u16; PART], least: u16) -> u32 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { shorts_at_least_sse2(shorts, least) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn shorts_at_least_sse2(shorts: &[u16; PART], least: u16) -> u32 {
    let (least, zero) = (_mm_set1_epi16(least.cast_signed()), _mm_setzero_si128());
    let [a, b] = vectors::<_, 8, _>(shorts);
    let a = _mm_cmpeq_epi16(_mm_subs_epu16(least, a), zero);
    let b = _mm_cmpeq_epi16(_mm_subs_epu16(least, b), zero);
    _mm_movemask_epi8(_mm_packs_epi16(a, b)).cast_unsigned()
}

/// The same for entries of 32 bits.
#[inline(always)]
pub(super) fn words_at_least(words: &[i32; PART], least: i32) -> u32 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { words_at_least_sse2(words, least) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn words_at_least_sse2(words: &[i32; PART], least: i32) -> u32 {
    let least = _mm_set1_epi32(least);
    let [a, b, c, d] = vectors::<_, 4, _>(words);
    let [a, b] = [_mm_cmpgt_epi32(least, a), _mm_cmpgt_epi32(least, b)];
    let [c, d] = [_mm_cmpgt_epi32(least, c), _mm_cmpgt_epi32(least, d)];
    let less = _mm_packs_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
    _mm_movemask_epi8(less).cast_unsigned() ^ 0xffff
}

/// The highest byte.
#[inline]
pub(in super::super) fn highest(node: &Node<u8>) -> u8 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { highest_sse2(node) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn highest_sse2(node: &Node<u8>) -> u8 {
    let value = _mm_set1_epi8(VALUE.cast_signed());
    let [a, b, c, d] = vectors::<_, 16, _>(&node.0);
    let [a, b, c, d] = [a, b, c, d].map(|bytes| _mm_and_si128(bytes, value));
    let high = _mm_max_epu8(_mm_max_epu8(a, b), _mm_max_epu8(c, d));
    let high = _mm_max_epu8(high, _mm_srli_si128::<8>(high));
    let high = _mm_max_epu8(high, _mm_srli_si128::<4>(high));
    let high = _mm_max_epu8(high, _mm_srli_si128::<2>(high));
    let high = _mm_max_epu8(high, _mm_srli_si128::<1>(high));
    (_mm_cvtsi128_si32(high) & 0xff) as u8
}

/// The highest of entries of 16 bits. The higher of `a` and `b` is `a` plus the saturating difference `b - a`, which is
/// 0 unless `b` is higher.
#[inline]
pub(in super::super) fn highest_short(node: &Node<u16>) -> u16 {
    // SAFETY: SSE2 is part of x86-64.
    unsafe { highest_short_sse2(node) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn highest_short_sse2(node: &Node<u16>) -> u16 {
    let max = |a, b| _mm_add_epi16(a, _mm_subs_epu16(b, a));
    let [a, b, c, d, e, f, g, h] = vectors::<_, 8, _>(&node.0);
    let high = max(max(max(a, b), max(c, d)), max(max(e, f), max(g, h)));
    let high = max(high, _mm_srli_si128::<8>(high));
    let high = max(high, _mm_srli_si128::<4>(high));
    let high = max(high, _mm_srli_si128::<2>(high));
    (_mm_cvtsi128_si32(high) & 0xffff) as u16
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
