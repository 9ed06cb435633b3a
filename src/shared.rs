//! A heap that threads share.

use crate::free_list::FreeList;
use crate::handover::HandOver;
use crate::inspect::Stats;
use crate::lock::{Guard, Lock, Watcher};

// The one place where the feature is chosen: the two have the same calls.
#[cfg(feature = "hardened")]
pub(crate) use crate::hardened::Hardened as Heap;
#[cfg(not(feature = "hardened"))]
pub(crate) use crate::heap::Heap;

/// A heap behind its lock. It has cache lines of its own: what threads do to one heap leaves the next one alone.
#[repr(C, align(128))]
pub(crate) struct Shared<L: FreeList> {
    pub(crate) heap: Lock<Heap<L>>,
    /// What was freed without the lock. Stays empty where there is only one heap.
    pub(crate) handed_over: HandOver,
}

impl<L: FreeList> Shared<L> {
    /// A heap without a region, watched for its first use.
    pub(crate) const fn unmapped() -> Self {
        Self { heap: Lock::watched(Watcher::FirstUse, Heap::UNMAPPED), handed_over: HandOver::new() }
    }

    /// All numbers of the heap, whose lock the caller holds.
    pub(crate) fn stats(&self, heap: &Guard<'_, Heap<L>>) -> Stats {
        self.with_own(heap.stats())
    }

    /// The same, but for the largest hole.
    pub(crate) fn counts(&self, heap: &Guard<'_, Heap<L>>) -> Stats {
        self.with_own(heap.counts())
    }

    fn with_own(&self, stats: Stats) -> Stats {
        let handed_over = self.handed_over.count() as u64;
        Stats { contended: self.heap.contended(), handed_over, ..stats }
    }
}
