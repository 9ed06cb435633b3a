//! Places and ranges in the region, in granules from its base.

/// Bytes of a granule, the unit of size and address.
pub(crate) const GRANULE: usize = 16;
/// Granules of a chunk: one word of each bitmap.
pub(crate) const CHUNK: usize = 64;
/// A place in the region: its offset from the base, in granules.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Granule(pub(crate) usize);

impl Granule {
    #[inline(always)]
    pub(crate) const fn chunk(self) -> usize {
        self.0 / CHUNK
    }

    /// The granule's bit in the words of its chunk.
    #[inline(always)]
    pub(crate) const fn bit(self) -> usize {
        self.0 % CHUNK
    }

    #[inline(always)]
    pub(crate) const fn up(self, n: usize) -> Self {
        Self(self.0.wrapping_add(n))
    }

    #[inline(always)]
    pub(crate) const fn down(self, n: usize) -> Self {
        Self(self.0.wrapping_sub(n))
    }

    /// The distance up from `lower`, in granules.
    #[inline(always)]
    pub(crate) const fn above(self, lower: Self) -> usize {
        self.0.wrapping_sub(lower.0)
    }

    /// The offset from the base, in bytes.
    #[inline(always)]
    pub(crate) const fn bytes(self) -> usize {
        self.0.wrapping_mul(GRANULE)
    }
}

/// Whether two granules are in the same chunk.
#[inline(always)]
pub(crate) const fn same_chunk(one: Granule, other: Granule) -> bool {
    one.0 ^ other.0 < CHUNK
}

/// A range of granules: from `start` up to, but not including, `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    pub(crate) start: Granule,
    pub(crate) end: Granule,
}

impl Extent {
    pub(crate) const EMPTY: Self = Self::new(Granule(0), Granule(0));

    #[inline(always)]
    pub(crate) const fn new(start: Granule, end: Granule) -> Self {
        Self { start, end }
    }

    /// The `n` granules from `start` on.
    #[inline(always)]
    pub(crate) const fn of(start: Granule, n: usize) -> Self {
        Self { start, end: start.up(n) }
    }

    /// The length in granules.
    #[inline(always)]
    pub(crate) const fn len(self) -> usize {
        self.end.above(self.start)
    }

    #[inline(always)]
    pub(crate) const fn is_empty(self) -> bool {
        self.start.0 >= self.end.0
    }

    /// The length in bytes.
    #[inline(always)]
    pub(crate) const fn bytes(self) -> usize {
        Granule(self.len()).bytes()
    }

    /// Whether the two ranges share a granule.
    #[inline(always)]
    pub(crate) const fn overlaps(self, other: Self) -> bool {
        !self.is_empty() && self.start.0 < other.end.0 && other.start.0 < self.end.0
    }
}
