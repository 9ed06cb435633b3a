//! The numbers of a heap at one instant, and the difference of two.

use super::histogram::HopHistogram;
use super::number::{share, signed_difference, wide};

/// The numbers of a heap at one instant.
///
/// Sizes are bytes. What counts events counts them since the heap began, the rest is the state at that instant.
/// These hold, always:
///
/// ```text
/// used_bytes + free_bytes   == region_size
/// hole_bytes                == free_bytes - (region_size - top)
/// reallocs_in_place + reallocs_moved <= reallocs     (the rest failed)
/// hops.count()              == allocs + reallocs_moved
/// ```
///
/// It prints as a block for people (`println!("{}", HEAP.stats())`); [`write_json`](Self::write_json) and
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
    /// The size of the region. The segment map lies outside of it.
    pub region_size: usize,
    /// Bytes in segments that are in use, rounding included.
    pub used_bytes: usize,
    /// Bytes in free segments, the wilderness included.
    pub free_bytes: usize,
    /// The offset at which the wilderness begins.
    pub top: usize,
    /// The most bytes that were in use at once, since the heap began or the peaks were reset.
    pub peak_used_bytes: usize,
    /// The highest that top has been, since the heap began or the peaks were reset.
    pub peak_top: usize,
    /// Segments in use.
    pub live_segments: usize,
    /// Free segments: the holes, and the wilderness if there is any.
    pub free_segments: usize,
    /// Bytes in holes, which are the free segments below top.
    pub hole_bytes: usize,
    /// The size of the largest hole; 0 when there is none.
    pub largest_hole: usize,
    /// Allocations that succeeded. The search of a `realloc` that moved is not counted here.
    pub allocs: u64,
    /// Segments freed by the program. What a `realloc` that moved gives back is not counted here.
    pub frees: u64,
    /// Calls of `realloc`, failed ones included.
    pub reallocs: u64,
    /// Calls of `realloc` that kept the place.
    pub reallocs_in_place: u64,
    /// Calls of `realloc` that copied to another place.
    pub reallocs_moved: u64,
    /// Requests that could not be placed: those that were refused, and the first tries of those that were served once
    /// [`on_low_memory`](crate::SmallocGlobal::on_low_memory) had made room.
    pub failures: u64,
    /// The size that the last of the failed requests asked for; 0 when none failed.
    pub last_failed_size: usize,
    /// Bytes asked for by all successful requests together; growing in place adds what a segment grows by.
    pub requested_total: u64,
    /// Bytes in the segments given to all successful requests together; growing in place adds what a segment grows by.
    pub allocated_total: u64,
    /// Free segments of which a part was taken.
    pub splits: u64,
    /// Neighbours that a freed segment was merged with, the wilderness included.
    pub coalesces: u64,
    /// Times that a thread found the lock taken.
    pub contended: u64,
    /// Blocks that threads freed in a region other than their home without waiting for its lock, and that it has taken
    /// back since. 0 with one region.
    pub handed_over: u64,
    /// Bytes of the region that may be touched, so far.
    pub committed_bytes: usize,
    /// Bytes that the segment map and the index take beside the region, so far.
    pub metadata_bytes: usize,
    /// Bytes of free pages that were given back to the system, so far.
    pub purged_total: u64,
    /// The hops of the searches that found a place.
    pub hops: HopHistogram,
    /// The hops of the searches that did not.
    pub failed_hops: HopHistogram,
}

impl Stats {
    /// Bytes lost to rounding sizes up to whole granules, over all requests so far.
    #[must_use]
    pub const fn rounding_bytes(&self) -> u64 {
        self.allocated_total.saturating_sub(self.requested_total)
    }

    /// The size of the wilderness, the free rest above top.
    #[must_use]
    pub const fn wilderness_bytes(&self) -> usize {
        self.region_size.saturating_sub(self.top)
    }

    /// The free segments below top.
    #[must_use]
    pub const fn holes(&self) -> usize {
        let wilderness = if self.wilderness_bytes() > 0 { 1 } else { 0 };
        self.free_segments.saturating_sub(wilderness)
    }

    /// How scattered the holes are: the share of their bytes that lies outside of the largest, `1 - largest / all`.
    ///
    /// 0 when all free bytes below top are in one piece or there are none, near 1 when they are in many. The wilderness
    /// is left out, since one huge last segment hides a heap that is full of holes;
    /// [`fragmentation_with_wilderness`](Self::fragmentation_with_wilderness) counts it.
    #[must_use]
    pub fn fragmentation(&self) -> f64 {
        share(wide(self.hole_bytes.saturating_sub(self.largest_hole)), wide(self.hole_bytes))
    }

    /// The share of all free bytes, the wilderness included, that lies outside of the largest free segment.
    #[must_use]
    pub fn fragmentation_with_wilderness(&self) -> f64 {
        let largest = self.largest_hole.max(self.wilderness_bytes());
        share(wide(self.free_bytes.saturating_sub(largest)), wide(self.free_bytes))
    }

    /// The numbers of two heaps together: sums, but for the size of the largest hole and of the last failed request, of
    /// which the larger is kept. What lies above their tops counts as one wilderness.
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
            committed_bytes: self.committed_bytes.saturating_add(other.committed_bytes),
            metadata_bytes: self.metadata_bytes.saturating_add(other.metadata_bytes),
            purged_total: self.purged_total.wrapping_add(other.purged_total),
            hops: self.hops.plus(&other.hops),
            failed_hops: self.failed_hops.plus(&other.failed_hops),
        }
    }

    /// What happened since `earlier`, an older copy of the same heap's numbers.
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
            purged: self.purged_total.saturating_sub(earlier.purged_total),
            hops: self.hops.minus(&earlier.hops),
            failed_hops: self.failed_hops.minus(&earlier.failed_hops),
        }
    }
}

/// What happened between two [`Stats`] of one heap; see [`Stats::since`].
///
/// Sizes are bytes. Fields that can go down are signed; the names are those of [`Stats`], without `_total`. If `earlier` is
/// the later of the two, what counts calls is 0.
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
    pub committed_bytes: isize,
    pub metadata_bytes: isize,
    pub allocs: u64,
    pub frees: u64,
    pub reallocs: u64,
    pub reallocs_in_place: u64,
    pub reallocs_moved: u64,
    pub failures: u64,
    /// Bytes asked for by the successful requests in between.
    pub requested: u64,
    /// Bytes in the segments given to the successful requests in between.
    pub allocated: u64,
    pub splits: u64,
    pub coalesces: u64,
    pub contended: u64,
    pub handed_over: u64,
    /// Bytes of free pages that were given back to the system in between.
    pub purged: u64,
    pub hops: HopHistogram,
    pub failed_hops: HopHistogram,
}

/// What happened in a heap while a piece of a program ran; see [`SmallocGlobal::measure`](crate::SmallocGlobal::measure).
///
/// It prints as a block for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Measured {
    /// The difference of the numbers before and after.
    pub delta: StatsDelta,
    /// Bytes in use when it began.
    pub used_bytes_before: usize,
    /// The most bytes in use at once, from its beginning to its end.
    pub peak_used_bytes: usize,
    /// The highest that top was, from its beginning to its end.
    pub peak_top: usize,
}

impl Measured {
    /// By how many bytes what was in use when it began was exceeded at most.
    #[must_use]
    pub const fn peak_growth(&self) -> usize {
        self.peak_used_bytes.saturating_sub(self.used_bytes_before)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/inspect/stats.rs"]
mod tests;
