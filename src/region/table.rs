//! Arrays beside the region, most with one entry per chunk or per so many chunks, and the bitmaps among them.

use super::{Granule, Reservation, Span};
#[cfg(debug_assertions)]
use crate::system::fatal::fatal;
use core::marker::PhantomData;
use core::ptr;

/// An array in a part of the reservation: with one entry per chunk, or per so many chunks, or [of a few](Table::cut_off).
///
/// The first bytes of every table for chunks are resident in every heap, and with them a page. [Small](Table::small) tables therefore
/// begin side by side, where one page holds what most heaps need of them all; one that needs more moves to a second place,
/// where it has all its room.
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

    /// Bytes that a table of `entries` entries reserves.
    pub(crate) fn bytes(entries: usize) -> usize {
        entries.saturating_mul(size_of::<T>()).next_multiple_of(LINE)
    }

    /// The table of `entries` entries at `offset` of the reservation.
    pub(crate) fn new(reservation: &Reservation, offset: usize, entries: usize) -> Self {
        Self::in_span(reservation.part(offset, Self::bytes(entries)))
    }

    /// The table of `entries` entries, zeros, at the front of an open part, which is cut off there.
    pub(crate) fn cut_off(part: &mut Span, entries: usize) -> Self {
        Self::in_span(part.cut(Self::bytes(entries)))
    }

    fn in_span(span: Span) -> Self {
        Self { base: span.start.cast(), span, entries: PhantomData }
    }

    /// Bytes that a [small](Self::small) table reserves in its first place.
    pub(crate) fn near_bytes(entries: usize, near: usize) -> usize {
        Self::bytes(entries.min(near))
    }

    /// Bytes that it reserves in its second place.
    pub(crate) fn far_bytes(entries: usize, near: usize) -> usize {
        if entries > near { Self::bytes(entries) } else { 0 }
    }

    /// The table of `entries` entries, of which the first `near` lie at `offset` of the reservation as long as no more
    /// are needed, and all at `far` from then on; and that second place.
    pub(crate) fn small(
        reservation: &Reservation,
        (offset, near): (usize, usize),
        (far, entries): (usize, usize),
    ) -> (Self, Span) {
        let table = Self::new(reservation, offset, entries.min(near));
        (table, reservation.part(far, Self::far_bytes(entries, near)))
    }

    /// Makes the first `entries` entries usable; they are zero until they are written.
    pub(crate) fn commit(&mut self, entries: usize) -> bool {
        self.span.commit(entries.saturating_mul(size_of::<T>()).min(self.span.reserved))
    }

    /// The same for a small table, which moves to its second place if it needs to.
    pub(crate) fn commit_small(&mut self, far: &mut Span, entries: usize) -> bool {
        let bytes = entries.saturating_mul(size_of::<T>()).min(far.reserved);
        if bytes > self.span.reserved {
            if !far.commit(bytes) {
                return false;
            }
            // SAFETY: what is open here has room there, where more is open; it does not overlap, and is nobody's yet.
            unsafe { far.start.copy_from_nonoverlapping(self.span.start, self.span.committed) };
            *self = Self::in_span(core::mem::replace(far, Span::NONE));
        }
        self.commit(entries)
    }

    /// Where entry 0 is.
    pub(crate) fn address(&self) -> usize {
        self.base.addr()
    }

    /// Bytes that are usable.
    pub(crate) fn committed(&self) -> usize {
        self.span.committed()
    }

    #[inline(always)]
    fn entry(&self, index: usize) -> *mut T {
        #[cfg(debug_assertions)]
        if index.saturating_add(1).saturating_mul(size_of::<T>()) > self.span.committed {
            fatal(format_args!("heap broken: R2: entry {index} of a table lies behind its open part"));
        }
        // SAFETY: the index lies in the committed part of the table (R2).
        unsafe { self.base.add(index) }
    }

    /// The entry of that index.
    #[inline(always)]
    pub(crate) fn get(&self, index: usize) -> T {
        // SAFETY: the entry is committed (R2), aligned, and any bytes are a T (tables hold integers).
        unsafe { self.entry(index).read() }
    }

    /// Replaces an entry.
    #[inline(always)]
    pub(crate) fn set(&mut self, index: usize, value: T) {
        // SAFETY: the entry is committed (R2) and aligned.
        unsafe { self.entry(index).write(value) };
    }
}

/// A cache line, in bytes.
pub(crate) const LINE: usize = 64;

impl Table<u8> {
    /// The 64 entries from `64 * index` on, which share a cache line.
    #[inline]
    pub(crate) fn node(&self, index: usize) -> &Node {
        // SAFETY: tables of nodes have whole nodes of entries, all committed or none (R2), and begin at a multiple of a
        // line; any bytes are a node.
        unsafe { &*self.entry(index.wrapping_mul(LINE)).cast() }
    }
}

/// A cache line of entries.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Node(pub(crate) [u8; LINE]);

/// Bits that a [`Table<u64>::window`] is sure to hold, from its first on; it may hold a few more.
pub(crate) const WINDOW: usize = 57;

/// A bitmap, one bit a granule. Eight bytes from any byte on are one unaligned load, so that a run of up to
/// [`WINDOW`] bits is read and written whole wherever it begins. The bits of a word stand in the order of their
/// bytes, which is why only little-endian machines are supported.
impl Table<u64> {
    #[inline(always)]
    fn byte(&self, at: Granule) -> *mut u8 {
        #[cfg(debug_assertions)]
        self.entry(at.chunk().wrapping_add(1));
        // SAFETY: the word of the granule and the one behind it are committed (R2).
        unsafe { self.base.cast::<u8>().add(at.0 / 8) }
    }

    /// The bits from `at` upward, lowest first; at least [`WINDOW`] of them, zeros above.
    #[inline(always)]
    pub(crate) fn window(&self, at: Granule) -> u64 {
        // SAFETY: eight bytes from the granule's byte on are committed (R2).
        let bits = unsafe { self.byte(at).cast::<u64>().read_unaligned() };
        bits >> (at.0 % 8)
    }

    /// The bits below `at`, the nearest one highest; at least 56 of them, zeros beneath.
    #[inline(always)]
    pub(crate) fn window_below(&self, at: Granule) -> u64 {
        // SAFETY: the seven bytes before the granule's byte are committed too: a line stands before such a table.
        let first = unsafe { self.byte(at).sub(7) };
        // SAFETY: eight bytes from there on are committed (R2).
        let bits = unsafe { first.cast::<u64>().read_unaligned() };
        // The granule itself is bit 56 to 63 of what was read: shift it out, and what lies above it.
        bits << (8 - at.0 % 8)
    }

    /// Sets the bits of `mask`, which begins at `at` and has at most [`WINDOW`] bits.
    #[inline(always)]
    pub(crate) fn set_window(&mut self, at: Granule, mask: u64) {
        let byte = self.byte(at).cast::<u64>();
        // SAFETY: eight bytes from the granule's byte on are committed (R2).
        let bits = unsafe { byte.read_unaligned() };
        // SAFETY: as above.
        unsafe { byte.write_unaligned(bits | mask << (at.0 % 8)) };
    }

    /// Turns the bits of `mask` over, which begins at `at` and has at most [`WINDOW`] bits.
    #[inline(always)]
    pub(crate) fn flip_window(&mut self, at: Granule, mask: u64) {
        let byte = self.byte(at).cast::<u64>();
        // SAFETY: eight bytes from the granule's byte on are committed (R2).
        let bits = unsafe { byte.read_unaligned() };
        // SAFETY: as above.
        unsafe { byte.write_unaligned(bits ^ mask << (at.0 % 8)) };
    }

    /// The granule's bit.
    #[inline(always)]
    pub(crate) fn bit(&self, at: Granule) -> bool {
        // SAFETY: the granule's byte is committed (R2).
        let byte = unsafe { self.byte(at).read() };
        byte >> (at.0 % 8) & 1 != 0
    }

    /// Sets the granule's bit.
    #[inline(always)]
    pub(crate) fn set_bit(&mut self, at: Granule) {
        let byte = self.byte(at).cast::<u64>();
        // SAFETY: eight bytes from the granule's byte on are committed (R2).
        let bits = unsafe { byte.read_unaligned() };
        // SAFETY: as above.
        unsafe { byte.write_unaligned(bits | 1 << (at.0 % 8)) };
    }

    /// Clears the granule's bit.
    #[inline(always)]
    pub(crate) fn clear_bit(&mut self, at: Granule) {
        let byte = self.byte(at).cast::<u64>();
        // SAFETY: eight bytes from the granule's byte on are committed (R2).
        let bits = unsafe { byte.read_unaligned() };
        // SAFETY: as above.
        unsafe { byte.write_unaligned(bits & !(1 << (at.0 % 8))) };
    }

    /// Makes the word before entry 0 all ones, so that a look below granule 0 meets a granule in use. For a table
    /// before which a [`LINE`] stands, in the page where it begins.
    pub(crate) fn raise_sentinel(&mut self) {
        // SAFETY: a line stands before such a table.
        let before = unsafe { self.base.sub(1) };
        // SAFETY: it lies in the page of entry 0, which is committed.
        unsafe { before.write(u64::MAX) };
    }
}
