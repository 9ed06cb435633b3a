//! Moving a large payload together with its pages.
//!
//! `mremap` moves whole pages to page boundaries, but first fit may place a payload anywhere in a page. So the
//! payload's whole pages move to the next page boundary above their target, and the bytes are then shifted down by less
//! than a page, inside the new segment:
//!
//! ```text
//!  old segment           |  head  |      page      |      page      | tail |
//!  new: pages moved   |              |      page      |      page      |           |
//!  new: bytes moved   |  head  |      page      |      page      | tail |          |
//! ```
//!
//! The pages of a payload may lie in several mappings, and `mremap` moves out of one mapping at a time. The pages that
//! one call moves are a part. Bytes between the parts, and parts that the system refuses to move, are copied.
//! Invariants:
//!
//! - **X1** From the creation of a transfer until it has been carried out, the old and the new segment are in use and
//!   belong to one thread: no other thread reads or writes them, moves their pages, or purges them.
//! - **X2** A part is whole pages of the old segment; the pages `shift` granules above are whole pages of the new one.
//! - **X3** `shift` is the distance by which the payload moves, plus less than a page.
//! - **X4** Parts ascend, do not overlap, and are handled in that order. So all bytes below a part are in their new
//!   place, below the pages that the part moves to: those are at or above the part's own place.

use super::remap::{remap, restore_mapping};
use super::{Extent, Granule, Region};
use crate::system::call;
use crate::system::errno;
use core::ptr;

/// The largest number of parts: their list takes 256 bytes of stack.
const MAX_PARTS: usize = 32;
/// A part is larger than 1/128 of the payload: a payload that grows by doubling has seven parts, however large it is.
const PART_DIVISOR: usize = 128;

/// The plan for moving one payload.
pub(crate) struct Transfer {
    base: *mut u8,
    /// The offsets of its bytes, before and after, in bytes from the base.
    from: usize,
    to: usize,
    bytes: usize,
    /// The payload's whole pages.
    pages: Extent,
    /// The distance by which parts move up, in granules; wraps if they move down.
    shift: usize,
    /// The bounds of the parts, in granules.
    parts: [(u32, u32); MAX_PARTS],
    count: usize,
}

impl Transfer {
    /// The transfer of `bytes` bytes from `from` to `to`. All are copied, except parts that are [pushed](Self::push).
    pub(crate) fn of(region: &Region, from: Granule, to: Granule, bytes: usize) -> Self {
        Self {
            base: region.base,
            from: from.bytes(),
            to: to.bytes(),
            bytes,
            pages: Extent::EMPTY,
            shift: 0,
            parts: [(0, 0); MAX_PARTS],
            count: 0,
        }
    }

    /// Sets the payload's whole pages, and the distance in granules by which its parts move up (X2, X3).
    pub(crate) fn set_pages(&mut self, pages: Extent, shift: usize) {
        self.pages = pages;
        self.shift = shift;
    }

    /// Adds a part in one mapping (X2), above all others (X4). A small part, or one too many, will be copied instead.
    pub(crate) fn push(&mut self, part: Extent) {
        if part.bytes() > self.bytes / PART_DIVISOR
            && let Some(place) = self.parts.get_mut(self.count)
        {
            // The numbers fit in 32 bits, since regions are small enough.
            *place = (part.start.0 as u32, part.end.0 as u32);
            self.count = self.count.wrapping_add(1);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = Extent> {
        let parts = self.parts.iter().take(self.count);
        parts.map(|&(from, to)| Extent::new(Granule(from as usize), Granule(to as usize)))
    }

    /// The pages that the parts move to.
    pub(crate) fn new_parts(&self) -> impl Iterator<Item = Extent> {
        self.parts().map(|part| Extent::new(part.start.up(self.shift), part.end.up(self.shift)))
    }

    /// The payload's whole pages.
    pub(crate) fn pages(&self) -> Extent {
        self.pages
    }

    /// Moves the payload. True if there are parts and all of them were moved by their pages. Then all
    /// [pages](Self::pages) of the old place are zero and belong to the mapping around them.
    ///
    /// # Safety
    /// X1.
    pub(crate) unsafe fn carry_out(&self) -> bool {
        let (mut done, mut next) = (self.count > 0, self.from);
        errno::unchanged(|| {
            for part in self.parts() {
                // SAFETY: X1; these bytes are below the part and above the one before (X4).
                unsafe { self.copy(next, part.start.bytes()) };
                // SAFETY: X1; all bytes below are in place.
                done &= unsafe { self.move_part(part) };
                next = part.end.bytes();
            }
            // SAFETY: X1; these bytes are above all parts.
            unsafe { self.copy(next, self.from.wrapping_add(self.bytes)) };
            // SAFETY: the payload has left these whole pages, which belong to this thread (X1).
            done && unsafe { remap(self.address(self.pages.start.bytes()), self.pages.bytes()) }
        })
    }

    /// The address at an offset into the region.
    fn address(&self, offset: usize) -> *mut u8 {
        // SAFETY: offsets lie in the old or the new segment, which are in the region (R1).
        unsafe { self.base.add(offset) }
    }

    /// The new address of the payload's byte at an offset into the region.
    fn place(&self, offset: usize) -> *mut u8 {
        self.address(offset.wrapping_sub(self.from).wrapping_add(self.to))
    }

    /// Copies the payload's bytes `from..to` to their new place.
    ///
    /// # Safety
    /// X1.
    unsafe fn copy(&self, from: usize, to: usize) {
        // SAFETY: both segments belong to this thread (X1) and have these bytes. Segments in use do not overlap.
        unsafe { self.place(from).copy_from_nonoverlapping(self.address(from), to.wrapping_sub(from)) };
    }

    /// Moves a part. False if its bytes were copied.
    ///
    /// # Safety
    /// X1, and all bytes of the payload below the part are in place (X4).
    unsafe fn move_part(&self, part: Extent) -> bool {
        let (from, bytes) = (part.start, part.bytes());
        let (old, new) = (self.address(from.bytes()), self.address(from.up(self.shift).bytes()));
        // SAFETY: X2: these are whole pages of this thread, and no byte of the payload is in the new ones yet (X4).
        let moved = unsafe { move_pages(old, new, bytes) };
        let place = self.place(from.bytes());
        if !moved {
            // SAFETY: X1.
            unsafe { self.copy(from.bytes(), part.end.bytes()) };
        } else if new != place {
            // SAFETY: the bytes move down by less than a page (X3), inside the new segment, above those in place (X4).
            unsafe { place.copy_from(new, bytes) };
        }
        moved
    }
}

/// Moves pages with their contents. The old place stays mapped and becomes zero. False, and nothing has changed, if the
/// system refuses: a page is locked in memory, the old pages are not in one mapping, the process has too many mappings
/// or addresses, or the kernel has no `MREMAP_DONTUNMAP`.
///
/// The first step moves the pages to an address that the kernel chooses. It may fail, but destroys nothing. The second
/// step unmaps the new place, so every problem with the old pages must show up before it.
///
/// # Safety
/// `old` and `new` are whole pages of the region and belong to this thread. The contents of `new` are not needed.
unsafe fn move_pages(old: *mut u8, new: *mut u8, bytes: usize) -> bool {
    let (keep_mapped, replace) = (libc::MREMAP_DONTUNMAP, libc::MREMAP_FIXED);
    let anywhere = ptr::null_mut::<libc::c_void>();
    // The first step would unlock the whole old mapping: also what lies beside these pages, and locked memory never
    // becomes less by that in the system's accounts. A mapping is locked as a whole or not at all.
    if call::is_locked(old, bytes) {
        return false;
    }
    // Fails if the new place is locked; the pages would lose that lock.
    // SAFETY: the contents of the new pages are not needed.
    if unsafe { libc::madvise(new.cast(), bytes, libc::MADV_DONTNEED) } != 0 {
        return false;
    }
    // SAFETY: the pages belong to this thread and stay mapped; no mapping is replaced.
    let transit =
        unsafe { libc::mremap(old.cast(), bytes, bytes, libc::MREMAP_MAYMOVE | keep_mapped, anywhere) };
    if transit == libc::MAP_FAILED {
        return false;
    }
    let new = new.cast::<libc::c_void>();
    // SAFETY: nothing refers to the pages in transit; those at the new place belong to this thread and are not needed.
    let arrived = unsafe { libc::mremap(transit, bytes, bytes, libc::MREMAP_MAYMOVE | replace, new) };
    if arrived == libc::MAP_FAILED {
        // SAFETY: nothing refers to the pages in transit, nor to those at the new place.
        unsafe { copy_from_transit(transit.cast(), new.cast(), bytes) };
    }
    true
}

/// Copies the pages after the second step has failed, which may leave the new place unmapped.
///
/// # Safety
/// Nothing else refers to the mapping at `transit`. `new` is as for [`move_pages`].
#[cold]
unsafe fn copy_from_transit(transit: *mut u8, new: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { restore_mapping(new, bytes) };
    // SAFETY: the caller's promise; the new place is mapped again.
    unsafe { new.copy_from_nonoverlapping(transit, bytes) };
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(transit.cast(), bytes) };
}

#[cfg(test)]
#[path = "../../tests/unit/region/transfer.rs"]
mod tests;
