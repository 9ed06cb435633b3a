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
//! Reserving is free: `PROT_NONE` pages count against no limit but `RLIMIT_AS`. They also stay out of core files: the
//! kernel would leave them out anyway, but debuggers such as gdb write them unless `MADV_DONTDUMP` says otherwise. As
//! the heap grows, [`Span::commit`] makes a prefix of each part accessible with `mprotect`. Invariants:
//!
//! - **R1** the region is one range of addresses, all mapped, and never moves.
//! - **R2** every table with entries for chunks is committed for each chunk that begins below the region's committed
//!   end, and for [`SPARE_CHUNKS`] more. Callers pass only such granules and chunks to a table.

mod granule;
mod locking;
mod outside;
mod pieces;
mod remap;
mod table;
mod transfer;

pub(crate) use granule::{CHUNK, GRANULE};
pub(crate) use granule::{Extent, Granule, same_chunk};
pub(crate) use outside::{Outside, mark};
pub(crate) use pieces::Pieces;
use remap::remap;
pub(crate) use table::{LINE, NODE, Node, Table, WINDOW};
pub(crate) use transfer::Transfer;

use crate::checkers::{opened_for_owner, unwatched};
use crate::system::errno::{self, Reason};
use crate::system::fatal::fatal;
use crate::system::mapping::{map, set_dumped, unmap, whole_pages};
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
    /// The address requested by [`at_base`](crate::SmallocGlobal::at_base), if any.
    pub base: Option<usize>,
}

impl fmt::Display for InitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { base: Some(base), .. } if !base.is_multiple_of(BASE_ALIGN) => {
                write!(f, "cannot map a region at {base:#x}: the address is not a multiple of 2 MiB")
            }
            Self { region_size, errno, base: Some(base) } => {
                write!(f, "cannot map a region of {region_size} bytes at {base:#x}: {}", Reason(errno))
            }
            Self { region_size, errno: 0, .. } => write!(f, "{region_size} bytes are too few for a heap"),
            Self { region_size, errno, base: None } => {
                write!(f, "cannot map a region of {region_size} bytes: {}", Reason(errno))
            }
        }
    }
}

impl core::error::Error for InitError {}

/// Maps inaccessible addresses anywhere. The error is the `errno`.
fn map_closed(bytes: usize) -> Result<*mut u8, i32> {
    map(ptr::null_mut(), bytes, libc::PROT_NONE, libc::MAP_NORESERVE)
}

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
        let unlocked = |errno| match errno {
            libc::EAGAIN => Self::padded(bytes, |bytes| locking::map_unlocked(ptr::null_mut(), bytes)),
            errno => Err(errno),
        };
        let reservation =
            Self::padded(bytes, map_closed).or_else(|_| Self::exact(bytes)).or_else(unlocked)?;
        reservation.leave_out_of_core_files();
        Ok(reservation)
    }

    /// Reserves `bytes` bytes, rounded up to whole pages, at an address. The error is the `errno`: `EEXIST` if another
    /// mapping is in the way, `EINVAL` if the address is not aligned to [`BASE_ALIGN`].
    pub(crate) fn at(address: usize, bytes: usize) -> Result<Self, i32> {
        if address == 0 || !address.is_multiple_of(BASE_ALIGN) {
            return Err(libc::EINVAL);
        }
        let (wish, bytes) = (ptr::without_provenance_mut(address), whole_pages(bytes));
        let flags = libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
        let start = map(wish, bytes, libc::PROT_NONE, flags).or_else(|errno| match errno {
            libc::EAGAIN => locking::map_unlocked(wish, bytes),
            errno => Err(errno),
        })?;
        if start != wish {
            // Kernels before 4.17 do not know the flag and map elsewhere.
            // SAFETY: nothing refers to the new mapping.
            unsafe { unmap(start, bytes) };
            return Err(libc::EEXIST);
        }
        let reservation = Self { start, bytes, lent: false };
        reservation.leave_out_of_core_files();
        Ok(reservation)
    }

    /// Keeps a new reservation, all of it closed, out of core files. If the system refuses, they are larger.
    fn leave_out_of_core_files(&self) {
        // SAFETY: the reservation belongs to this value, and nothing refers to it yet.
        unsafe { set_dumped(self.start, self.bytes, false) };
    }

    /// Reserves more than needed by `map`, and unmaps the parts around the aligned range.
    fn padded(bytes: usize, map: fn(usize) -> Result<*mut u8, i32>) -> Result<Self, i32> {
        let padded = bytes.saturating_add(BASE_ALIGN);
        let raw = map(padded)?;
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
        let anywhere = map_closed(bytes)?;
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

    /// A reservation in memory of the caller, from its first cache line on. None if the memory has none.
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

    /// All of it, unless there is none or it belongs to somebody else.
    pub(crate) fn own_mapping(&self) -> Option<NonNull<[u8]>> {
        let start = NonNull::new(self.start).filter(|_| !self.lent)?;
        Some(NonNull::slice_from_raw_parts(start, self.bytes))
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
        let may_be_open = if shared > 0 { whole_pages(1) } else { 0 };
        // SAFETY: if they were opened, the pages are accessible.
        let opened = self.open(from, more, may_be_open) && unsafe { locking::lock_if_due(from, more) };
        if opened {
            let open = self.committed.wrapping_add(more).wrapping_sub(shared);
            self.committed = open.min(self.reserved);
        }
        opened
    }

    /// Makes `bytes` bytes from a page of this part on accessible, and a part of core files. The first `shared` of them
    /// may be so already. False if the system refuses.
    ///
    /// The two calls change one property each, so between them the pages are a mapping of their own. If the process may
    /// have no more mappings, new pages replace the closed ones in one step, which takes none.
    fn open(&self, from: *mut u8, bytes: usize, shared: usize) -> bool {
        // SAFETY: the pages belong to this part, and the first one to the part in front of it too.
        let dumped = unsafe { set_dumped(from, bytes, true) };
        // SAFETY: these pages are closed, so nobody uses them and they hold nothing.
        if !dumped && shared == 0 && unsafe { remap(from, bytes) } {
            return true;
        }
        // SAFETY: making pages of these parts accessible harms neither.
        if unsafe { libc::mprotect(from.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE) } == 0 {
            return true;
        }
        let errno = errno::get();
        // SAFETY: `shared` is at most `bytes`, so the sum lies in this part or at its end.
        let closed = unsafe { from.add(shared) };
        // SAFETY: these pages stay inaccessible, so a core file needs none of them.
        unsafe { set_dumped(closed, bytes.wrapping_sub(shared), false) };
        errno::set(errno);
        false
    }

    pub(crate) fn committed(&self) -> usize {
        self.committed
    }

    /// Gives the whole pages of this part back to the system. They stay committed, and become zero.
    fn discard(&mut self) {
        let from = whole_pages(self.start.addr());
        let end = self.start.addr().wrapping_add(self.committed) & whole_pages(1).wrapping_neg();
        let start = self.start.with_addr(from);
        let bytes = end.saturating_sub(from);
        // SAFETY: the pages are committed and contain nothing but this part, which the caller says is not needed.
        errno::unchanged(|| unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) });
    }

    /// Carves off the first `bytes` bytes, which are committed.
    fn carve(&mut self, bytes: usize) -> Self {
        if bytes > self.committed {
            fatal(format_args!("heap broken: R2: a table ends behind its committed part"));
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

    /// Brings free whole pages of the committed region into memory, and changes nothing in them.
    pub(crate) fn populate(&self, pages: Extent) {
        for page in (pages.start.bytes()..pages.end.bytes()).step_by(whole_pages(1)) {
            let byte = self.bytes(page, 1).cast::<u8>();
            unwatched(byte, 1, || {
                // SAFETY: the page lies in the committed region (R1).
                let value = unsafe { byte.read_volatile() };
                // SAFETY: the page lies in the committed region (R1), and nothing else uses free memory.
                unsafe { byte.write_volatile(value) };
            });
        }
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
