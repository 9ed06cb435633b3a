//! The numbers of a heap at one instant, and the difference of two.

use super::histogram::HopHistogram;
use super::number::{share, signed_difference, wide};

/// The numbers of a heap at one instant.
///
/// Sizes are in bytes. Event counts start when the heap is created; all other numbers are the state at that instant.
/// These always hold:
///
/// ```text
/// used_bytes + free_bytes   == region_size
/// hole_bytes                == free_bytes - (region_size - top)
/// reallocs_in_place + reallocs_moved <= reallocs     (the rest failed)
/// hops.count()              == allocs + reallocs_moved
/// ```
///
/// It prints as a block of text (`println!("{}", HEAP.stats())`). [`write_json`](Self::write_json) and
/// [`write_prometheus`](Self::write_prometheus) are for programs. None of them allocates.
///
/// ```
/// use core::alloc::Layout;
///
/// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
/// heap.smalloc(Layout::new::<[u8; 1000]>());
/// let stats = heap.stats();
/// assert_eq!(stats.used_bytes, 1008); // in granules of 16 bytes
/// assert_eq!(stats.used_bytes + stats.free_bytes, stats.region_size);
/// assert_eq!((stats.allocs, stats.rounding_bytes()), (1, 8));
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The size of the region. Bookkeeping lies outside.
    pub region_size: usize,
    /// Bytes in segments in use, including rounding.
    pub used_bytes: usize,
    /// Bytes in free segments, including the wilderness.
    pub free_bytes: usize,
    /// The offset where the wilderness begins.
    pub top: usize,
    /// The most bytes in use at once, since the heap was created or the peaks were reset.
    pub peak_used_bytes: usize,
    /// The highest top, since the heap was created or the peaks were reset.
    pub peak_top: usize,
    /// Segments in use.
    pub live_segments: usize,
    /// Free segments: the holes and the wilderness, if there is one.
    pub free_segments: usize,
    /// Bytes in holes: free segments below top.
    pub hole_bytes: usize,
    /// The size of the largest hole; 0 if there is none.
    pub largest_hole: usize,
    /// Successful allocations, not counting the searches of `realloc`.
    pub allocs: u64,
    /// Segments freed by the program, not counting those that a `realloc` moved from.
    pub frees: u64,
    /// Calls of `realloc`, including failed ones.
    pub reallocs: u64,
    /// Calls of `realloc` that kept the place.
    pub reallocs_in_place: u64,
    /// Calls of `realloc` that moved the payload.
    pub reallocs_moved: u64,
    /// Requests that could not be placed: those refused, and the first attempts of those that succeeded once
    /// [`on_low_memory`](crate::SmallocGlobal::on_low_memory) had made room.
    pub failures: u64,
    /// The size of the last failed request; 0 if none failed.
    pub last_failed_size: usize,
    /// Bytes requested by all successful requests; growing in place adds the growth.
    pub requested_total: u64,
    /// Bytes in the segments of all successful requests; growing in place adds the growth.
    pub allocated_total: u64,
    /// Free segments that were split because a request took only a part.
    pub splits: u64,
    /// Neighbours that a freed segment was coalesced with, including the wilderness.
    pub coalesces: u64,
    /// Times a thread found the lock taken.
    pub contended: u64,
    /// Blocks freed without waiting for the lock of their region, and taken back by it since. 0 with one region.
    pub handed_over: u64,
    /// Bytes of the segments in use that are in the caches of threads, where no program uses them. About, if other
    /// threads use the heap. 0 but for [`Cached`](crate::Cached).
    pub cached_bytes: usize,
    /// Allocations that caches have served. `allocs` does not count them, nor does `frees` count the frees to caches.
    pub cache_hits: u64,
    /// Committed bytes of the region.
    pub committed_bytes: usize,
    /// Committed bytes of the bookkeeping beside the region: segment map and index.
    pub metadata_bytes: usize,
    /// Bytes of free pages returned to the system so far.
    pub purged_total: u64,
    /// The hops of searches that found a place.
    pub hops: HopHistogram,
    /// The hops of searches that found none.
    pub failed_hops: HopHistogram,
}

impl Stats {
    /// Bytes lost by rounding sizes up to whole granules, over all requests so far.
    #[must_use]
    pub const fn rounding_bytes(&self) -> u64 {
        self.allocated_total.saturating_sub(self.requested_total)
    }

    /// The size of the wilderness, the free rest above top.
    #[must_use]
    pub const fn wilderness_bytes(&self) -> usize {
        self.region_size.saturating_sub(self.top)
    }

    /// The number of free segments below top.
    #[must_use]
    pub const fn holes(&self) -> usize {
        let wilderness = if self.wilderness_bytes() > 0 { 1 } else { 0 };
        self.free_segments.saturating_sub(wilderness)
    }

    /// The fragmentation of the holes: the share of their bytes outside the largest one, `1 - largest / all`.
    ///
    /// 0 if all free bytes below top are in one piece or there are none, near 1 if they are in many. The wilderness is
    /// not counted, since it would hide a heap full of holes;
    /// [`fragmentation_with_wilderness`](Self::fragmentation_with_wilderness) counts it.
    #[must_use]
    pub fn fragmentation(&self) -> f64 {
        share(wide(self.hole_bytes.saturating_sub(self.largest_hole)), wide(self.hole_bytes))
    }

    /// The share of all free bytes, including the wilderness, outside the largest free segment.
    #[must_use]
    pub fn fragmentation_with_wilderness(&self) -> f64 {
        let largest = self.largest_hole.max(self.wilderness_bytes());
        share(wide(self.free_bytes.saturating_sub(largest)), wide(self.free_bytes))
    }

    /// The numbers of two heaps together: sums, but the maximum of the largest holes and of the last failed sizes. The
    /// space above both tops counts as one wilderness.
    pub(crate) fn plus(&self, other: &Self) -> Self {
        let wilderness = self.wilderness_bytes().saturating_add(other.wilderness_bytes()) > 0;
        let holes = self.holes().saturating_add(other.holes());
        Self {
            region_size: self.region_size.saturating_add(other.region_size),
            used_bytes: self.used_bytes.saturating_add(other.used_bytes),
            free_bytes: self.free_bytes.saturating_add(other.free_bytes),
            top: self.top.saturating_add(other.top),
            peak_used_bytes: self.peak_used_bytes.saturating_add(other.peak_used_bytes),
            peak_top: self.peak_top.saturating_add(other.peak_top),
            live_segments: self.live_segments.saturating_add(other.live_segments),
            free_segments: holes.saturating_add(usize::from(wilderness)),
            hole_bytes: self.hole_bytes.saturating_add(other.hole_bytes),
            largest_hole: self.largest_hole.max(other.largest_hole),
            allocs: self.allocs.wrapping_add(other.allocs),
            frees: self.frees.wrapping_add(other.frees),
            reallocs: self.reallocs.wrapping_add(other.reallocs),
            reallocs_in_place: self.reallocs_in_place.wrapping_add(other.reallocs_in_place),
            reallocs_moved: self.reallocs_moved.wrapping_add(other.reallocs_moved),
            failures: self.failures.wrapping_add(other.failures),
            last_failed_size: self.last_failed_size.max(other.last_failed_size),
            requested_total: self.requested_total.wrapping_add(other.requested_total),
            allocated_total: self.allocated_total.wrapping_add(other.allocated_total),
            splits: self.splits.wrapping_add(other.splits),
            coalesces: self.coalesces.wrapping_add(other.coalesces),
            contended: self.contended.wrapping_add(other.contended),
            handed_over: self.handed_over.wrapping_add(other.handed_over),
            cached_bytes: self.cached_bytes.saturating_add(other.cached_bytes),
            cache_hits: self.cache_hits.wrapping_add(other.cache_hits),
            committed_bytes: self.committed_bytes.saturating_add(other.committed_bytes),
            metadata_bytes: self.metadata_bytes.saturating_add(other.metadata_bytes),
            purged_total: self.purged_total.wrapping_add(other.purged_total),
            hops: self.hops.plus(&other.hops),
            failed_hops: self.failed_hops.plus(&other.failed_hops),
        }
    }

    /// The changes since `earlier`, an older copy of the same heap's numbers.
    ///
    /// ```
    /// use core::alloc::Layout;
    ///
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
    /// let before = heap.stats();
    /// heap.smalloc(Layout::new::<[u8; 32]>());
    /// let delta = heap.stats().since(&before);
    /// assert_eq!((delta.allocs, delta.used_bytes, delta.live_segments), (1, 32, 1));
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    #[must_use]
    pub fn since(&self, earlier: &Self) -> StatsDelta {
        StatsDelta {
            used_bytes: signed_difference(self.used_bytes, earlier.used_bytes),
            top: signed_difference(self.top, earlier.top),
            live_segments: signed_difference(self.live_segments, earlier.live_segments),
            free_segments: signed_difference(self.free_segments, earlier.free_segments),
            hole_bytes: signed_difference(self.hole_bytes, earlier.hole_bytes),
            cached_bytes: signed_difference(self.cached_bytes, earlier.cached_bytes),
            committed_bytes: signed_difference(self.committed_bytes, earlier.committed_bytes),
            metadata_bytes: signed_difference(self.metadata_bytes, earlier.metadata_bytes),
            allocs: self.allocs.saturating_sub(earlier.allocs),
            frees: self.frees.saturating_sub(earlier.frees),
            reallocs: self.reallocs.saturating_sub(earlier.reallocs),
            reallocs_in_place: self.reallocs_in_place.saturating_sub(earlier.reallocs_in_place),
            reallocs_moved: self.reallocs_moved.saturating_sub(earlier.reallocs_moved),
            failures: self.failures.saturating_sub(earlier.failures),
            requested: self.requested_total.saturating_sub(earlier.requested_total),
            allocated: self.allocated_total.saturating_sub(earlier.allocated_total),
            splits: self.splits.saturating_sub(earlier.splits),
            coalesces: self.coalesces.saturating_sub(earlier.coalesces),
            contended: self.contended.saturating_sub(earlier.contended),
            handed_over: self.handed_over.saturating_sub(earlier.handed_over),
            cache_hits: self.cache_hits.saturating_sub(earlier.cache_hits),
            purged: self.purged_total.saturating_sub(earlier.purged_total),
            hops: self.hops.minus(&earlier.hops),
            failed_hops: self.failed_hops.minus(&earlier.failed_hops),
        }
    }
}

/// The changes between two [`Stats`] of one heap; see [`Stats::since`].
///
/// Sizes are in bytes. Fields that can fall are signed. The names are those of [`Stats`] without `_total`. If `earlier`
/// is actually the later one, counts of calls are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
#[allow(missing_docs)] // Each field is the difference of the field of that name.
pub struct StatsDelta {
    pub used_bytes: isize,
    pub top: isize,
    pub live_segments: isize,
    pub free_segments: isize,
    pub hole_bytes: isize,
    pub cached_bytes: isize,
    pub committed_bytes: isize,
    pub metadata_bytes: isize,
    pub allocs: u64,
    pub frees: u64,
    pub reallocs: u64,
    pub reallocs_in_place: u64,
    pub reallocs_moved: u64,
    pub failures: u64,
    /// Bytes requested by the successful requests in between.
    pub requested: u64,
    /// Bytes in the segments of the successful requests in between.
    pub allocated: u64,
    pub splits: u64,
    pub coalesces: u64,
    pub contended: u64,
    pub handed_over: u64,
    pub cache_hits: u64,
    /// Bytes of free pages returned to the system in between.
    pub purged: u64,
    pub hops: HopHistogram,
    pub failed_hops: HopHistogram,
}

/// The changes in a heap while a piece of code ran; see [`SmallocGlobal::measure`](crate::SmallocGlobal::measure).
///
/// It prints as a block of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Measured {
    /// The difference of the numbers before and after.
    pub delta: StatsDelta,
    /// Bytes in use at the beginning.
    pub used_bytes_before: usize,
    /// The most bytes in use at once, from beginning to end.
    pub peak_used_bytes: usize,
    /// The highest top, from beginning to end.
    pub peak_top: usize,
}

impl Measured {
    /// The most bytes in use at once beyond those at the beginning.
    #[must_use]
    pub const fn peak_growth(&self) -> usize {
        self.peak_used_bytes.saturating_sub(self.used_bytes_before)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/inspect/stats.rs"]
mod tests;
