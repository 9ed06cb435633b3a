//! What a program calls on a [`Heap`] of its own.

use super::Heap;
use super::transfer::LEAST_TRANSFER;
use crate::checkers;
use crate::debugger::Parts;
use crate::free_list::{Fit, FreeList};
use crate::inspect::{Failure, Segment, SegmentBuffer, Snapshot, SnapshotError};
use crate::region::{GRANULE, Granule, InitError};
use crate::system::errno;
use core::alloc::Layout;
use core::ptr::{self, NonNull};

/// What came of a request, and what it cost.
///
/// ```
/// use core::alloc::Layout;
/// let mut heap = smalloc::Heap::<smalloc::Linked>::with_region_size(1 << 16)?;
/// let (_, status) = heap.smalloc(Layout::new::<u64>());
/// assert!(status.success);
/// assert_eq!((status.payload_offset, status.hops), (Some(0), 0));
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct MallocStatus {
    /// Whether there was a place.
    pub success: bool,
    /// Where the payload begins, in bytes from the region's base.
    pub payload_offset: Option<usize>,
    /// The number of that region; 0 where there is only one. Where nothing fits, the last one that was asked.
    pub region: usize,
    /// What the search looked at beyond the first: `stepped + probes`.
    ///
    /// With [`Linked`](crate::Linked) these are exactly the free segments in front of the one that was taken, 0 when the
    /// head fits. With [`Indexed`](crate::Indexed) they are what was really looked at.
    pub hops: usize,
    /// Free segments that were stepped over.
    pub stepped: usize,
    /// Nodes of the index that were looked at; always 0 with [`Linked`](crate::Linked).
    pub probes: usize,
}

impl From<Fit> for MallocStatus {
    fn from(fit: Fit) -> Self {
        Self {
            success: fit.start().is_some(),
            payload_offset: fit.start().map(Granule::bytes),
            region: 0,
            hops: fit.hops(),
            stepped: fit.stepped(),
            probes: fit.probes(),
        }
    }
}

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
        errno::unchanged(|| super::map_side_by_side(&mut [&mut heap], bytes.max(1), 0))?;
        Ok(heap)
    }

    /// Allocates first fit. None, and a status that says so, when nothing fits.
    ///
    /// The payload is aligned as the layout asks, and to 16 bytes at least; a request of 0 bytes gets 16.
    pub fn smalloc(&mut self, layout: Layout) -> (Option<NonNull<u8>>, MallocStatus) {
        let placement = self.place(layout.size(), layout.align());
        let payload = placement.start().map(|at| self.region().pointer(at));
        if let Some(payload) = payload {
            checkers::given(payload, layout.size());
        }
        (payload, placement.into())
    }

    /// Frees a segment and joins it with its free neighbours.
    ///
    /// Anything but a payload in use writes one line to standard error and aborts.
    ///
    /// # Safety
    /// Nothing uses the payload any more.
    pub unsafe fn sfree(&mut self, payload: NonNull<u8>) {
        let (at, n) = self.segment_at(payload.as_ptr(), None);
        checkers::back(payload.as_ptr(), Granule(n).bytes());
        self.give_back(at, n);
        self.purge_if_due();
    }

    /// Allocates first fit; null when nothing fits.
    #[inline]
    pub fn alloc(&mut self, layout: Layout) -> *mut u8 {
        match self.place(layout.size(), layout.align()).start() {
            Some(at) => checkers::given(self.region().pointer(at), layout.size()),
            None => ptr::null_mut(),
        }
    }

    /// Allocates zeroed memory; null when nothing fits. Pages that are known to be zero, because they were never used or
    /// were given back to the system, are not touched.
    pub fn alloc_zeroed(&mut self, layout: Layout) -> *mut u8 {
        let Some(at) = self.place_zeroed(layout.size(), layout.align()).start() else {
            return ptr::null_mut();
        };
        let payload = self.region().pointer(at);
        checkers::given_zeroed(payload, layout.size());
        self.clear(at, layout.size());
        payload.as_ptr()
    }

    /// Clears what may not be zero of the `size` bytes at `at`, which were just placed.
    fn clear(&mut self, at: Granule, size: usize) {
        let mut from = at;
        while let Some((unknown, next)) = self.next_unknown(at, size, from) {
            // SAFETY: these bytes belong to a payload that nobody has been given yet.
            unsafe { unknown.cast::<u8>().write_bytes(0, unknown.len()) };
            from = next;
        }
    }

    /// As [`realloc`](Self::realloc), and what the payload grows by is zero. Pages that are known to be zero are not
    /// touched. A payload that moves counts as allocated and freed.
    ///
    /// # Safety
    /// As for [`realloc`](Self::realloc).
    pub unsafe fn realloc_zeroed(&mut self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let old_size = layout.size();
        let (at, n) = self.segment_of(payload, layout);
        let before = self.wilderness();
        if self.resize(at, n, new_size) {
            checkers::resized(payload, old_size, new_size);
            let rest = self.soil_grown(before, (at, n), old_size, new_size);
            // SAFETY: these bytes belong to the payload and were not part of it before.
            unsafe { rest.cast::<u8>().write_bytes(0, rest.len()) };
            let grown = new_size.saturating_sub(Granule(n).bytes());
            if grown > 0 {
                checkers::zeroed(self.ground.region.bytes(at.up(n).bytes(), grown));
                self.clear(at.up(n), grown);
            }
            self.purge_if_due();
            return payload;
        }
        // SAFETY: the caller's promise: the size, rounded up to the alignment, does not exceed isize::MAX.
        let moved = self.alloc_zeroed(unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) });
        if !moved.is_null() {
            // SAFETY: both payloads are in use, so they do not overlap; the new one is the larger.
            unsafe { moved.copy_from_nonoverlapping(payload, old_size) };
            // SAFETY: the caller's promise.
            unsafe { self.dealloc(payload, layout) };
        }
        moved
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
        self.free(payload, layout);
        self.purge_if_due();
    }

    /// Makes a payload `new_size` bytes large, in place if what is behind it allows, else by copying; null, and
    /// nothing has changed, when nothing fits.
    ///
    /// # Safety
    /// As for [`dealloc`](Self::dealloc); and `new_size`, rounded up to the layout's alignment, does not exceed
    /// `isize::MAX`.
    pub unsafe fn realloc(&mut self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        let fit = unsafe { self.resize_or_move(payload, layout, new_size) };
        fit.start().map_or(ptr::null_mut(), |at| self.region().pointer(at).as_ptr())
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
        // SAFETY: the caller's promise.
        let fit = unsafe { self.resize_or_move(payload.as_ptr(), layout, new_size) };
        (fit.start().map(|at| self.region().pointer(at)), fit.into())
    }

    /// Where a payload is once it has `new_size` bytes.
    ///
    /// # Safety
    /// As for [`realloc`](Self::realloc).
    unsafe fn resize_or_move(&mut self, payload: *mut u8, layout: Layout, new_size: usize) -> Fit {
        let (at, n) = self.segment_of(payload, layout);
        if self.resize(at, n, new_size) {
            checkers::resized(payload, layout.size(), new_size);
            self.purge_if_due();
            return Fit::NONE.at(at);
        }
        let fit = self.place(new_size, layout.align());
        let Some(to) = fit.start() else { return fit };
        let moved = checkers::given(self.region().pointer(to), new_size);
        if layout.size() < LEAST_TRANSFER {
            // SAFETY: both segments are in use, so they do not overlap; the new one is the larger.
            unsafe { moved.copy_from_nonoverlapping(payload, layout.size()) };
            checkers::back(payload, layout.size());
            self.give_back_moved(at, n);
        } else {
            let transfer = self.begin_transfer(at, to, layout.size());
            // SAFETY: both segments are in use, and the heap is borrowed (X1).
            let done = unsafe { transfer.carry_out() };
            checkers::back(payload, layout.size());
            self.give_back_moved(at, n);
            self.end_transfer(&transfer, done);
        }
        self.purge_if_due();
        fit
    }

    /// Keeps everything that is placed from now on within the first `bytes` bytes of the region: [`top`](crate::Stats::top) does
    /// not rise above them. More than the region has lifts the limit.
    ///
    /// Nothing moves: where top lies above `bytes` now, it is the limit. Returns the limit in bytes, a multiple of 16.
    ///
    /// ```
    /// use core::alloc::Layout;
    ///
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
    /// assert_eq!(heap.set_limit(4096), 4096);
    /// assert!(heap.alloc(Layout::new::<[u8; 5000]>()).is_null());
    /// assert_eq!(heap.set_limit(usize::MAX), 1 << 20);
    /// assert!(!heap.alloc(Layout::new::<[u8; 5000]>()).is_null());
    /// assert_eq!(heap.set_limit(0), 5008);
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub fn set_limit(&mut self, bytes: usize) -> usize {
        self.limit = Granule(bytes / GRANULE).max(self.ground.top);
        self.ready = self.ready.min(self.limit);
        if self.ground.region.base().is_null() {
            self.limit.bytes()
        } else {
            self.limit.bytes().min(self.ground.region.size())
        }
    }

    /// The limit in bytes, if one was set that is below the region's end.
    pub(crate) fn limit(&self) -> Option<usize> {
        (self.limit.0 < self.region_size() / GRANULE).then(|| self.limit.bytes())
    }

    /// Asks the system to back the region with huge pages (`MADV_HUGEPAGE`), or not to (`MADV_NOHUGEPAGE`). False where it
    /// refuses: it may be built without them, or the memory be lent. Without this call it does as it does for all memory.
    ///
    /// Huge pages save page faults and translations of addresses in large heaps. They cost memory: of 2 MiB in which one
    /// byte is used, all are taken, and what was given back in small pieces may be taken again. From this call on large
    /// payloads are copied where they would have been moved by their pages.
    ///
    /// ```
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 26)?;
    /// if !heap.huge_pages(true) {
    ///     println!("the system has no huge pages");
    /// }
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub fn huge_pages(&mut self, wanted: bool) -> bool {
        let taken =
            !self.reservation.is_lent() && !self.base().is_null() && self.region().advise_huge_pages(wanted);
        if taken {
            // What is mapped anew would not be as it is asked for here.
            self.stop_moving();
        }
        taken
    }

    /// The size of the region in bytes.
    #[must_use]
    pub fn region_size(&self) -> usize {
        self.region().size()
    }

    /// Where the region begins: offsets count from here. A multiple of 2 MiB; in lent memory, of 64 bytes.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.region().base()
    }

    /// All segments of this instant, in memory that is not the heap's.
    ///
    /// # Errors
    /// The system gave no memory to copy them to.
    pub fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        let segments = self.segment_count();
        let mut buffer = SegmentBuffer::populated(segments)
            .map_err(|errno| SnapshotError::NoMemory { segments, errno })?;
        if !self.copy_segments(&mut buffer) {
            return Err(SnapshotError::GrewTooFast { capacity: buffer.capacity() });
        }
        Ok(Snapshot::new(buffer, self.counts(), 0, 0))
    }

    /// What is to be told of a request that has just found no place. With a region, and room in the wilderness below the
    /// limit, it can only be that the system gave no memory.
    pub(crate) fn failure(&self, size: usize, align: usize) -> Failure {
        let start = self.region().align_up(self.ground.top, align.max(GRANULE));
        let end = start.map(|start| start.bytes().saturating_add(size));
        let (limit, region) = (self.limit(), self.ground.region.size());
        let refused = end.is_some_and(|end| end <= limit.unwrap_or(region));
        let mut failure = Failure::new(size, align, refused, limit, &self.counts());
        self.visit_segments(|segment| {
            failure.count(segment);
            true
        });
        failure
    }

    /// Where a debugger finds the parts of this heap, which stays where it is.
    pub(crate) fn parts(&self) -> Parts {
        Parts {
            list: usize::from(L::NAME == "indexed"),
            region: (self.region().base().addr(), self.region().size()),
            bitmaps: self.ground.map.addresses(),
            top_at: ptr::from_ref(&self.ground.top).addr(),
            counters_at: ptr::from_ref(&self.counters).addr(),
        }
    }

    /// How many segments there are, the wilderness included.
    pub(crate) fn segment_count(&self) -> usize {
        let counters = &self.counters;
        let live = counters.placed_total().wrapping_sub(counters.freed) as usize;
        live.saturating_add(counters.holes()).saturating_add(1)
    }

    /// Copies all segments; false when the buffer is too small.
    pub(crate) fn copy_segments(&self, buffer: &mut SegmentBuffer) -> bool {
        buffer.clear();
        let fitted = self.visit_segments(|segment| buffer.push(segment));
        let offset = self.ground.top.bytes();
        let size = self.ground.region.size().saturating_sub(offset);
        fitted && (size == 0 || buffer.push(Segment { offset, size, in_use: false }))
    }

    /// Calls `visit` with each segment below top, until it returns false; returns whether it never did.
    #[inline]
    pub(crate) fn visit_segments(&self, mut visit: impl FnMut(Segment) -> bool) -> bool {
        let mut offset = 0;
        let visited = self.ground.map.visit_ends(self.ground.top, |end, in_use| {
            let size = end.bytes().wrapping_sub(offset);
            let segment = Segment { offset, size, in_use };
            offset = end.bytes();
            visit(segment)
        });
        visited.unwrap_or_else(|bad| super::broken("M1", "a segment in use has no head", bad.0))
    }
}

// What the heap's own calls and the global allocator's are made of.
impl<L: FreeList> Heap<L> {
    /// Counts a `realloc` and does it in place, if it can be.
    #[inline(always)]
    pub(crate) fn resize(&mut self, at: Granule, n: usize, new_size: usize) -> bool {
        self.counters.reallocs = self.counters.reallocs.wrapping_add(1);
        self.resize_in_place(at, n, new_size)
    }

    /// Frees a payload; nothing is given back to the system.
    #[inline]
    pub(crate) fn free(&mut self, payload: *mut u8, layout: Layout) {
        if let Some(short) = self.segment_at_once(payload, layout) {
            checkers::back(payload, layout.size());
            self.give_back_short(short);
        } else {
            let (at, n) = self.segment_of_long(payload, layout);
            checkers::back(payload, layout.size());
            self.give_back(at, n);
        }
    }

    /// Frees the segment that a `realloc` has moved from.
    #[inline]
    pub(crate) fn give_back_moved(&mut self, at: Granule, n: usize) {
        self.counters.reallocs_moved = self.counters.reallocs_moved.wrapping_add(1);
        match self.short_at(at, n) {
            Some(short) => self.give_back_short(short),
            None => self.give_back(at, n),
        }
    }
}
