//! The numbers of a heap.

use super::Heap;
use super::usage::{Peak, Peaks};
use crate::free_list::FreeList;
use crate::inspect::Stats;
use crate::region::{GRANULE, Granule};

impl<L: FreeList> Heap<L> {
    pub(crate) fn peaks(&mut self) -> Peaks<'_> {
        Peaks { usage: &mut self.counters.usage, older: &mut self.older_peaks, top: self.ground.top }
    }

    /// Memory above this was never handed out.
    pub(crate) fn highest_top(&self) -> Granule {
        let since_fold = self.counters.usage.peak(self.ground.top).top;
        Granule(self.older_peaks.highest_top.max(since_fold))
    }

    /// The peaks since the heap began or they were reset.
    pub(super) fn peak(&self) -> Peak {
        self.older_peaks.all.max(self.counters.usage.peak(self.ground.top))
    }

    /// All numbers of this instant.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { largest_hole: Granule(self.list.largest(&self.ground)).bytes(), ..self.counts() }
    }

    /// All numbers but the size of the largest hole, for which [`Linked`](crate::Linked) has to walk its list.
    pub(crate) fn counts(&self) -> Stats {
        let counters = &self.counters;
        let placed = counters.placed_total();
        let peak = self.peak();
        let used = Granule(counters.usage.used() as usize).bytes();
        let region_size = self.ground.region.size();
        Stats {
            region_size,
            used_bytes: used,
            free_bytes: region_size.saturating_sub(used),
            top: self.ground.top.bytes(),
            peak_used_bytes: peak.used_bytes(),
            peak_top: peak.top_bytes(),
            live_segments: placed.wrapping_sub(counters.freed) as usize,
            free_segments: counters.holes().wrapping_add(usize::from(self.ground.top.bytes() < region_size)),
            hole_bytes: self.ground.top.bytes().saturating_sub(used),
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
            committed_bytes: self.ground.region.committed(),
            metadata_bytes: self.tables_committed(),
            purged_total: self.purged_bytes(),
            hops: counters.hops,
            failed_hops: counters.failed_hops(),
        }
    }

    /// Lets [`Stats::peak_used_bytes`] and [`Stats::peak_top`] begin anew, from what they are now.
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

    /// The bytes in use, and top.
    pub(crate) fn used_and_top(&self) -> (usize, usize) {
        (Granule(self.counters.usage.used() as usize).bytes(), self.ground.top.bytes())
    }

    /// Bytes of the tables that are open. Of lent memory, all that is not the region.
    fn tables_committed(&self) -> usize {
        if self.reservation.is_lent() {
            return self.reservation.bytes().saturating_sub(self.region_size());
        }
        self.ground
            .map
            .committed()
            .saturating_add(self.list.committed())
            .saturating_add(self.pages.committed())
    }
}
