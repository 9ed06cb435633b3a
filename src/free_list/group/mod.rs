//! 64 bytes of an index node looked at as one: which are at least so high, and which is the highest.
//!
//! One name over several implementations, chosen here: SSE2 is part of every x86-64 and NEON of every aarch64.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(any(test, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
mod scalar;
#[cfg(target_arch = "x86_64")]
mod sse2;

#[cfg(target_arch = "aarch64")]
pub(super) use neon::{at_least, highest};
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(super) use scalar::{at_least, highest};
#[cfg(target_arch = "x86_64")]
pub(super) use sse2::{at_least, highest};

#[cfg(test)]
mod tests {
    use super::{at_least, highest, scalar};
    use crate::region::Node;

    /// The chosen implementation against its slow, obvious twin.
    #[test]
    fn same_as_scalar() {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..2000_u32 {
            let mut node = Node([0; 64]);
            for byte in &mut node.0 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (state >> (56 - round % 8)) as u8;
            }
            for code in [0, 1, 2, 63, 64, 127, 128, 129, 200, 254, 255] {
                assert_eq!(at_least(&node, code), scalar::at_least(&node, code), "{node:?} {code}");
            }
            assert_eq!(highest(&node), scalar::highest(&node), "{node:?}");
        }
    }
}
