//! Looking at a heap that threads use: its numbers, its segments, whether it is whole.

use super::held::Slow;
use super::{Guarded, SmallocGlobal};
use crate::free_list::FreeList;
use crate::heap::{Corruption, Heap};
use crate::inspect::{SegmentBuffer, Snapshot, SnapshotError, Stats};
use crate::system::clock::monotonic_ns;
use crate::threads::lock::Guard;
use core::sync::atomic::Ordering;

/// Attempts at a snapshot while other threads keep adding segments.
const SNAPSHOT_ATTEMPTS: usize = 8;

impl<L: FreeList> SmallocGlobal<L> {
    /// All segments of this instant, in memory that is not the heap's.
    ///
    /// The lock is held for as long as it takes to copy them, some nanoseconds each. [`snapshots`](Self::snapshots) is
    /// the same for several regions.
    ///
    /// # Errors
    /// The system gave no memory to copy them to, or other threads added segments faster than memory was added.
    pub fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        self.snapshots().map(|[snapshot]| snapshot)
    }
}

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// All numbers of this instant, of all regions together. Allocates nothing.
    ///
    /// With the lock held it looks for the largest hole: some tens of nanoseconds for each hole of about that size, or with
    /// [`Linked`](crate::Linked) for each hole.
    ///
    /// `largest_hole` is that of one region, the peaks are the sums of the regions' peaks, and what lies above the tops of
    /// the regions counts as one wilderness.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let heaps = self.lock_all();
        self.stats_of(&heaps)
    }

    /// All numbers of all regions, whose locks the caller holds.
    pub(super) fn stats_of(&self, heaps: &[Guard<'_, Guarded<L>>; REGIONS]) -> Stats {
        self.sum(self.regions.all().iter().zip(heaps).map(|(shared, heap)| shared.stats(heap)))
    }

    /// The same, where the caller holds the lock of one region: one region after the other. None if another thread is
    /// at work in one.
    pub(super) fn stats_beside(&self, region: usize, heap: &Heap<L>) -> Option<Stats> {
        let mut parts = self.regions.all().iter().enumerate().map(|(other, shared)| {
            Some(if other == region {
                shared.stats(heap)
            } else {
                shared.stats(&shared.lock.try_lock()?.heap)
            })
        });
        // One by one: all of them would take much of a small stack.
        let first = parts.next()??;
        Some(self.with_between(parts.try_fold(first, |sum, part| Some(sum.plus(&part?)))?))
    }

    /// The numbers of this instant, or none if another thread holds a lock. Never waits.
    #[must_use]
    pub fn try_stats(&self) -> Option<Stats> {
        if self.is_unused() {
            return Some(Stats::default());
        }
        let mut region = 0;
        let heaps = self.regions.all().each_ref().map(|shared| {
            let guard =
                shared.lock.try_lock().map(|guard| Slow { global: self, guard }.drained(region).guard);
            region = region.wrapping_add(1);
            guard
        });
        if heaps.iter().any(Option::is_none) {
            return None;
        }
        let stats = self.regions.all().iter().zip(heaps.iter().flatten());
        Some(self.sum(stats.map(|(shared, heap)| shared.stats(heap))))
    }

    /// The numbers of one region at this instant, as if it were a heap of its own; none if there is no such region.
    ///
    /// Here `failures` are the requests that this region could not place, even if another one then did; and a `realloc`
    /// that moved to another region is a `realloc` that failed and a free here, and an allocation there.
    #[must_use]
    pub fn region_stats(&self, region: usize) -> Option<Stats> {
        let shared = self.regions.all().get(region)?;
        Some(shared.stats(&self.enter_slow(region).guard.heap))
    }

    /// The numbers of all regions together.
    fn sum(&self, stats: impl Iterator<Item = Stats>) -> Stats {
        self.with_between(stats.reduce(|sum, stats| sum.plus(&stats)).unwrap_or_default())
    }

    /// The sum of what the regions have counted, with what happened between them.
    fn with_between(&self, mut sum: Stats) -> Stats {
        if REGIONS > 1 {
            let moved = self.cross_region.moved.load(Ordering::Relaxed);
            sum.allocs = sum.allocs.wrapping_sub(moved);
            sum.frees = sum.frees.wrapping_sub(moved);
            sum.reallocs_moved = sum.reallocs_moved.wrapping_add(moved);
            sum.failures = self.cross_region.failures.load(Ordering::Relaxed);
            sum.last_failed_size = self.cross_region.last_failed_size.load(Ordering::Relaxed);
        }
        sum
    }

    /// All segments of every region at this instant, in memory that is not the heap's: a snapshot for each region.
    ///
    /// All locks are held for as long as it takes to copy them, some nanoseconds each.
    ///
    /// # Errors
    /// The system gave no memory to copy them to, or other threads added segments faster than memory was added.
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

    /// Walks all segments, the free list and its index, and compares the counters, one region after the other, with
    /// its lock held.
    ///
    /// # Errors
    /// The first invariant that does not hold, by name, and where.
    pub fn check(&self) -> Result<(), Corruption> {
        (0..REGIONS).try_for_each(|region| {
            self.enter_slow(region).guard.check().map_err(|found| Corruption { region, ..found })
        })
    }
}
