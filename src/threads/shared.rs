//! A heap that threads share.

use crate::free_list::FreeList;
use crate::inspect::Stats;
use crate::threads::free_ring::HandOver;
use crate::threads::lock::{Guard, Lock, SlowReason};
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use static_assertions::const_assert;

// The one place where the feature is chosen: the two have the same calls.
#[cfg(feature = "hardened")]
pub(crate) use crate::hardened::Hardened as Heap;
#[cfg(not(feature = "hardened"))]
pub(crate) use crate::heap::Heap;

/// Bytes of a heap's ring, which lies near the end of its reservation, before a closed page.
pub(crate) const RING: usize = size_of::<HandOver>();

const_assert!(RING.is_multiple_of(align_of::<HandOver>()));

/// A heap behind its lock. It has cache lines of its own: what threads do to one heap leaves the next one alone.
#[repr(C, align(128))]
pub(crate) struct Shared<L: FreeList> {
    pub(crate) heap: Lock<Heap<L>>,
    /// Null, or what was freed without the lock: a ring in the reservation of the heap.
    handed_over: AtomicPtr<HandOver>,
}

impl<L: FreeList> Shared<L> {
    /// A heap without a region, watched for its first use.
    pub(crate) const fn unmapped() -> Self {
        let heap = Lock::slow(SlowReason::FirstUse, Heap::UNMAPPED);
        Self { heap, handed_over: AtomicPtr::new(ptr::null_mut()) }
    }

    /// From now on frees may be handed over to the heap, which was just mapped, and whose lock the caller holds. If the
    /// system has no memory for that, frees wait for the lock.
    pub(crate) fn open_ring(&self, heap: &mut Guard<'_, Heap<L>>) {
        // RING is a multiple of its alignment, so that what ends with a page is aligned; and zeros are an empty ring.
        let ring = heap.bare().open_beside(RING).map_or(ptr::null_mut(), |ring| ring.cast().as_ptr());
        self.handed_over.store(ring, Ordering::Release);
    }

    /// What was freed without the lock; none where there is only one heap.
    #[inline(always)]
    pub(crate) fn handed_over(&self) -> Option<&HandOver> {
        // SAFETY: the ring lies in the heap's reservation, which lasts as long as the heap.
        unsafe { self.handed_over.load(Ordering::Acquire).as_ref() }
    }

    /// Whether something is there that was freed without the lock, which the caller holds.
    #[inline(always)]
    pub(crate) fn has_waiting(&self) -> bool {
        self.handed_over().is_some_and(HandOver::waiting)
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
        let handed_over = self.handed_over().map_or(0, HandOver::count) as u64;
        Stats { contended: self.heap.contended(), handed_over, ..stats }
    }
}
