//! Moving a large payload together with its pages.
//!
//! The system moves whole pages to where pages begin, and a payload may begin anywhere in a page. So its pages go to the
//! next page above their place, and from there its bytes go down by less than a page, inside of the new segment:
//!
//! ```text
//!  old segment           |  head  |      page      |      page      | tail |
//!  new: pages moved   |              |      page      |      page      |           |
//!  new: bytes moved   |  head  |      page      |      page      | tail |          |
//! ```
//!
//! The pages of a payload may lie in several mappings, and the system moves out of one at a time: these are the parts.
//! What lies between them, or is refused, is copied. Invariants:
//!
//! - **X1** From the making of a transfer until it has been carried out, the old and the new segment are in use and one
//!   thread's: nobody else reads or writes them, moves their pages, or gives them back to the system.
//! - **X2** Each part is whole pages of the old segment; `shift` above it are whole pages of the new one.
//! - **X3** `shift` is what the payload moves by, and less than a page more.
//! - **X4** Parts are in ascending order and do not overlap. They are dealt with in that order, so what lies below a part
//!   is in its place by then. That place ends below where the part's pages go: they are less than a page above their own.

use super::{Extent, Granule, Region};
use crate::system::errno;
use crate::system::fatal::fatal;
use core::ptr;

/// Parts of a payload at most.
const MOST_PARTS: usize = 32;
/// Each part is more than one in so many of the payload's bytes. A payload that grows by doubling has seven then, however
/// large it is.
const SMALLEST_PART: usize = 128;

/// How a payload gets from one place to another.
pub(crate) struct Transfer {
    base: *mut u8,
    /// Where its bytes are, and where they go, as offsets.
    from: usize,
    to: usize,
    bytes: usize,
    /// Its whole pages.
    pages: Extent,
    /// By how many granules parts go up; a number that wraps if they go down.
    shift: usize,
    /// In granules.
    parts: [(u32, u32); MOST_PARTS],
    count: usize,
}

impl Transfer {
    /// The `bytes` bytes at `from` go to `to`. They are copied, but for the parts that are [pushed](Self::push).
    pub(crate) fn of(region: &Region, from: Granule, to: Granule, bytes: usize) -> Self {
        Self {
            base: region.base,
            from: from.bytes(),
            to: to.bytes(),
            bytes,
            pages: Extent::EMPTY,
            shift: 0,
            parts: [(0, 0); MOST_PARTS],
            count: 0,
        }
    }

    /// The payload's whole pages are `pages`, and those of its parts go up by `shift` granules (X2, X3).
    pub(crate) fn lie_in(&mut self, pages: Extent, shift: usize) {
        self.pages = pages;
        self.shift = shift;
    }

    /// Adds a part, which lies in one mapping (X2), above all others (X4). Where it is too small, or there are too many, it
    /// is copied instead.
    pub(crate) fn push(&mut self, part: Extent) {
        if part.bytes() > self.bytes / SMALLEST_PART
            && let Some(place) = self.parts.get_mut(self.count)
        {
            // Numbers fit, as regions do.
            *place = (part.start.0 as u32, part.end.0 as u32);
            self.count = self.count.wrapping_add(1);
        }
    }

    /// There are no parts.
    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    /// The parts.
    pub(crate) fn parts(&self) -> impl Iterator<Item = Extent> {
        let parts = self.parts.iter().take(self.count);
        parts.map(|&(from, to)| Extent::new(Granule(from as usize), Granule(to as usize)))
    }

    /// Where the parts' pages go.
    pub(crate) fn new_parts(&self) -> impl Iterator<Item = Extent> {
        self.parts().map(|part| Extent::new(part.start.up(self.shift), part.end.up(self.shift)))
    }

    /// The payload's whole pages.
    pub(crate) fn pages(&self) -> Extent {
        self.pages
    }

    /// Moves the payload. True where all parts went by their pages, and there are some. Then all [pages](Self::pages) of
    /// the old place are zero and belong to the mapping around them.
    ///
    /// # Safety
    /// X1.
    pub(crate) unsafe fn carry_out(&self) -> bool {
        let (mut done, mut next) = (self.count > 0, self.from);
        errno::unchanged(|| {
            for part in self.parts() {
                // SAFETY: X1; these bytes lie below the part and above the one before (X4).
                unsafe { self.copy(next, part.start.bytes()) };
                // SAFETY: X1, and what is below is in its place.
                done &= unsafe { self.move_part(part) };
                next = part.end.bytes();
            }
            // SAFETY: X1; this is what lies above all parts.
            unsafe { self.copy(next, self.from.wrapping_add(self.bytes)) };
            // SAFETY: the payload has left these pages, which are whole and this thread's (X1).
            done && unsafe { map_anew(self.address(self.pages.start.bytes()), self.pages.bytes()) }
        })
    }

    /// The address at an offset into the region.
    fn address(&self, offset: usize) -> *mut u8 {
        // SAFETY: offsets are those of the old and the new segment, which lie in the region (R1).
        unsafe { self.base.add(offset) }
    }

    /// Where the byte at an offset into the region, one of the payload, goes.
    fn place(&self, offset: usize) -> *mut u8 {
        self.address(offset.wrapping_sub(self.from).wrapping_add(self.to))
    }

    /// Copies the bytes `from..to` of the payload to their place.
    ///
    /// # Safety
    /// X1.
    unsafe fn copy(&self, from: usize, to: usize) {
        // SAFETY: both segments are this thread's (X1) and have these bytes. Two segments in use do not overlap.
        unsafe { self.place(from).copy_from_nonoverlapping(self.address(from), to.wrapping_sub(from)) };
    }

    /// Moves a part. False where it was copied.
    ///
    /// # Safety
    /// X1, and all of the payload that is below is in its place (X4).
    unsafe fn move_part(&self, part: Extent) -> bool {
        let (from, bytes) = (part.start, part.bytes());
        let (old, new) = (self.address(from.bytes()), self.address(from.up(self.shift).bytes()));
        // SAFETY: X2: whole pages of this thread, old ones and new ones; nothing of the payload is in the new ones (X4).
        let moved = unsafe { move_pages(old, new, bytes) };
        let place = self.place(from.bytes());
        if !moved {
            // SAFETY: X1.
            unsafe { self.copy(from.bytes(), part.end.bytes()) };
        } else if new != place {
            // SAFETY: the bytes go down by less than a page (X3), within the new segment, to above what is in its place
            // (X4).
            unsafe { place.copy_from(new, bytes) };
        }
        moved
    }
}

/// Moves pages with what they hold. The old place stays mapped, and is zero. False, and nothing has changed, where the
/// system refuses: where the old pages are not in one mapping, where the process has too many mappings or addresses,
/// or where it does not know how.
///
/// The first step is to a place of the system's choice. It may be refused, but takes nothing away. The second takes away
/// what was mapped at the new place, so all that could be wrong with the old pages has been seen before.
///
/// # Safety
/// Both are whole pages in the region and this thread's, and nothing is needed of what the new ones hold.
unsafe fn move_pages(old: *mut u8, new: *mut u8, bytes: usize) -> bool {
    let (leaving, arriving) = (libc::MREMAP_DONTUNMAP, libc::MREMAP_FIXED);
    let anywhere = ptr::null_mut::<libc::c_void>();
    // Locked memory stays locked: the first step would unlock all of the mapping that the old pages are in.
    // SAFETY: nothing is needed of what the new pages hold.
    if unsafe { libc::madvise(new.cast(), bytes, libc::MADV_DONTNEED) } != 0 {
        return false;
    }
    // SAFETY: the pages are this thread's, and stay mapped. Nothing that exists is replaced.
    let way = unsafe { libc::mremap(old.cast(), bytes, bytes, libc::MREMAP_MAYMOVE | leaving, anywhere) };
    if way == libc::MAP_FAILED {
        return false;
    }
    let new = new.cast::<libc::c_void>();
    // SAFETY: nobody knows of the pages on their way; those at the new place are this thread's and not needed.
    let arrived = unsafe { libc::mremap(way, bytes, bytes, libc::MREMAP_MAYMOVE | arriving, new) };
    if arrived == libc::MAP_FAILED {
        // SAFETY: as above.
        unsafe { copy_from_way(way.cast(), new.cast(), bytes) };
    }
    true
}

/// Where the system refused the second step: mostly before it took the new place's pages away, but it may lack memory for
/// its own books just then.
///
/// # Safety
/// The bytes at `way` are a mapping that nothing else refers to; those at `new` are as for [`move_pages`].
#[cold]
unsafe fn copy_from_way(way: *mut u8, new: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { put_back(new, bytes) };
    // SAFETY: the caller's promise; the new place is mapped.
    unsafe { new.copy_from_nonoverlapping(way, bytes) };
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(way.cast(), bytes) };
}

/// Replaces pages by empty ones that belong to the mapping around them. Pages keep the numbers that they had in the
/// mapping where they were first written to; so what was moved is a mapping of its own until this is done. False where
/// the system refuses.
///
/// # Safety
/// They are whole pages, open, of the region, nobody touches them meanwhile, and nothing is needed of what they hold.
pub(super) unsafe fn map_anew(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: the caller's promise.
    let mapped = unsafe { open_at(start, bytes, libc::MAP_FIXED) };
    if !mapped {
        // SAFETY: the caller's promise.
        unsafe { put_back(start, bytes) };
    }
    mapped
}

/// Maps pages of the region that the system has taken away when it refused to replace them, if it has. Without them
/// the region would not be one (R1), so the process ends where that is refused, too.
///
/// # Safety
/// They are whole pages of the region and this thread's.
#[cold]
unsafe fn put_back(start: *mut u8, bytes: usize) {
    // SAFETY: the advice changes nothing. It is refused where not all is mapped.
    let mapped = unsafe { libc::madvise(start.cast(), bytes, libc::MADV_NORMAL) } == 0;
    // SAFETY: replaces nothing that is mapped.
    if !mapped && !unsafe { open_at(start, bytes, libc::MAP_FIXED_NOREPLACE) } {
        fatal(format_args!("the system took {bytes} bytes at {start:p} away and does not give them back"));
    }
}

/// Maps empty pages that can be read and written.
///
/// # Safety
/// Nothing is needed of what is mapped there, if the flag lets it be replaced.
unsafe fn open_at(start: *mut u8, bytes: usize, flag: libc::c_int) -> bool {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | flag;
    // SAFETY: the caller's promise.
    let there = unsafe { libc::mmap(start.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    there == start.cast()
}

#[cfg(test)]
#[path = "../../tests/unit/region/transfer.rs"]
mod tests;
