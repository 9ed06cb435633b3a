//! Sixteen bytes at a time with NEON, which every aarch64 has.

use crate::region::Node;
use core::arch::aarch64::{
    uint8x16_t, vaddv_u8, vandq_u8, vcgeq_u8, vdupq_n_u8, vget_high_u8, vget_low_u8, vld1q_u8, vmaxq_u8,
    vmaxvq_u8,
};

/// The four quarters of a node.
#[inline]
#[target_feature(enable = "neon")]
fn quarters(node: &Node) -> [uint8x16_t; 4] {
    let (quarters, _) = node.0.as_chunks::<16>();
    let mut vectors = [vdupq_n_u8(0); 4];
    for (vector, quarter) in vectors.iter_mut().zip(quarters) {
        // SAFETY: a quarter is 16 bytes, and the load needs no alignment.
        *vector = unsafe { vld1q_u8(quarter.as_ptr()) };
    }
    vectors
}

/// The bit that each lane of a half adds to its byte of the mask.
const BITS: [u8; 16] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];

/// The bytes that are `code` or more, one bit each. NEON has no move-mask: each lane keeps its bit, and lanes add up.
#[inline]
pub(in super::super) fn at_least(node: &Node, code: u8) -> u64 {
    // SAFETY: NEON is part of aarch64.
    unsafe { at_least_neon(node, code) }
}

#[inline]
#[target_feature(enable = "neon")]
fn at_least_neon(node: &Node, code: u8) -> u64 {
    let code = vdupq_n_u8(code);
    // SAFETY: BITS has 16 bytes.
    let bits = unsafe { vld1q_u8(BITS.as_ptr()) };
    let mask = |vector| {
        let kept = vandq_u8(vcgeq_u8(vector, code), bits);
        u64::from(vaddv_u8(vget_low_u8(kept))) | u64::from(vaddv_u8(vget_high_u8(kept))) << 8
    };
    let [a, b, c, d] = quarters(node);
    mask(a) | mask(b) << 16 | mask(c) << 32 | mask(d) << 48
}

/// The highest byte.
#[inline]
pub(in super::super) fn highest(node: &Node) -> u8 {
    // SAFETY: NEON is part of aarch64.
    unsafe { highest_neon(node) }
}

#[inline]
#[target_feature(enable = "neon")]
fn highest_neon(node: &Node) -> u8 {
    let [a, b, c, d] = quarters(node);
    vmaxvq_u8(vmaxq_u8(vmaxq_u8(a, b), vmaxq_u8(c, d)))
}
