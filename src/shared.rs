//! A heap that threads share.

use crate::free_list::FreeList;
use crate::inspect::Stats;
use crate::lock::{Guard, Lock};

// The one place where the feature is chosen: the two have the same calls.
#[cfg(feature = "hardened")]
pub(crate) use crate::hardened::Hardened as Heap;
#[cfg(not(feature = "hardened"))]
pub(crate) use crate::heap::Heap;

/// A heap behind its lock. It has cache lines of its own: what threads do to one heap leaves the next one alone.
#[repr(align(128))]
pub(crate) struct Shared<L: FreeList> {
    heap: Lock<Heap<L>>,
}

impl<L: FreeList> Shared<L> {
    /// A heap that maps its region of `wanted` bytes at first use.
    pub(crate) const fn unmapped(wanted: usize) -> Self {
        Self { heap: Lock::new(Heap::unmapped(wanted)) }
    }

    /// As [`Lock::lock`].
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, Heap<L>> {
        self.heap.lock()
    }

    /// As [`Lock::try_lock`].
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, Heap<L>>> {
        self.heap.try_lock()
    }

    /// As [`Lock::try_lock_unwatched`].
    #[inline(always)]
    pub(crate) fn try_lock_unwatched(&self) -> Option<Guard<'_, Heap<L>>> {
        self.heap.try_lock_unwatched()
    }

    /// All numbers of the heap, whose lock the caller holds.
    pub(crate) fn stats(&self, heap: &Guard<'_, Heap<L>>) -> Stats {
        Stats { contended: self.heap.contended(), ..heap.stats() }
    }

    /// As [`Lock::lock_for_fork`].
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn lock_for_fork(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.heap.lock_for_fork() };
    }

    /// As [`Lock::unlock_after_fork`].
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.heap.unlock_after_fork() };
    }
}
