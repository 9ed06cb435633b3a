//! A heap in memory that belongs to the caller.

use super::Heap;
use crate::checkers;
use crate::free_list::FreeList;
use crate::pages::Pages;
use crate::region::{CHUNK, GRANULE, Granule, InitError, MAX_REGION, Reservation};
use crate::segment_map::SegmentMap;
use core::ptr::NonNull;

/// The size of a region in lent memory is a multiple of this, in bytes.
const STEP: usize = CHUNK * GRANULE;

impl<L: FreeList> Heap<L> {
    /// Creates a heap in the `bytes` bytes at `start`: region and bookkeeping, and nothing outside.
    ///
    /// It never asks the system for memory and returns none: [`trim`](Self::trim) does nothing. When the heap is
    /// dropped, its owner can use the memory again. The bookkeeping takes 1.6 %, at least 2.7 KiB with
    /// [`Linked`](crate::Linked) and 3.6 KiB with [`Indexed`](crate::Indexed). The region is a multiple of 1 KiB.
    ///
    /// # Errors
    /// The memory has no room for a region and its bookkeeping.
    ///
    /// # Safety
    /// The memory can be read and written, and nothing else uses it while the heap exists.
    ///
    /// ```
    /// use core::ptr::NonNull;
    /// use smalloc::{Heap, Indexed};
    ///
    /// let mut memory = vec![0xAA_u8; 1 << 20];
    /// let start = NonNull::new(memory.as_mut_ptr()).unwrap();
    /// let mut heap = unsafe { Heap::<Indexed>::from_raw_parts(start, memory.len()) }?;
    /// let block = heap.alloc_zeroed(core::alloc::Layout::new::<[u64; 100]>());
    /// assert!(start.as_ptr() <= block && heap.region_size() > 900_000);
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub unsafe fn from_raw_parts(start: NonNull<u8>, bytes: usize) -> Result<Self, InitError> {
        let refused = InitError { region_size: bytes, errno: 0, base: None };
        // SAFETY: the caller's promise.
        let reservation = unsafe { Reservation::lent(start, bytes) }.ok_or(refused)?;
        let room = reservation.bytes().min(MAX_REGION);
        let size = room.saturating_sub(Self::tables(room)) / STEP * STEP;
        if size == 0 {
            return Err(refused);
        }
        reservation.clear(size);
        let mut heap = Self::UNMAPPED;
        heap.attach(&reservation, size);
        // All of the memory may be dirty, and all of it may be marked, so the whole bitmap is committed.
        heap.tiling.touched = Granule(size / GRANULE);
        if !heap.tiling.pages.commit(heap.tiling.touched) {
            return Err(refused);
        }
        heap.purge_policy.disable();
        checkers::opened(heap.tiling.ground.region.pointer(Granule(0)), size);
        heap.reservation = reservation;
        Ok(heap)
    }

    /// Bytes of all tables for a region of `size` bytes.
    pub(super) fn tables(size: usize) -> usize {
        let chunks = (size / GRANULE).div_ceil(CHUNK);
        let pages = Pages::bytes(size).saturating_add(Pages::far_bytes(size));
        let map = SegmentMap::bytes(chunks).into_iter().fold(0, usize::saturating_add);
        map.saturating_add(L::bytes(chunks)).saturating_add(pages).saturating_add(Self::cold_bytes())
    }
}
