//! The ends of all segments, read one word of the map at a time. A snapshot copies them while the heap's lock is held.
//!
//! In a chunk without a tag, a segment begins at each head and at each free granule above one in use, where another one
//! ends. So two words give up to 64 ends in a few instructions each. A tag skips a large segment in one step.

use super::{SegmentMap, TAG, chunk_start};
use crate::region::Granule;

/// A granule in use, above a free one, that is not a head: it belongs to no segment (M1).
pub(crate) struct Headless(pub(crate) Granule);

impl SegmentMap {
    /// The addresses of the first words of `used` and `heads`.
    pub(crate) fn addresses(&self) -> (usize, usize) {
        (self.used.address(), self.heads.address())
    }

    /// Calls `visit` with the end of each segment below `top`, in ascending order, and whether it is in use. Stops and
    /// returns false once `visit` returns false.
    pub(crate) fn visit_ends(
        &self,
        top: Granule,
        mut visit: impl FnMut(Granule, bool) -> bool,
    ) -> Result<bool, Headless> {
        // Nothing is below granule 0, where the first segment begins.
        let mut at = Granule(0);
        let mut in_use = false;
        while at < top {
            let chunk = at.chunk();
            let (used, heads) = (self.used.get(chunk), self.heads.get(chunk));
            if heads & !used & TAG != 0 {
                let hole = used == 0;
                if hole && in_use && !visit(chunk_start(chunk), true) {
                    return Ok(false);
                }
                in_use = !hole;
                let end = if hole { heads & !TAG } else { used >> 1 };
                // Always go up, so that a corrupt tag cannot cause an endless loop.
                at = Granule((end as usize).max(at.0.wrapping_add(1)));
                continue;
            }
            // Bit n is set if the granule below n is in use.
            let below = used << 1 | u64::from(in_use) << at.bit();
            let here = u64::MAX << at.bit();
            let begins_used = used & !below & here;
            if begins_used & !heads != 0 {
                return Err(Headless(
                    chunk_start(chunk).up((begins_used & !heads).trailing_zeros() as usize),
                ));
            }
            let mut begins = (used & heads | !used & below) & here;
            while begins != 0 {
                let end = chunk_start(chunk).up(begins.trailing_zeros() as usize);
                let before = below & begins & begins.wrapping_neg() != 0;
                if end.0 > 0 && !visit(end, before) {
                    return Ok(false);
                }
                begins &= begins.wrapping_sub(1);
                if end >= top {
                    return Ok(true);
                }
            }
            in_use = used >> 63 != 0;
            at = chunk_start(chunk.wrapping_add(1));
        }
        Ok(top == Granule(0) || visit(top, in_use))
    }
}
