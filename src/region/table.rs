//! Arrays beside the region, and the bitmaps among them.

use super::{Granule, Reservation, Span};
#[cfg(debug_assertions)]
use crate::system::fatal::fatal;
use core::marker::PhantomData;
use core::ptr;

/// An array in a part of the reservation, most with one entry per chunk or per group of chunks.
///
/// The first bytes of every table are resident in every heap and cost a page. [Small](Table::small) tables therefore
/// begin side by side in one page, which is enough for most heaps. A table that outgrows its place there moves to a
/// second one, reserved for its full size.
#[derive(Debug)]
pub(crate) struct Table<T> {
    base: *mut T,
    span: Span,
    entries: PhantomData<T>,
}

// SAFETY: as for Region.
unsafe impl<T: Send> Send for Table<T> {}

impl<T: Copy> Table<T> {
    pub(crate) const NONE: Self = Self { base: ptr::null_mut(), span: Span::NONE, entries: PhantomData };

    /// Bytes to reserve for a table of `entries` entries.
    pub(crate) fn bytes(entries: usize) -> usize {
        entries.saturating_mul(size_of::<T>()).next_multiple_of(LINE)
    }

    /// The table of `entries` entries at `offset` of the reservation.
    pub(crate) fn new(reservation: &Reservation, offset: usize, entries: usize) -> Self {
        Self::in_span(reservation.part(offset, Self::bytes(entries)))
    }

    /// The table of `entries` zeroed entries that is carved off the front of a committed part.
    pub(crate) fn carve(part: &mut Span, entries: usize) -> Self {
        Self::in_span(part.carve(Self::bytes(entries)))
    }

    fn in_span(span: Span) -> Self {
        Self { base: span.start.cast(), span, entries: PhantomData }
    }

    /// Bytes that a [small](Self::small) table reserves in its first place.
    pub(crate) fn near_bytes(entries: usize, near: usize) -> usize {
        Self::bytes(entries.min(near))
    }

    /// Bytes that a small table reserves in its second place.
    pub(crate) fn far_bytes(entries: usize, near: usize) -> usize {
        if entries > near { Self::bytes(entries) } else { 0 }
    }

    /// A table of `entries` entries and its second place. It begins with room for `near` entries at `offset` of the
    /// reservation, and moves to `far` when it needs more.
    pub(crate) fn small(
        reservation: &Reservation,
        (offset, near): (usize, usize),
        (far, entries): (usize, usize),
    ) -> (Self, Span) {
        let table = Self::new(reservation, offset, entries.min(near));
        (table, reservation.part(far, Self::far_bytes(entries, near)))
    }

    /// Commits the first `entries` entries; they are zero until written. False if the system refuses.
    pub(crate) fn commit(&mut self, entries: usize) -> bool {
        self.span.commit(entries.saturating_mul(size_of::<T>()).min(self.span.reserved))
    }

    /// Commits entries of a small table, which moves to its second place if it has outgrown the first.
    pub(crate) fn commit_small(&mut self, far: &mut Span, entries: usize) -> bool {
        let bytes = entries.saturating_mul(size_of::<T>()).min(far.reserved);
        if bytes > self.span.reserved {
            if !far.commit(bytes) {
                return false;
            }
            // SAFETY: the new place is unused, committed for more bytes than the old one, and does not overlap it.
            unsafe { far.start.copy_from_nonoverlapping(self.span.start, self.span.committed) };
            *self = Self::in_span(core::mem::replace(far, Span::NONE));
        }
        self.commit(entries)
    }

    pub(crate) fn address(&self) -> usize {
        self.base.addr()
    }

    /// Gives the whole pages of a table that is not needed back to the system, unless they are lent. They stay
    /// committed.
    pub(crate) fn discard(&mut self) {
        self.span.discard();
    }

    pub(crate) fn committed(&self) -> usize {
        self.span.committed()
    }

    #[inline(always)]
    fn entry(&self, index: usize) -> *mut T {
        #[cfg(debug_assertions)]
        if index.saturating_add(1).saturating_mul(size_of::<T>()) > self.span.committed {
            fatal(format_args!("heap broken: R2: entry {index} of a table lies behind its committed part"));
        }
        // SAFETY: the index lies in the committed part of the table (R2).
        unsafe { self.base.add(index) }
    }

    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> T {
        // SAFETY: the entry is committed (R2) and aligned, and any bytes are a T, since tables hold integers.
        unsafe { self.entry(index).read() }
    }

    #[inline(always)]
    pub(crate) fn set(&mut self, index: usize, value: T) {
        // SAFETY: the entry is committed (R2) and aligned.
        unsafe { self.entry(index).write(value) };
    }
}

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

impl<T: Copy> Table<T> {
    /// The `N` entries from `first` on.
    #[inline(always)]
    pub(crate) fn run<const N: usize>(&self, first: usize) -> [T; N] {
        #[cfg(debug_assertions)]
        self.entry(first.wrapping_add(N - 1));
        // SAFETY: the caller's entries are committed (R2) like the first one, and aligned.
        unsafe { self.entry(first).cast::<[T; N]>().read() }
    }

    /// The entries from `NODE * index` on.
    #[inline]
    pub(crate) fn node(&self, index: usize) -> &Node<T> {
        // SAFETY: a table of nodes is committed in whole nodes (R2) and aligned to them; any bytes are a node.
        unsafe { &*self.entry(index.wrapping_mul(NODE)).cast() }
    }
}

/// Entries of a node.
pub(crate) const NODE: usize = 64;

/// 64 entries of a table that are compared at once. 64 bytes share a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Node<T>(pub(crate) [T; NODE]);

/// The least number of bits that [`Table<u64>::window`] returns: eight bytes, less up to seven bits of the first one.
pub(crate) const WINDOW: usize = 57;

/// A bitmap, one bit per granule. Eight bytes from any byte on are one unaligned load, so up to [`WINDOW`] bits are
/// read or written at once wherever they begin. The order of bits must be that of bytes: little-endian.
impl Table<u64> {
    #[inline(always)]
    fn byte(&self, at: Granule) -> *mut u8 {
        #[cfg(debug_assertions)]
        self.entry(at.chunk().wrapping_add(1));
        // SAFETY: the granule's word and the next one are committed (R2).
        unsafe { self.base.cast::<u8>().add(at.0 / 8) }
    }

    /// The bits from `at` upward, lowest first: at least [`WINDOW`] of them, zeros above.
    #[inline(always)]
    pub(crate) fn window(&self, at: Granule) -> u64 {
        // SAFETY: eight bytes from the granule's byte on are committed (R2).
        let bits = unsafe { self.byte(at).cast::<u64>().read_unaligned() };
        bits >> (at.0 % 8)
    }

    /// The bits below `at`, nearest highest: at least 56 of them, zeros below.
    #[inline(always)]
    pub(crate) fn window_below(&self, at: Granule) -> u64 {
        // SAFETY: the seven bytes before are committed too: such a table has a cache line in front.
        let first = unsafe { self.byte(at).sub(7) };
        // SAFETY: eight bytes from there on are committed (R2).
        let bits = unsafe { first.cast::<u64>().read_unaligned() };
        // The granule is one of bits 56 to 63. Shift it and the bits above it out.
        bits << (8 - at.0 % 8)
    }

    /// Sets the bits of `mask`, whose bit 0 is `at`, and which has at most [`WINDOW`] bits.
    #[inline(always)]
    pub(crate) fn set_window(&mut self, at: Granule, mask: u64) {
        let byte = self.byte(at).cast::<u64>();
        // SAFETY: eight bytes from the granule's byte on are committed (R2).
        let bits = unsafe { byte.read_unaligned() };
        // SAFETY: these eight bytes are committed (R2), and the table is borrowed mutably.
        unsafe { byte.write_unaligned(bits | mask << (at.0 % 8)) };
    }

    /// Flips the bits of `mask`, whose bit 0 is `at`, and which has at most [`WINDOW`] bits.
    #[inline(always)]
    pub(crate) fn flip_window(&mut self, at: Granule, mask: u64) {
        let byte = self.byte(at).cast::<u64>();
        // SAFETY: eight bytes from the granule's byte on are committed (R2).
        let bits = unsafe { byte.read_unaligned() };
        // SAFETY: these eight bytes are committed (R2), and the table is borrowed mutably.
        unsafe { byte.write_unaligned(bits ^ mask << (at.0 % 8)) };
    }

    #[inline(always)]
    pub(crate) fn bit(&self, at: Granule) -> bool {
        // SAFETY: the granule's byte is committed (R2).
        let byte = unsafe { self.byte(at).read() };
        byte >> (at.0 % 8) & 1 != 0
    }

    #[inline(always)]
    pub(crate) fn set_bit(&mut self, at: Granule) {
        let byte = self.byte(at).cast::<u64>();
        // SAFETY: eight bytes from the granule's byte on are committed (R2).
        let bits = unsafe { byte.read_unaligned() };
        // SAFETY: these eight bytes are committed (R2), and the table is borrowed mutably.
        unsafe { byte.write_unaligned(bits | 1 << (at.0 % 8)) };
    }

    #[inline(always)]
    pub(crate) fn clear_bit(&mut self, at: Granule) {
        let byte = self.byte(at).cast::<u64>();
        // SAFETY: eight bytes from the granule's byte on are committed (R2).
        let bits = unsafe { byte.read_unaligned() };
        // SAFETY: these eight bytes are committed (R2), and the table is borrowed mutably.
        unsafe { byte.write_unaligned(bits & !(1 << (at.0 % 8))) };
    }

    /// Sets all bits of the word before entry 0, so that a read below granule 0 sees a granule in use. Only for a table
    /// that has a [`LINE`] in front, in the page where it begins.
    pub(crate) fn raise_sentinel(&mut self) {
        // SAFETY: such a table has a cache line in front.
        let before = unsafe { self.base.sub(1) };
        // SAFETY: the word lies in the page of entry 0, which is committed.
        unsafe { before.write(u64::MAX) };
    }
}
