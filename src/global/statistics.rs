//! Statistics, snapshots and consistency checks of a shared heap.

use super::held::LockedSlow;
use super::{Guarded, SmallocGlobal};
use crate::free_list::FreeList;
use crate::heap::{Corruption, Heap};
use crate::inspect::{SegmentBuffer, Snapshot, SnapshotError, Stats, Totals};
use crate::system::clock::monotonic_ns;
use crate::threads::lock::Guard;
use core::sync::atomic::Ordering;

/// Attempts at a snapshot while other threads add segments. Each has room for a quarter more than were counted.
const SNAPSHOT_ATTEMPTS: usize = 8;

impl<L: FreeList> SmallocGlobal<L> {
    /// All segments at one instant, in memory outside the heap.
    ///
    /// The lock is held while they are copied, some nanoseconds each. With several regions, use
    /// [`snapshots`](Self::snapshots).
    ///
    /// # Errors
    /// The system has no memory for the copy, or other threads added segments faster than the copy's memory grew.
    pub fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        self.snapshots().map(|[snapshot]| snapshot)
    }
}

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Statistics of all regions together, at one instant. Allocates nothing.
    ///
    /// Searches the largest hole with the lock held: some tens of nanoseconds for each hole of about that size, or with
    /// [`Linked`](crate::Linked) for each hole.
    ///
    /// `largest_hole` is the largest of any region, the peaks are the sums of the regions' peaks, and the memory above
    /// the regions' tops counts as one wilderness.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let heaps = self.lock_all();
        self.stats_of(&heaps)
    }

    /// The numbers that fit a small stack: [`Stats`] of several regions take a few KiB of it.
    ///
    /// Regions are read one after the other, so calls of other threads may be counted in one and not in the other.
    ///
    /// ```
    /// static HEAP: smalloc::SmallocGlobal<smalloc::Indexed, 4> = smalloc::SmallocGlobal::with_region_size(1 << 20);
    /// HEAP.smalloc(core::alloc::Layout::new::<u64>());
    /// assert_eq!(HEAP.totals().used_bytes, 16);
    /// ```
    #[must_use]
    pub fn totals(&self) -> Totals {
        let totals = (0..REGIONS).map(|region| self.enter_slow(region).guard.totals());
        totals.fold(Totals::default(), Totals::plus)
    }

    /// Statistics of all regions, whose locks the caller holds.
    pub(super) fn stats_of(&self, heaps: &[Guard<'_, Guarded<L>>; REGIONS]) -> Stats {
        self.sum(self.regions.all().iter().zip(heaps).map(|(shared, heap)| shared.stats(heap)))
    }

    /// Statistics of all regions, one of which the caller holds; `None` if another thread holds one of the others.
    pub(super) fn try_stats_with(&self, region: usize, heap: &Heap<L>) -> Option<Stats> {
        let mut parts = self.regions.all().iter().enumerate().map(|(other, shared)| {
            Some(if other == region {
                shared.stats(heap)
            } else {
                shared.stats(&shared.lock.try_lock()?.heap)
            })
        });
        // Added up one by one: an array of all would take too much of a small stack.
        let first = parts.next()??;
        Some(self.with_cross_region(parts.try_fold(first, |sum, part| Some(sum.plus(&part?)))?))
    }

    /// Statistics at this instant; `None` if another thread holds a lock. Never waits.
    #[must_use]
    pub fn try_stats(&self) -> Option<Stats> {
        if self.is_unused() {
            return Some(Stats::default());
        }
        let mut region = 0;
        let heaps = self.regions.all().each_ref().map(|shared| {
            let guard =
                shared.lock.try_lock().map(|guard| LockedSlow { global: self, guard }.drained(region).guard);
            region = region.wrapping_add(1);
            guard
        });
        if heaps.iter().any(Option::is_none) {
            return None;
        }
        let stats = self.regions.all().iter().zip(heaps.iter().flatten());
        Some(self.sum(stats.map(|(shared, heap)| shared.stats(heap))))
    }

    /// Statistics of one region, as if it were a heap of its own; `None` if there is no such region.
    ///
    /// `failures` counts the requests that this region could not place, even if another one did. A `realloc` that moved
    /// to another region counts as a failed `realloc` and a free here, and as an allocation there.
    #[must_use]
    pub fn region_stats(&self, region: usize) -> Option<Stats> {
        let shared = self.regions.all().get(region)?;
        Some(shared.stats(&self.enter_slow(region).guard.heap))
    }

    fn sum(&self, stats: impl Iterator<Item = Stats>) -> Stats {
        self.with_cross_region(stats.reduce(|sum, stats| sum.plus(&stats)).unwrap_or_default())
    }

    /// Adds the numbers that belong to no single region.
    fn with_cross_region(&self, mut sum: Stats) -> Stats {
        if REGIONS > 1 {
            let moved = self.cross_region.moved.load(Ordering::Relaxed);
            sum.allocs = sum.allocs.wrapping_sub(moved);
            sum.frees = sum.frees.wrapping_sub(moved);
            sum.reallocs_moved = sum.reallocs_moved.wrapping_add(moved);
            sum.failures = self.cross_region.failures.load(Ordering::Relaxed);
            sum.last_failed_size = self.cross_region.last_failed_size.load(Ordering::Relaxed);
        }
        (sum.cached_bytes, sum.cache_hits) = self.caches.totals();
        sum
    }

    /// All segments of every region at one instant, one snapshot per region, in memory outside the heap.
    ///
    /// All locks are held while they are copied, some nanoseconds a segment.
    ///
    /// # Errors
    /// The system has no memory for the copy, or other threads added segments faster than the copy's memory grew.
    pub fn snapshots(&self) -> Result<[Snapshot; REGIONS], SnapshotError> {
        let mut capacity = 0;
        for _ in 0..SNAPSHOT_ATTEMPTS {
            let counts = self.lock_all().map(|heap| heap.segment_count());
            let mut buffers = [const { SegmentBuffer::EMPTY }; REGIONS];
            for (buffer, &segments) in buffers.iter_mut().zip(&counts) {
                let room = segments.saturating_add(segments / 4).saturating_add(64);
                *buffer = SegmentBuffer::populated(room)
                    .map_err(|errno| SnapshotError::NoMemory { segments, errno })?;
            }
            capacity = buffers.iter().fold(0, |sum: usize, buffer| sum.saturating_add(buffer.capacity()));
            let heaps = self.lock_all();
            let start = monotonic_ns();
            if heaps.iter().zip(&mut buffers).all(|(heap, buffer)| heap.copy_segments(buffer)) {
                let stats = self.regions.all().iter().zip(&heaps).map(|(shared, heap)| shared.counts(heap));
                let mut stats = stats.enumerate();
                let held = monotonic_ns().saturating_sub(start);
                let snapshots = buffers.map(|buffer| {
                    let (region, stats) = stats.next().unwrap_or_default();
                    Snapshot::new(buffer, stats, held, region)
                });
                return Ok(snapshots);
            }
        }
        Err(SnapshotError::GrewTooFast { capacity })
    }

    /// Walks all segments, the free list and its index, and compares the counters, one locked region at a time. With
    /// the feature `hardened`, also looks for writes after a free in all free memory.
    ///
    /// # Errors
    /// The first invariant that does not hold, by name, and its place.
    pub fn check(&self) -> Result<(), Corruption> {
        (0..REGIONS).try_for_each(|region| {
            let guard = self.enter_slow(region).guard;
            let written = |()| guard.hardened.check(&guard.heap).map_err(Corruption::from);
            guard.check().and_then(written).map_err(|found| Corruption { region, ..found })
        })
    }
}
