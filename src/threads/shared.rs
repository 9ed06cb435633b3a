//! A heap shared by threads.

use super::free_ring::FreeRing;
use super::lock::{Lock, SlowReason};
use crate::free_list::FreeList;
use crate::heap::Heap;
use crate::inspect::Stats;
use crate::watch::Hardened;
use core::ops::{Deref, DerefMut};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use static_assertions::const_assert;

/// Bytes of a heap's ring. It lies near the end of the heap's reservation, in front of an inaccessible page.
pub(crate) const RING: usize = size_of::<FreeRing>();

const_assert!(RING.is_multiple_of(align_of::<FreeRing>()));

/// The value behind a lock: a heap, and the state that `hardened` keeps for it.
pub(crate) struct Guarded<L: FreeList> {
    pub(crate) heap: Heap<L>,
    pub(crate) hardened: Hardened,
    pub(crate) name: Option<&'static str>,
    /// The program's limit in bytes, which includes the reserve; `usize::MAX` for none.
    pub(crate) limit: usize,
    /// The number of the call stack of the request that the lock was taken for, if the lock is slow; 0 is none.
    pub(crate) stack: u32,
}

impl<L: FreeList> Deref for Guarded<L> {
    type Target = Heap<L>;

    #[inline(always)]
    fn deref(&self) -> &Heap<L> {
        &self.heap
    }
}

impl<L: FreeList> DerefMut for Guarded<L> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut Heap<L> {
        &mut self.heap
    }
}

/// A heap behind its lock, on cache lines of its own so that two regions do not share any.
#[repr(C, align(128))]
pub(crate) struct SharedHeap<L: FreeList> {
    pub(crate) lock: Lock<Guarded<L>>,
    /// The queue of remote frees, in the heap's reservation; null if there is none.
    ring: AtomicPtr<FreeRing>,
}

impl<L: FreeList> SharedHeap<L> {
    /// A heap without a region. Its first use takes the slow path.
    pub(crate) const fn unmapped() -> Self {
        let guarded = Guarded {
            heap: Heap::UNMAPPED,
            hardened: Hardened::NEW,
            name: None,
            limit: usize::MAX,
            stack: 0,
        };
        Self { lock: Lock::slow(SlowReason::FirstUse, guarded), ring: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Opens the queue of remote frees of a heap that was just mapped, whose lock the caller holds. If the system has
    /// no memory for it, remote frees wait for the lock.
    pub(crate) fn open_ring(&self, heap: &Heap<L>) {
        // The ring ends at a page boundary, so it is aligned. New memory is zero, which is an empty ring.
        let ring = heap.open_beside(RING).map_or(ptr::null_mut(), |ring| ring.cast().as_ptr());
        self.ring.store(ring, Ordering::Release);
    }

    /// Unmaps the region of a heap whose lock the caller holds, and in which nothing is in use.
    pub(crate) fn unmap(&self, guarded: &mut Guarded<L>) {
        self.ring.store(ptr::null_mut(), Ordering::Release);
        // Dropping the heap unmaps the region. A region that is mapped later has no freed bytes to look at.
        guarded.heap = Heap::UNMAPPED;
        guarded.hardened = Hardened::NEW;
    }

    /// The queue of remote frees; `None` with a single region.
    #[inline(always)]
    pub(crate) fn ring(&self) -> Option<&FreeRing> {
        // SAFETY: the ring lies in the heap's reservation, which is mapped as long as the heap lives (R1).
        unsafe { self.ring.load(Ordering::Acquire).as_ref() }
    }

    /// Whether remote frees wait. The caller holds the lock.
    #[inline(always)]
    pub(crate) fn has_remote_frees(&self) -> bool {
        self.ring().is_some_and(FreeRing::has_blocks)
    }

    /// All statistics of the heap, whose lock the caller holds.
    pub(crate) fn stats(&self, heap: &Heap<L>) -> Stats {
        self.with_lock_stats(heap.stats())
    }

    /// All statistics but the largest hole, which takes a search.
    pub(crate) fn counts(&self, heap: &Heap<L>) -> Stats {
        self.with_lock_stats(heap.counts())
    }

    fn with_lock_stats(&self, stats: Stats) -> Stats {
        let handed_over = self.ring().map_or(0, FreeRing::drained_count) as u64;
        Stats { contended: self.lock.contended(), handed_over, ..stats }
    }
}
