//! The heap's mapping. Only this room asks the kernel for heap memory, and only it turns an offset into a pointer.
//!
//! One reservation of address space holds the region and, behind it, all bookkeeping: a part for rarely written data,
//! and a table for each array of the heap (segment map, index). If several heaps lie side by side, each reservation
//! ends with the ring buffer of remote frees and an inaccessible guard page:
//!
//! ```text
//! base                               base + size
//! |<----------- region ------------>|<-- cold -->|<- table ->|<- table ->| ... |<- ring ->|      |
//! |  committed  |     PROT_NONE     |     rw     |rw|  none  |rw|  none  |     |    rw    | none |
//! ```
//!
//! Reserving is free: `PROT_NONE` pages count against no limit but `RLIMIT_AS` and stay out of core files. As the heap
//! grows, [`Span::commit`] makes a prefix of each part accessible with `mprotect`. Invariants:
//!
//! - **R1** the region is one range of addresses, all mapped, and never moves.
//! - **R2** every table with entries for chunks is committed for each chunk that begins below the region's committed
//!   end, and for [`SPARE_CHUNKS`] more. Callers pass only such granules and chunks to a table.

mod granule;
mod outside;
mod pieces;
mod table;
mod transfer;

pub(crate) use granule::{CHUNK, GRANULE};
pub(crate) use granule::{Extent, Granule};
pub(crate) use outside::{Outside, mark};
pub(crate) use pieces::Pieces;
pub(crate) use table::{LINE, Node, Table, WINDOW};
pub(crate) use transfer::Transfer;

use crate::checkers::{opened_for_owner, unwatched};
use crate::system::errno::{self, Reason};
use crate::system::fatal::fatal;
use crate::system::mapping::{map, unmap, whole_pages};
use core::fmt;
use core::ptr::{self, NonNull};

/// Chunks that every table has beyond the committed region, so that reads past `top` see zeros. Readers go at most one
/// word or one node of 64 bounds past the chunk of top.
pub(crate) const SPARE_CHUNKS: usize = 64;
/// Bytes of heap that small tables cover before they move to a larger place: those for 32 MiB fit in one page.
pub(crate) const NEAR: usize = 32 << 20;
/// Bytes of the links that [`Linked`](crate::Linked) stores at the start of a free segment.
pub(crate) const LINK_BYTES: usize = size_of::<[u32; 2]>();
/// Alignment of the region's base: a huge page on x86-64, and on aarch64 with 4 KiB pages.
pub(crate) const BASE_ALIGN: usize = 2 << 20;
/// The largest region in bytes: granule numbers fit in 32 bits, with one value to spare for the end of a list.
pub(crate) const MAX_REGION: usize = (1 << 36) - BASE_ALIGN;
/// Aligned addresses to try if there is no room for padding: 512 MiB of address space.
const ATTEMPTS: usize = 256;
/// The smallest region in bytes: one page on systems with 64 KiB pages.
pub(crate) const MIN_REGION: usize = 1 << 16;

/// A heap could not be created: the kernel refused the mapping, or the lent memory is too small.
///
/// A later call may succeed, for example after a limit has been raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct InitError {
    /// The requested region size, or the size of the lent memory, in bytes.
    pub region_size: usize,
    /// The `errno` of the last refusal; 0 if the kernel was not asked.
    pub errno: i32,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { region_size, errno: 0 } => write!(f, "{region_size} bytes are too few for a heap"),
            Self { region_size, errno } => {
                write!(f, "cannot map a region of {region_size} bytes: {}", Reason(errno))
            }
        }
    }
}

impl core::error::Error for InitError {}

/// A reserved range of addresses, aligned to [`BASE_ALIGN`], whose pages are committed as needed.
#[derive(Debug)]
pub struct Reservation {
    start: *mut u8,
    bytes: usize,
    /// The memory belongs to the caller of [`lent`](Self::lent), and all of it is accessible.
    lent: bool,
}

// SAFETY: a reservation is an address and a size; its owner owns the memory, on any thread.
unsafe impl Send for Reservation {}

impl Reservation {
    pub(crate) const NONE: Self = Self { start: ptr::null_mut(), bytes: 0, lent: false };

    /// Reserves `bytes` bytes of address space, rounded up to whole pages. The error is the `errno`.
    pub(crate) fn new(bytes: usize) -> Result<Self, i32> {
        let bytes = whole_pages(bytes);
        Self::padded(bytes).or_else(|_| Self::exact(bytes))
    }

    /// Reserves more than needed and unmaps the parts around the aligned range.
    fn padded(bytes: usize) -> Result<Self, i32> {
        let padded = bytes.saturating_add(BASE_ALIGN);
        let raw = map(ptr::null_mut(), padded, libc::PROT_NONE, libc::MAP_NORESERVE)?;
        let front = raw.addr().wrapping_neg() & (BASE_ALIGN - 1);
        // SAFETY: front is less than BASE_ALIGN, so the start lies inside the padded mapping.
        let start = unsafe { raw.add(front) };
        // SAFETY: the bytes before the start and behind the end belong to the new mapping alone.
        unsafe { unmap(raw, front) };
        // SAFETY: start + bytes is at most the mapping's end.
        let end = unsafe { start.add(bytes) };
        // SAFETY: these bytes are behind the end, in the new mapping.
        unsafe { unmap(end, padded.wrapping_sub(front).wrapping_sub(bytes)) };
        Ok(Self { start, bytes, lent: false })
    }

    /// Reserves no more than needed, for processes near their address space limit. Tries the highest aligned address
    /// below a free place, then lower ones.
    fn exact(bytes: usize) -> Result<Self, i32> {
        let anywhere = map(ptr::null_mut(), bytes, libc::PROT_NONE, libc::MAP_NORESERVE)?;
        // SAFETY: nothing refers to the new mapping.
        unsafe { unmap(anywhere, bytes) };
        let highest = anywhere.map_addr(|address| address & !(BASE_ALIGN - 1));
        for step in 0..ATTEMPTS {
            let wish = highest.map_addr(|address| address.saturating_sub(step.wrapping_mul(BASE_ALIGN)));
            let start = map(wish, bytes, libc::PROT_NONE, libc::MAP_NORESERVE)?;
            if start == wish {
                return Ok(Self { start, bytes, lent: false });
            }
            // SAFETY: nothing refers to the new mapping.
            unsafe { unmap(start, bytes) };
        }
        Err(libc::ENOMEM)
    }

    /// Carves off the first `bytes` bytes: a multiple of [`BASE_ALIGN`], unless nothing is left.
    pub(crate) fn carve(&mut self, bytes: usize) -> Self {
        let front = Self { start: self.start, bytes: bytes.min(self.bytes), lent: self.lent };
        // SAFETY: the front ends inside the reservation or at its end.
        self.start = unsafe { self.start.add(front.bytes) };
        self.bytes = self.bytes.wrapping_sub(front.bytes);
        front
    }

    /// A reservation in memory of the caller, from its first cache line on. None if there is none.
    ///
    /// # Safety
    /// The memory can be read and written, and is not used by anyone else until [`release`](Self::release).
    pub(crate) unsafe fn lent(start: NonNull<u8>, bytes: usize) -> Option<Self> {
        let front = start.addr().get().wrapping_neg() & (LINE - 1);
        let bytes = bytes.checked_sub(front)? & !(LINE - 1);
        // SAFETY: front is at most the size of the memory.
        let start = unsafe { start.as_ptr().add(front) };
        Some(Self { start, bytes, lent: true })
    }

    pub(crate) fn is_lent(&self) -> bool {
        self.lent
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Zeroes lent memory from `offset` on, since tables must begin as zeros.
    pub(crate) fn clear(&self, offset: usize) {
        // SAFETY: the offset is at most the reservation's size.
        let start = unsafe { self.start.add(offset.min(self.bytes)) };
        // SAFETY: the rest belongs to the reservation, and lent memory is writable.
        unsafe { start.write_bytes(0, self.bytes.saturating_sub(offset)) };
    }

    /// The offset, at or above `offset`, for a part of `bytes` bytes: a new page unless the part fits into what is left
    /// of the current one, so that its first bytes touch as few pages as possible. `offset` itself in lent memory.
    pub(crate) fn place(&self, offset: usize, bytes: usize) -> usize {
        let page = self.next_page(offset);
        if offset.saturating_add(bytes) <= page { offset } else { page }
    }

    /// The first page boundary at or above `offset`; `offset` itself in lent memory.
    pub(crate) fn next_page(&self, offset: usize) -> usize {
        if self.lent { offset } else { whole_pages(offset) }
    }

    pub(crate) fn part(&self, offset: usize, bytes: usize) -> Span {
        if offset.saturating_add(bytes) > self.bytes {
            fatal(format_args!("heap broken: R1: a part ends behind the reservation"));
        }
        // SAFETY: the offset lies inside the reservation, as just checked.
        let start = unsafe { self.start.add(offset) };
        Span { start, reserved: bytes, committed: if self.lent { bytes } else { 0 } }
    }

    /// Commits `bytes` zeroed bytes that belong to no part, up to the last page but one. The last page stays
    /// inaccessible, so that a write just below the next reservation faults. None if the system refuses.
    pub(crate) fn commit_end(&self, bytes: usize) -> Option<NonNull<u8>> {
        let mut end = self.part(self.bytes.wrapping_sub(Self::end_bytes(bytes)), bytes);
        if errno::unchanged(|| end.commit(bytes)) { NonNull::new(end.start) } else { None }
    }

    /// Bytes at the end of a reservation that [`commit_end`](Self::commit_end) needs.
    pub(crate) fn end_bytes(bytes: usize) -> usize {
        bytes.saturating_add(whole_pages(1))
    }

    /// Unmaps all of it, or returns it to its owner.
    ///
    /// # Safety
    /// Nothing refers to the region or to its tables any more.
    pub(crate) unsafe fn release(&mut self) {
        match NonNull::new(self.start) {
            Some(start) if self.lent => opened_for_owner(start, self.bytes),
            // SAFETY: the caller's promise.
            _ => unsafe { unmap(self.start, self.bytes) },
        }
        *self = Self::NONE;
    }
}

/// A part of a reservation: a committed prefix and an inaccessible rest.
#[derive(Debug)]
pub(crate) struct Span {
    start: *mut u8,
    reserved: usize,
    committed: usize,
}

// SAFETY: as for Reservation.
unsafe impl Send for Span {}

impl Span {
    pub(crate) const NONE: Self = Self { start: ptr::null_mut(), reserved: 0, committed: 0 };

    /// Commits at least the first `bytes` bytes; they are zero until written. False if the system refuses or the part
    /// is too small; then nothing has changed.
    pub(crate) fn commit(&mut self, bytes: usize) -> bool {
        if bytes <= self.committed {
            return true;
        }
        if bytes > self.reserved {
            return false;
        }
        // The first page may be shared with the part in front.
        let shared = if self.committed == 0 { whole_pages(1).wrapping_sub(1) & self.start.addr() } else { 0 };
        let more = whole_pages(bytes.wrapping_sub(self.committed).wrapping_add(shared));
        // SAFETY: committed is at most reserved, so the sum lies in this part (R1).
        let from = unsafe { self.start.add(self.committed) };
        // SAFETY: shared is the distance to the start of that page, which lies in the part in front.
        let from = unsafe { from.sub(shared) };
        // SAFETY: the pages belong to this part and its neighbours; making them accessible harms neither.
        let refused = unsafe { libc::mprotect(from.cast(), more, libc::PROT_READ | libc::PROT_WRITE) };
        if refused == 0 {
            let open = self.committed.wrapping_add(more).wrapping_sub(shared);
            self.committed = open.min(self.reserved);
        }
        refused == 0
    }

    pub(crate) fn committed(&self) -> usize {
        self.committed
    }

    /// Carves off the first `bytes` bytes, which are committed.
    fn carve(&mut self, bytes: usize) -> Self {
        if bytes > self.committed {
            fatal(format_args!("heap broken: R2: a table ends behind what is open"));
        }
        let front = Self { start: self.start, reserved: bytes, committed: bytes };
        // SAFETY: the front ends inside the part or at its end, as just checked.
        self.start = unsafe { self.start.add(bytes) };
        self.reserved = self.reserved.wrapping_sub(bytes);
        self.committed = self.committed.wrapping_sub(bytes);
        front
    }
}

/// The region: the bytes that hold the payloads.
#[derive(Debug)]
pub(crate) struct Region {
    base: *mut u8,
    size: usize,
    span: Span,
}

impl Region {
    pub(crate) const NONE: Self = Self { base: ptr::null_mut(), size: 0, span: Span::NONE };

    pub(crate) fn new(reservation: &Reservation, size: usize) -> Self {
        let span = reservation.part(0, size);
        Self { base: span.start, size, span }
    }

    /// Size in bytes, a whole number of pages.
    #[inline(always)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The address of offset 0; null before the region is mapped.
    #[inline(always)]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    /// Commits the region up to `end` (exclusive). False if the system refuses.
    pub(crate) fn commit(&mut self, end: Granule) -> bool {
        self.span.commit(end.bytes())
    }

    pub(crate) fn committed(&self) -> usize {
        self.span.committed()
    }

    /// Asks the system for huge pages in the region, or for none. False if it refuses.
    pub(crate) fn advise_huge_pages(&self, wanted: bool) -> bool {
        let advice = if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: the range is the region's own; the advice changes no contents.
        errno::unchanged(|| unsafe { libc::madvise(self.base.cast(), self.size, advice) == 0 })
    }

    /// The payload at a granule of the committed region.
    #[inline(always)]
    pub(crate) fn pointer(&self, at: Granule) -> NonNull<u8> {
        // SAFETY: placements lie below the committed end of the region (R1), so the sum stays inside the mapping.
        let payload = unsafe { self.base.add(at.bytes()) };
        // SAFETY: no address inside a mapping is null.
        unsafe { NonNull::new_unchecked(payload) }
    }

    /// The `bytes` bytes at offset `from`, in bytes from the base, inside the committed region.
    pub(crate) fn bytes(&self, from: usize, bytes: usize) -> NonNull<[u8]> {
        // SAFETY: the caller's offset lies inside the mapping, or at its end.
        let start = unsafe { self.base.add(from) };
        // SAFETY: no address inside a mapping is null.
        NonNull::slice_from_raw_parts(unsafe { NonNull::new_unchecked(start) }, bytes)
    }

    /// The granule at an address. For an address that is unaligned or below the region, a number above all granules.
    ///
    /// The offset is rotated instead of shifted. The low bits, zero in a granule's address, become the top bits, so one
    /// comparison with `top` rejects every address that is not a granule of the heap.
    #[inline(always)]
    pub(crate) fn granule(&self, payload: *const u8) -> Granule {
        Granule(payload.addr().wrapping_sub(self.base.addr()).rotate_right(GRANULE.trailing_zeros()))
    }

    /// The lowest granule at or above `from` at a multiple of `align` bytes, at least 16. None if the sum overflows.
    pub(crate) fn align_up(&self, from: Granule, align: usize) -> Option<Granule> {
        let mask = (align / GRANULE).wrapping_sub(1);
        let base = self.base.addr() / GRANULE;
        let address = base.checked_add(from.0)?.checked_add(mask)? & !mask;
        Some(Granule(address.wrapping_sub(base)))
    }

    /// Reads the two links that [`Linked`](crate::Linked) stores in a free segment.
    #[inline(always)]
    pub(crate) fn links(&self, at: Granule) -> [u32; 2] {
        let place = self.pointer(at);
        // SAFETY: a free segment lies in the committed region, is 16-aligned and at least 16 bytes long.
        unwatched(place, LINK_BYTES, || unsafe { place.cast::<[u32; 2]>().read() })
    }

    /// Writes the two links of a free segment.
    #[inline(always)]
    pub(crate) fn set_links(&self, at: Granule, links: [u32; 2]) {
        let place = self.pointer(at);
        // SAFETY: as for `links`; and nobody else uses a free segment.
        unwatched(place, LINK_BYTES, || unsafe { place.cast::<[u32; 2]>().write(links) });
    }
}

// SAFETY: as for Reservation.
unsafe impl Send for Region {}
