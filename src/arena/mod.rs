//! An arena of one thread: what a program calls on a [`Heap`] of its own.

mod cell;
mod lock;

pub use cell::HeapCell;
pub use lock::{HeapGuard, HeapLock};

use crate::calls::{self, Own};
use crate::free_list::{Fit, FreeList};
use crate::heap::{Heap, MallocStatus, Purge, map_side_by_side};
use crate::region::InitError;
use crate::system::errno;
use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;

impl<L: FreeList> Heap<L> {
    /// Maps a heap whose region has `bytes` bytes, rounded up to whole pages: at least 64 KiB, at most 64 GiB less
    /// 2 MiB.
    ///
    /// If the address space for it is refused, half of it is tried, and so on: see [`region_size`](Self::region_size).
    ///
    /// # Errors
    /// The system refused even the smallest region.
    pub fn with_region_size(bytes: usize) -> Result<Self, InitError> {
        let mut heap = Self::UNMAPPED;
        errno::unchanged(|| map_side_by_side(&mut [&mut heap], bytes.max(1), 0))?;
        Ok(heap)
    }

    /// Allocates first fit. None, and a status that says so, when nothing fits.
    ///
    /// The payload is aligned as the layout asks, and to 16 bytes at least; a request of 0 bytes gets 16.
    pub fn smalloc(&mut self, layout: Layout) -> (Option<NonNull<u8>>, MallocStatus) {
        let outcome = Cell::new(Fit::NONE);
        let payload = calls::alloc::<_, _, false>(Own::new(self, &outcome), layout);
        (NonNull::new(payload), outcome.get().into())
    }

    /// Frees a segment and joins it with its free neighbours.
    ///
    /// Anything but a payload in use writes one line to standard error and aborts.
    ///
    /// # Safety
    /// Nothing uses the payload any more.
    pub unsafe fn sfree(&mut self, payload: NonNull<u8>) {
        calls::free_slow(Own::new(self, ()), payload.as_ptr(), None);
    }

    /// Allocates first fit; null when nothing fits.
    #[inline]
    pub fn alloc(&mut self, layout: Layout) -> *mut u8 {
        calls::alloc::<_, _, false>(Own::new(self, ()), layout)
    }

    /// Allocates zeroed memory; null when nothing fits. Pages that are known to be zero, because they were never used or
    /// were given back to the system, are not touched.
    pub fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        calls::alloc::<_, _, true>(Own::new(self, ()), layout)
    }

    /// Frees a payload.
    ///
    /// Misuse (a double free, an interior, unaligned or foreign pointer, a layout that does not match the segment)
    /// writes one line to standard error and aborts.
    ///
    /// # Safety
    /// Nothing uses the payload any more, and it was allocated from this heap with this layout.
    #[inline]
    pub unsafe fn dealloc(&mut self, payload: *mut u8, layout: Layout) {
        calls::free(Own::new(self, ()), payload, layout);
    }

    /// Makes a payload `new_size` bytes large, in place if what is behind it allows, else by copying; null, and
    /// nothing has changed, when nothing fits.
    ///
    /// # Safety
    /// As for [`dealloc`](Self::dealloc); and `new_size`, rounded up to the layout's alignment, does not exceed
    /// `isize::MAX`.
    pub unsafe fn realloc(&mut self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { calls::realloc(Own::new(self, ()), payload, layout, new_size) }
    }

    /// The same as [`realloc`](Self::realloc), and says where and at what cost; in place, that is no hop.
    ///
    /// # Safety
    /// As for [`realloc`](Self::realloc).
    pub unsafe fn srealloc(
        &mut self,
        payload: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> (Option<NonNull<u8>>, MallocStatus) {
        let outcome = Cell::new(Fit::NONE);
        // SAFETY: the caller's promise.
        let moved = unsafe { calls::realloc(Own::new(self, &outcome), payload.as_ptr(), layout, new_size) };
        (NonNull::new(moved), outcome.get().into())
    }

    /// As [`realloc`](Self::realloc), and what the payload grows by is zero. Pages that are known to be zero are not
    /// touched. A payload that moves counts as allocated and freed.
    ///
    /// # Safety
    /// As for [`realloc`](Self::realloc).
    pub unsafe fn realloc_zeroed(&mut self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if calls::resize_zeroed(Own::new(self, ()), payload, layout, new_size) {
            return payload;
        }
        let alloc = |heap: &mut &mut Self, layout| heap.alloc_zeroed(layout);
        // SAFETY: the caller's promise.
        let free = |heap: &mut &mut Self, payload, layout| unsafe { heap.dealloc(payload, layout) };
        // SAFETY: the caller's promise; what is allocated has the layout that it was asked for.
        unsafe { calls::move_by(self, payload, layout, new_size, alloc, free) }
    }

    /// Gives everything back to the system that is free, and returns how many bytes.
    ///
    /// These are all whole pages of free segments that have been in use since they were last given back. They are zero
    /// then. Pages that the system refuses, because the program has locked them, stay. Without this call the heap does the
    /// same by itself, later and less aggressively.
    pub fn trim(&mut self) -> usize {
        calls::purge(Own::new(self, ()), Purge::ALL)
    }
}

/// An arena that is lent for the time of a call.
#[cfg(any(feature = "allocator-api2", feature = "nightly"))]
pub(crate) trait Lend {
    type List: FreeList;

    /// Does `work` with the heap; ends the process where that cannot be.
    fn with<R>(&self, work: impl FnOnce(&mut Heap<Self::List>) -> R) -> R;

    /// The same; none where that cannot be.
    fn try_with<R>(&self, work: impl FnOnce(&mut Heap<Self::List>) -> R) -> Option<R>;
}
