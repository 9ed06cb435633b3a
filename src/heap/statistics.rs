//! The numbers of a heap.

use super::Heap;
use super::usage::{Peak, Peaks};
use crate::debugger::Parts;
use crate::free_list::FreeList;
use crate::inspect::{Failure, SegmentBuffer, Snapshot, SnapshotError, Stats, Totals};
use crate::region::{GRANULE, Granule};
use core::ptr;

impl<L: FreeList> Heap<L> {
    pub(crate) fn peaks(&mut self) -> Peaks<'_> {
        Peaks {
            usage: &mut self.tiling.counters.usage,
            older: &mut self.older_peaks,
            top: self.tiling.ground.top,
        }
    }

    /// Memory at or above this was never handed out.
    pub(crate) fn highest_top(&self) -> Granule {
        let since_fold = self.tiling.counters.usage.peak(self.tiling.ground.top).top;
        Granule(self.older_peaks.highest_top.max(since_fold))
    }

    /// The peaks since the heap was created, or since they were reset.
    pub(super) fn peak(&self) -> Peak {
        self.older_peaks.all.max(self.tiling.counters.usage.peak(self.tiling.ground.top))
    }

    /// All numbers, as of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            largest_hole: Granule(self.tiling.list.largest(&self.tiling.ground)).bytes(),
            ..self.counts()
        }
    }

    /// The numbers that fit a small stack, as of now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let counters = &self.tiling.counters;
        let peak = self.peak();
        let used = Granule(counters.usage.used() as usize).bytes();
        let top = self.tiling.ground.top.bytes();
        Totals {
            region_size: self.tiling.ground.region.size(),
            used_bytes: used,
            top,
            live_segments: counters.placed_total().wrapping_sub(counters.freed) as usize,
            holes: counters.holes(),
            hole_bytes: top.saturating_sub(used),
            committed_bytes: self.tiling.ground.region.committed(),
            metadata_bytes: self.tables_committed(),
            peak_top: peak.top_bytes(),
            peak_used_bytes: peak.used_bytes(),
        }
    }

    /// All numbers but the size of the largest hole, for which [`Linked`](crate::Linked) must walk its list.
    pub(crate) fn counts(&self) -> Stats {
        let counters = &self.tiling.counters;
        let placed = counters.placed_total();
        let totals = self.totals();
        Stats {
            region_size: totals.region_size,
            used_bytes: totals.used_bytes,
            free_bytes: totals.region_size.saturating_sub(totals.used_bytes),
            top: totals.top,
            peak_used_bytes: totals.peak_used_bytes,
            peak_top: totals.peak_top,
            live_segments: totals.live_segments,
            free_segments: totals.holes.wrapping_add(usize::from(totals.top < totals.region_size)),
            hole_bytes: totals.hole_bytes,
            largest_hole: 0,
            allocs: placed.wrapping_sub(counters.reallocs_moved),
            frees: counters.freed.wrapping_sub(counters.reallocs_moved),
            reallocs: counters.reallocs,
            reallocs_in_place: counters.reallocs_in_place,
            reallocs_moved: counters.reallocs_moved,
            failures: counters.failures,
            last_failed_size: counters.last_failed_size,
            requested_total: counters.requested,
            allocated_total: counters.allocated.wrapping_mul(GRANULE as u64),
            splits: counters.splits,
            coalesces: counters.coalesces(),
            contended: 0,
            handed_over: 0,
            cached_bytes: 0,
            cache_hits: 0,
            committed_bytes: totals.committed_bytes,
            metadata_bytes: totals.metadata_bytes,
            purged_total: self.purge_policy.purged_bytes(),
            hops: counters.hops,
            failed_hops: counters.failed_hops(),
        }
    }

    /// Restarts [`Stats::peak_used_bytes`] and [`Stats::peak_top`] from their current values.
    ///
    /// ```
    /// use core::alloc::Layout;
    ///
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
    /// let block = heap.smalloc(Layout::new::<[u8; 4096]>()).0;
    /// unsafe { heap.sfree(block.unwrap()) };
    /// assert_eq!(heap.stats().peak_used_bytes, 4096);
    /// heap.reset_peaks();
    /// assert_eq!(heap.stats().peak_used_bytes, 0);
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub fn reset_peaks(&mut self) {
        self.peaks().reset();
    }

    /// Bytes in use, and top in bytes.
    pub(crate) fn used_and_top(&self) -> (usize, usize) {
        (Granule(self.tiling.counters.usage.used() as usize).bytes(), self.tiling.ground.top.bytes())
    }

    /// Committed bytes of the tables. In lent memory, all bytes outside the region.
    fn tables_committed(&self) -> usize {
        if self.reservation.is_lent() {
            return self.reservation.bytes().saturating_sub(self.region_size());
        }
        self.tiling
            .ground
            .map
            .committed()
            .saturating_add(self.tiling.list.committed())
            .saturating_add(self.tiling.pages.committed())
    }

    /// The size of the region in bytes.
    #[must_use]
    pub fn region_size(&self) -> usize {
        self.region().size()
    }

    /// The address of offset 0: a multiple of 2 MiB, or of 64 bytes in lent memory.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.region().base()
    }

    /// A copy of all segments, in memory outside the heap.
    ///
    /// # Errors
    /// The system refused the memory for the copy.
    pub fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        let segments = self.segment_count();
        let mut buffer = SegmentBuffer::populated(segments)
            .map_err(|errno| SnapshotError::NoMemory { segments, errno })?;
        if !self.copy_segments(&mut buffer) {
            return Err(SnapshotError::GrewTooFast { capacity: buffer.capacity() });
        }
        Ok(Snapshot::new(buffer, self.counts(), 0, 0))
    }

    /// The report on a request that has just failed. If the region is mapped and the wilderness has room below the
    /// limit, the system must have refused memory.
    pub(crate) fn failure(&self, size: usize, align: usize) -> Failure {
        let start = self.region().align_up(self.tiling.ground.top, align.max(GRANULE));
        let end = start.map(|start| start.bytes().saturating_add(size));
        let (limit, region) = (self.limit(), self.tiling.ground.region.size());
        let refused = end.is_some_and(|end| end <= limit.unwrap_or(region));
        let mut failure = Failure::new(size, align, refused, limit, &self.counts());
        self.visit_segments(|segment| {
            failure.count(segment);
            true
        });
        failure
    }

    /// The addresses of this heap's parts, for a debugger. The heap must not move.
    pub(crate) fn parts(&self) -> Parts {
        Parts {
            list: usize::from(L::NAME == "indexed"),
            region: (self.region().base().addr(), self.region().size()),
            bitmaps: self.tiling.ground.map.addresses(),
            top_at: ptr::from_ref(&self.tiling.ground.top).addr(),
            counters_at: ptr::from_ref(&self.tiling.counters).addr(),
        }
    }
}
