//! The mapping: the only file that asks the kernel for memory and the only one that turns an offset into a pointer.
//!
//! One reservation of address space holds the region and, behind it, what is seldom written and every table of the heap
//! (segment map, index). Of several side by side, each ends with the ring of what is handed over, and a closed page:
//!
//! ```text
//! base                               base + size
//! |<----------- region ------------>|<- seldom ->|<- table ->|<- table ->| ... |<- ring ->|      |
//! |  committed  |     PROT_NONE     |     rw     |rw|  none  |rw|  none  |     |    rw    | none |
//! ```
//!
//! Reserving costs nothing: the pages are `PROT_NONE`, count against no limit but `RLIMIT_AS`, and stay out of core
//! files. [`Span::commit`] opens a prefix of each part with `mprotect` as the heap grows.
//!
//! Invariants that the other files stand on:
//!
//! - **R1** the region is one range of addresses, all of them mapped, and never moves.
//! - **R2** every table with entries for chunks is committed for every chunk that begins below the committed end of the
//!   region, and for [`SPARE_CHUNKS`] more. Granules and chunks that reach a table's accessors come from there.

mod granule;
mod pieces;
mod table;
mod transfer;

pub(crate) use granule::{CHUNK, GRANULE};
pub(crate) use granule::{Extent, Granule};
pub(crate) use pieces::Pieces;
pub(crate) use table::{LINE, Node, Table, WINDOW};
pub(crate) use transfer::Transfer;

use crate::checkers::{opened_for_owner, unwatched};
use crate::system::errno::{self, Reason};
use crate::system::fatal::fatal;
use crate::system::mapping::{map, unmap, whole_pages};
use core::fmt;
use core::ptr::{self, NonNull};

/// Chunks that every table has beyond the end of the committed region, so that a look past `top` reads zeros.
pub(crate) const SPARE_CHUNKS: usize = 64;
/// Bytes of heap whose small tables lie side by side.
pub(crate) const NEAR: usize = 32 << 20;
/// Bytes of the links that [`Linked`](crate::Linked) keeps at the start of a free segment.
pub(crate) const LINK_BYTES: usize = size_of::<[u32; 2]>();
/// Alignment of the region's base: the size of a huge page on x86-64 and (with 4 KiB pages) on aarch64.
pub(crate) const BASE_ALIGN: usize = 2 << 20;
/// The largest region: granule numbers fit in 32 bits, with a chunk to spare.
pub(crate) const MAX_REGION: usize = (1 << 36) - BASE_ALIGN;
/// Aligned addresses that are tried where there is no room for padding.
const ATTEMPTS: usize = 256;
/// The smallest region: one page on the systems with the largest pages.
pub(crate) const MIN_REGION: usize = 1 << 16;

/// Why a heap could not be made: the kernel refused the mapping, or memory that was lent is too small.
///
/// A later call may succeed, for example after a limit has been raised.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct InitError {
    /// The size of the region that was asked for, or of the memory that was lent, in bytes.
    pub region_size: usize,
    /// The `errno` of the last refusal; 0 if nobody was asked.
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

/// A reserved range of addresses, aligned to [`BASE_ALIGN`], whose pages are opened as they are needed.
#[derive(Debug)]
pub struct Reservation {
    start: *mut u8,
    bytes: usize,
    /// It belongs to somebody else, and all of it is open.
    lent: bool,
}

// SAFETY: a reservation is an address and a size; whoever owns it owns the memory, on whichever thread.
unsafe impl Send for Reservation {}

impl Reservation {
    /// What stands where nothing has been reserved.
    pub(crate) const NONE: Self = Self { start: ptr::null_mut(), bytes: 0, lent: false };

    /// Reserves `bytes` bytes of address space.
    pub(crate) fn new(bytes: usize) -> Result<Self, i32> {
        let bytes = whole_pages(bytes);
        Self::padded(bytes).or_else(|_| Self::exact(bytes))
    }

    /// Maps more than is needed, and gives back what lies around the aligned part.
    fn padded(bytes: usize) -> Result<Self, i32> {
        let padded = bytes.saturating_add(BASE_ALIGN);
        let raw = map(ptr::null_mut(), padded, libc::PROT_NONE, libc::MAP_NORESERVE)?;
        let front = raw.addr().wrapping_neg() & (BASE_ALIGN - 1);
        // SAFETY: front is less than BASE_ALIGN, so the start lies inside the padded mapping.
        let start = unsafe { raw.add(front) };
        // SAFETY: front bytes before the start and the rest behind the end belong to the new mapping alone.
        unsafe { unmap(raw, front) };
        // SAFETY: start + bytes is at most the mapping's end.
        let end = unsafe { start.add(bytes) };
        // SAFETY: as for the front.
        unsafe { unmap(end, padded.wrapping_sub(front).wrapping_sub(bytes)) };
        Ok(Self { start, bytes, lent: false })
    }

    /// Maps no more than is needed, where the limit leaves no room for padding: at the next aligned address below a
    /// place where there is room, or below that.
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

    /// Cuts the first `bytes` bytes off, a multiple of [`BASE_ALIGN`] if anything is to be left.
    pub(crate) fn cut(&mut self, bytes: usize) -> Self {
        let front = Self { start: self.start, bytes: bytes.min(self.bytes), lent: self.lent };
        // SAFETY: the front ends inside the reservation or at its end.
        self.start = unsafe { self.start.add(front.bytes) };
        self.bytes = self.bytes.wrapping_sub(front.bytes);
        front
    }

    /// The aligned part of memory that belongs to somebody else; none if it has none.
    ///
    /// # Safety
    /// The memory can be read and written, and nobody else does until this is released.
    pub(crate) unsafe fn lent(start: NonNull<u8>, bytes: usize) -> Option<Self> {
        let front = start.addr().get().wrapping_neg() & (LINE - 1);
        let bytes = bytes.checked_sub(front)? & !(LINE - 1);
        // SAFETY: front is at most the size of the memory.
        let start = unsafe { start.as_ptr().add(front) };
        Some(Self { start, bytes, lent: true })
    }

    /// Whether it belongs to somebody else.
    pub(crate) fn is_lent(&self) -> bool {
        self.lent
    }

    /// Size in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Clears lent memory from `offset` on: tables begin as zeros.
    pub(crate) fn clear(&self, offset: usize) {
        // SAFETY: an offset beyond the end is taken for the end.
        let start = unsafe { self.start.add(offset.min(self.bytes)) };
        // SAFETY: the rest of the memory is the reservation's, and writable as it is lent.
        unsafe { start.write_bytes(0, self.bytes.saturating_sub(offset)) };
    }

    /// Where a part of `bytes` bytes should begin, at or above `offset`: with a page, so that its first bytes take no more
    /// pages than they must, if it does not fit into what is left of one. Pages of what is lent are not this heap's.
    pub(crate) fn place(&self, offset: usize, bytes: usize) -> usize {
        let page = self.next_page(offset);
        if offset.saturating_add(bytes) <= page { offset } else { page }
    }

    /// The first page that begins at or above `offset`; `offset` itself in what is lent.
    pub(crate) fn next_page(&self, offset: usize) -> usize {
        if self.lent { offset } else { whole_pages(offset) }
    }

    /// The `bytes` bytes from `offset` on, for one part of the heap.
    pub(crate) fn part(&self, offset: usize, bytes: usize) -> Span {
        if offset.saturating_add(bytes) > self.bytes {
            fatal(format_args!("heap broken: R1: a part ends behind the reservation"));
        }
        // SAFETY: the offset lies inside the reservation, as just checked.
        let start = unsafe { self.start.add(offset) };
        Span { start, reserved: bytes, committed: if self.lent { bytes } else { 0 } }
    }

    /// Opens `bytes` bytes that are nobody's part: zeros, up to the end of the last page but one. The last stays closed, so that
    /// a write below what lies behind it faults. None when the system refuses.
    pub(crate) fn open_end(&self, bytes: usize) -> Option<NonNull<u8>> {
        let mut end = self.part(self.bytes.wrapping_sub(Self::end_bytes(bytes)), bytes);
        if errno::unchanged(|| end.commit(bytes)) { NonNull::new(end.start) } else { None }
    }

    /// Bytes at the end of a reservation that [`open_end`](Self::open_end) takes.
    pub(crate) fn end_bytes(bytes: usize) -> usize {
        bytes.saturating_add(whole_pages(1))
    }

    /// Gives all of it back to the system, or to whom it belongs.
    ///
    /// # Safety
    /// Nothing refers to the region or to a table in it any more.
    pub(crate) unsafe fn release(&mut self) {
        match NonNull::new(self.start) {
            Some(start) if self.lent => opened_for_owner(start, self.bytes),
            // SAFETY: the caller's promise.
            _ => unsafe { unmap(self.start, self.bytes) },
        }
        *self = Self::NONE;
    }
}

/// A part of a reservation: an open prefix, and a rest that nobody can touch.
#[derive(Debug)]
pub(crate) struct Span {
    start: *mut u8,
    reserved: usize,
    committed: usize,
}

// SAFETY: as for a reservation.
unsafe impl Send for Span {}

impl Span {
    pub(crate) const NONE: Self = Self { start: ptr::null_mut(), reserved: 0, committed: 0 };

    /// Makes at least the first `bytes` bytes usable; they are zero until they are written.
    ///
    /// False when the system refuses, and then nothing has changed.
    pub(crate) fn commit(&mut self, bytes: usize) -> bool {
        if bytes <= self.committed {
            return true;
        }
        if bytes > self.reserved {
            return false;
        }
        // The first page may be shared with the part in front. What is open ends with a page, or with the part.
        let shared = if self.committed == 0 { whole_pages(1).wrapping_sub(1) & self.start.addr() } else { 0 };
        let more = whole_pages(bytes.wrapping_sub(self.committed).wrapping_add(shared));
        // SAFETY: committed is at most reserved, so the range begins in this part (R1), ...
        let from = unsafe { self.start.add(self.committed) };
        // SAFETY: ... or in the same page of the one in front of it.
        let from = unsafe { from.sub(shared) };
        // SAFETY: the pages belong to this part and its neighbours; that they can be read and written harms none.
        let refused = unsafe { libc::mprotect(from.cast(), more, libc::PROT_READ | libc::PROT_WRITE) };
        if refused == 0 {
            let open = self.committed.wrapping_add(more).wrapping_sub(shared);
            self.committed = open.min(self.reserved);
        }
        refused == 0
    }

    /// Bytes that are usable.
    pub(crate) fn committed(&self) -> usize {
        self.committed
    }

    /// Cuts the first `bytes` bytes off, which are usable.
    fn cut(&mut self, bytes: usize) -> Self {
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

/// The region itself: where the payloads lie.
#[derive(Debug)]
pub(crate) struct Region {
    base: *mut u8,
    size: usize,
    span: Span,
}

impl Region {
    pub(crate) const NONE: Self = Self { base: ptr::null_mut(), size: 0, span: Span::NONE };

    /// The region of `size` bytes at the front of a reservation.
    pub(crate) fn new(reservation: &Reservation, size: usize) -> Self {
        let span = reservation.part(0, size);
        Self { base: span.start, size, span }
    }

    /// Size in bytes, a whole number of pages.
    #[inline(always)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Where the region begins. Null before it is mapped.
    #[inline(always)]
    pub(crate) fn base(&self) -> *mut u8 {
        self.base
    }

    /// Opens the region for payloads up to `end` (exclusive).
    pub(crate) fn commit(&mut self, end: Granule) -> bool {
        self.span.commit(end.bytes())
    }

    /// Bytes open for payloads.
    pub(crate) fn committed(&self) -> usize {
        self.span.committed()
    }

    /// Asks the system for huge pages in the region, or for none. False where it refuses.
    pub(crate) fn advise_huge_pages(&self, wanted: bool) -> bool {
        let advice = if wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
        // SAFETY: the range is the region's own; the advice changes no contents.
        errno::unchanged(|| unsafe { libc::madvise(self.base.cast(), self.size, advice) == 0 })
    }

    /// The payload at a granule.
    #[inline(always)]
    pub(crate) fn pointer(&self, at: Granule) -> NonNull<u8> {
        // SAFETY: placements lie below the committed end of the region (R1), so the sum stays inside the mapping.
        let payload = unsafe { self.base.add(at.bytes()) };
        // SAFETY: no address inside a mapping is null.
        unsafe { NonNull::new_unchecked(payload) }
    }

    /// The `bytes` bytes from an offset on, in bytes from the base, inside the committed region.
    pub(crate) fn bytes(&self, from: usize, bytes: usize) -> NonNull<[u8]> {
        // SAFETY: the caller's offset lies inside the mapping, or at its end.
        let start = unsafe { self.base.add(from) };
        // SAFETY: no address inside a mapping is null.
        NonNull::slice_from_raw_parts(unsafe { NonNull::new_unchecked(start) }, bytes)
    }

    /// The granule that a pointer names; where the pointer is unaligned or lies below the region, a number beyond
    /// every granule there is.
    ///
    /// The offset is rotated and not shifted, so that the bits that a granule's address cannot have end up on top and
    /// one comparison with `top` sees every pointer that is not a granule of the heap.
    #[inline(always)]
    pub(crate) fn granule(&self, payload: *const u8) -> Granule {
        Granule(payload.addr().wrapping_sub(self.base.addr()).rotate_right(GRANULE.trailing_zeros()))
    }

    /// The lowest granule at or above `from` whose address is a multiple of `align`, a power of two of at least 16; none
    /// beyond the address space.
    pub(crate) fn align_up(&self, from: Granule, align: usize) -> Option<Granule> {
        let mask = (align / GRANULE).wrapping_sub(1);
        let base = self.base.addr() / GRANULE;
        let address = base.checked_add(from.0)?.checked_add(mask)? & !mask;
        Some(Granule(address.wrapping_sub(base)))
    }

    /// Reads the two links that [`Linked`](crate::Linked) keeps in a free segment.
    #[inline(always)]
    pub(crate) fn links(&self, at: Granule) -> [u32; 2] {
        let place = self.pointer(at);
        // SAFETY: a free segment lies in the committed region, is 16-aligned and at least 16 bytes long.
        unwatched(place, LINK_BYTES, || unsafe { place.cast::<[u32; 2]>().read() })
    }

    /// Writes the two links into a free segment.
    #[inline(always)]
    pub(crate) fn set_links(&self, at: Granule, links: [u32; 2]) {
        let place = self.pointer(at);
        // SAFETY: a free segment lies in the committed region, is 16-aligned, at least 16 bytes long, and nobody's.
        unwatched(place, LINK_BYTES, || unsafe { place.cast::<[u32; 2]>().write(links) });
    }
}

// SAFETY: a region is an address and two sizes; whoever owns it owns the memory, on whichever thread.
unsafe impl Send for Region {}
