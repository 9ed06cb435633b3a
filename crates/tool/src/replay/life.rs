//! The life of a block.

use std::ops::Range;

/// Bytes of the unit of offsets and sizes.
pub(crate) const GRANULE: u64 = 16;
/// The death of a block that is in use.
pub(crate) const ALIVE: u32 = u32::MAX;

/// A block from the call that placed it to the call that freed it. A `realloc` begins another life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// The number of the call, from 1 on; 0 for a block that was in use when the trace began.
    pub(crate) birth: u32,
    /// The number of the call, or [`ALIVE`].
    pub(crate) death: u32,
    /// Granules.
    pub(crate) offset: u32,
    /// Free segments that the search stepped over.
    pub(crate) hops: u32,
    /// An index of [`Lives::threads`](super::lives::Lives::threads).
    pub(crate) thread: u32,
    /// The number of the call stack; 0 is unknown.
    pub(crate) stack: u32,
    /// The number of the site; 0 is unknown.
    pub(crate) site: u32,
    /// The blocks of the same stack that it stands for; see [`Origin`](crate::input::Origin).
    pub(crate) weight: u32,
    /// Bytes that the program asked for.
    pub(crate) size: u64,
}

impl Life {
    /// The calls after which the block is in use. It must have ended.
    pub(crate) fn calls(&self) -> Range<u64> {
        u64::from(self.birth)..u64::from(self.death)
    }

    /// The granules of the region that the block takes.
    pub(crate) fn extent(&self) -> Range<u64> {
        u64::from(self.offset)..u64::from(self.offset) + self.granules()
    }

    /// Granules that the block takes.
    pub(crate) fn granules(&self) -> u64 {
        self.size.max(1).div_ceil(GRANULE)
    }

    /// Whether the block is in use after call number `call`.
    pub(crate) fn is_live(&self, call: u32) -> bool {
        self.birth <= call && call < self.death
    }

    /// Area in the picture, in granules times calls.
    pub(crate) fn area(&self) -> u64 {
        self.granules().saturating_mul(u64::from(self.death - self.birth))
    }
}
