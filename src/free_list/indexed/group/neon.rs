//! Sixteen bytes at a time with NEON, which every aarch64 has.

use super::{PART, VALUE};
use crate::region::Node;
use core::arch::aarch64::{
    vaddv_u8, vandq_u8, vcgeq_u8, vdupq_n_u8, vget_high_u8, vget_low_u8, vld1q_u8, vmaxq_u8, vmaxvq_u8,
};

/// The bit that each lane of a half adds to its byte of the mask.
const BITS: [u8; PART] = [1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128];

/// The bytes that are `least` or more, one bit each. NEON has no move-mask: each lane keeps its bit, and lanes add up.
#[inline(always)]
pub(super) fn bytes_at_least(bytes: &[u8; PART], least: u8) -> u32 {
    // SAFETY: NEON is part of aarch64.
    unsafe { bytes_at_least_neon(bytes, least) }
}

#[inline]
#[target_feature(enable = "neon")]
fn bytes_at_least_neon(bytes: &[u8; PART], least: u8) -> u32 {
    // SAFETY: BITS has 16 bytes.
    let bits = unsafe { vld1q_u8(BITS.as_ptr()) };
    // SAFETY: there are 16 bytes, and the load needs no alignment.
    let bytes = unsafe { vld1q_u8(bytes.as_ptr()) };
    let kept = vandq_u8(vcgeq_u8(vandq_u8(bytes, vdupq_n_u8(VALUE)), vdupq_n_u8(least)), bits);
    u32::from(vaddv_u8(vget_low_u8(kept))) | u32::from(vaddv_u8(vget_high_u8(kept))) << 8
}

/// The highest byte.
#[inline]
pub(in super::super) fn highest(node: &Node<u8>) -> u8 {
    // SAFETY: NEON is part of aarch64.
    unsafe { highest_neon(node) }
}

#[inline]
#[target_feature(enable = "neon")]
fn highest_neon(node: &Node<u8>) -> u8 {
    let mut high = vdupq_n_u8(0);
    for bytes in node.0.as_chunks::<PART>().0 {
        // SAFETY: there are 16 bytes, and the load needs no alignment.
        let bytes = unsafe { vld1q_u8(bytes.as_ptr()) };
        high = vmaxq_u8(high, vandq_u8(bytes, vdupq_n_u8(VALUE)));
    }
    vmaxvq_u8(high)
}
