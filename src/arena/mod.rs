//! Arenas: the calls of a [`Heap`] of one's own, and ways to share one.

mod cell;
mod guard;
#[cfg(any(feature = "allocator-api2", feature = "allocator-api2-04", feature = "nightly"))]
mod handle;
mod lock;

pub use cell::HeapCell;
pub use guard::HeapGuard;
#[cfg(any(feature = "allocator-api2", feature = "allocator-api2-04", feature = "nightly"))]
pub use handle::{HeapArc, HeapRc};
pub use lock::HeapLock;

use crate::calls::{self, Own};
use crate::free_list::{Fit, FreeList};
use crate::heap::{Heap, MallocStatus, Purge, map_side_by_side};
use crate::region::InitError;
use crate::system::errno;
use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;

impl<L: FreeList> Heap<L> {
    /// Maps a heap whose region has `bytes` bytes, rounded up to whole pages: 64 KiB to 64 GiB less 2 MiB.
    ///
    /// If the reservation fails, it is retried with half the size until it fits; [`region_size`](Self::region_size) is
    /// the result.
    ///
    /// # Errors
    /// The system refused even the smallest region.
    pub fn with_region_size(bytes: usize) -> Result<Self, InitError> {
        let mut heap = Self::UNMAPPED;
        errno::unchanged(|| map_side_by_side(&mut [&mut heap], bytes.max(1), 0, None))?;
        Ok(heap)
    }

    /// [`with_region_size`](Self::with_region_size) at an address, a multiple of 2 MiB: the same calls then return the
    /// same addresses in every run. See [`SmallocGlobal::at_base`](crate::SmallocGlobal::at_base) for the choice of it.
    ///
    /// # Errors
    /// Another mapping is in the way (`EEXIST`), the address is no such multiple (`EINVAL`), or the system refused even
    /// the smallest region.
    ///
    /// ```
    /// use smalloc::{Heap, Indexed};
    ///
    /// let heap = Heap::<Indexed>::at_base(0x2000_0000_0000, 1 << 20)?;
    /// assert_eq!(heap.base().addr(), 0x2000_0000_0000);
    /// let error = Heap::<Indexed>::at_base(0x2000_0000_0000, 1 << 20).unwrap_err();
    /// assert_eq!((error.errno, error.base), (17, Some(0x2000_0000_0000)));
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub fn at_base(address: usize, bytes: usize) -> Result<Self, InitError> {
        let mut heap = Self::UNMAPPED;
        errno::unchanged(|| map_side_by_side(&mut [&mut heap], bytes.max(1), 0, Some(address)))?;
        Ok(heap)
    }

    /// Allocates first fit. Returns the payload with its offset and the cost of the search; `None` and a failure status
    /// if nothing fits.
    ///
    /// The payload has the layout's alignment, and at least 16 bytes. A request of 0 bytes takes 16.
    pub fn smalloc(&mut self, layout: Layout) -> (Option<NonNull<u8>>, MallocStatus) {
        let outcome = Cell::new(Fit::NONE);
        let payload = calls::alloc::<_, _, false>(Own::new(self, &outcome), layout);
        (NonNull::new(payload), outcome.get().into())
    }

    /// Frees a payload of any size and coalesces it with its free neighbours.
    ///
    /// A pointer that is not a payload in use writes one line to standard error and aborts.
    ///
    /// # Safety
    /// Nothing uses the payload any more.
    pub unsafe fn sfree(&mut self, payload: NonNull<u8>) {
        calls::free(Own::new(self, ()), payload.as_ptr(), None);
    }

    /// Allocates first fit; null if nothing fits.
    #[inline]
    pub fn alloc(&mut self, layout: Layout) -> *mut u8 {
        calls::alloc::<_, _, false>(Own::new(self, ()), layout)
    }

    /// Allocates zeroed memory; null if nothing fits. Pages known to be zero, because they were never used or have been
    /// purged, are not touched.
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
        calls::free(Own::new(self, ()), payload, Some(layout));
    }

    /// Resizes a payload to `new_size` bytes, in place if the memory behind it allows, otherwise by moving it. Returns
    /// null and changes nothing if nothing fits.
    ///
    /// # Safety
    /// As for [`dealloc`](Self::dealloc); and `new_size`, rounded up to the layout's alignment, does not exceed
    /// `isize::MAX`.
    pub unsafe fn realloc(&mut self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: guaranteed by the caller.
        unsafe { calls::realloc(Own::new(self, ()), payload, Some(layout), new_size) }
    }

    /// [`realloc`](Self::realloc) that also returns the payload's offset and the hops of the search, 0 in place.
    ///
    /// # Safety
    /// As for [`realloc`](Self::realloc).
    pub unsafe fn realloc_with_status(
        &mut self,
        payload: NonNull<u8>,
        layout: Layout,
        new_size: usize,
    ) -> (Option<NonNull<u8>>, MallocStatus) {
        let outcome = Cell::new(Fit::NONE);
        let held = Own::new(self, &outcome);
        // SAFETY: guaranteed by the caller.
        let moved = unsafe { calls::realloc(held, payload.as_ptr(), Some(layout), new_size) };
        (NonNull::new(moved), outcome.get().into())
    }

    /// Resizes a payload to `new_size` bytes without its layout. `None` if nothing fits, and nothing has changed.
    ///
    /// The first [`usable_size`](Self::usable_size) bytes are preserved, or `new_size` if that is less. A payload that
    /// moves is aligned to 16 bytes. A pointer that is not a payload in use writes one line to standard error and
    /// aborts.
    ///
    /// # Safety
    /// Nothing uses the payload any more if it has moved; and `new_size` is at most `isize::MAX - 15`.
    pub unsafe fn srealloc(&mut self, payload: NonNull<u8>, new_size: usize) -> Option<NonNull<u8>> {
        // SAFETY: guaranteed by the caller.
        NonNull::new(unsafe { calls::realloc(Own::new(self, ()), payload.as_ptr(), None, new_size) })
    }

    /// [`realloc`](Self::realloc) that zeroes the bytes by which the payload grows. Pages known to be zero are not
    /// touched. A payload that moves counts as allocated and freed.
    ///
    /// # Safety
    /// As for [`realloc`](Self::realloc).
    pub unsafe fn realloc_zeroed(&mut self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if calls::resize_zeroed(Own::new(self, ()), payload, layout, new_size) {
            return payload;
        }
        let alloc = |heap: &mut &mut Self, layout| heap.alloc_zeroed(layout);
        // SAFETY: guaranteed by the caller.
        let free = |heap: &mut &mut Self, payload, layout| unsafe { heap.dealloc(payload, layout) };
        // SAFETY: guaranteed by the caller; `alloc` returns a payload of the layout that it was given.
        unsafe { calls::move_by(self, payload, layout, new_size, alloc, free) }
    }

    /// Purges all free memory and returns the number of those bytes.
    ///
    /// These are the whole pages of free segments that have been in use since they were last purged; they read as zero
    /// afterwards. Pages that the system refuses, because the program has locked them, stay. Without this call the heap
    /// purges on its own, later and less aggressively.
    pub fn trim(&mut self) -> usize {
        calls::purge(Own::new(self, ()), Purge::ALL).1
    }
}

/// An arena that can be borrowed for a call.
#[cfg(any(feature = "allocator-api2", feature = "allocator-api2-04", feature = "nightly"))]
pub(crate) trait Lend {
    type List: FreeList;

    /// Runs `work` with the heap; ends the process if it is borrowed.
    fn with<R>(&self, work: impl FnOnce(&mut Heap<Self::List>) -> R) -> R;

    /// Runs `work` with the heap; `None` if it is borrowed.
    fn try_with<R>(&self, work: impl FnOnce(&mut Heap<Self::List>) -> R) -> Option<R>;
}
