//! A heap that threads share.

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

/// Bytes of a heap's ring, which lies near the end of its reservation, before a closed page.
pub(crate) const RING: usize = size_of::<FreeRing>();

const_assert!(RING.is_multiple_of(align_of::<FreeRing>()));

/// What a lock guards: a heap, and what a watcher keeps for it.
pub(crate) struct Guarded<L: FreeList> {
    pub(crate) heap: Heap<L>,
    pub(crate) hardened: Hardened,
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

/// A heap behind its lock. It has cache lines of its own: what threads do to one heap leaves the next one alone.
#[repr(C, align(128))]
pub(crate) struct Shared<L: FreeList> {
    pub(crate) lock: Lock<Guarded<L>>,
    /// Null, or the payloads that were freed without the lock: a ring in the reservation of the heap.
    ring: AtomicPtr<FreeRing>,
}

impl<L: FreeList> Shared<L> {
    /// A heap without a region, whose first use takes the slow path.
    pub(crate) const fn unmapped() -> Self {
        let guarded = Guarded { heap: Heap::UNMAPPED, hardened: Hardened::NEW };
        Self { lock: Lock::slow(SlowReason::FirstUse, guarded), ring: AtomicPtr::new(ptr::null_mut()) }
    }

    /// From now on frees may be handed over to the heap, which was just mapped, and whose lock the caller holds. If the
    /// system has no memory for that, frees wait for the lock.
    pub(crate) fn open_ring(&self, heap: &Heap<L>) {
        // RING is a multiple of its alignment, so that what ends with a page is aligned; and zeros are an empty ring.
        let ring = heap.open_beside(RING).map_or(ptr::null_mut(), |ring| ring.cast().as_ptr());
        self.ring.store(ring, Ordering::Release);
    }

    /// The payloads that were freed without the lock; none where there is only one heap.
    #[inline(always)]
    pub(crate) fn ring(&self) -> Option<&FreeRing> {
        // SAFETY: the ring lies in the heap's reservation, which lasts as long as the heap.
        unsafe { self.ring.load(Ordering::Acquire).as_ref() }
    }

    /// Whether something was freed without the lock, which the caller holds.
    #[inline(always)]
    pub(crate) fn has_waiting(&self) -> bool {
        self.ring().is_some_and(FreeRing::waiting)
    }

    /// All numbers of the heap, whose lock the caller holds.
    pub(crate) fn stats(&self, heap: &Heap<L>) -> Stats {
        self.with_own(heap.stats())
    }

    /// The same, but for the largest hole.
    pub(crate) fn counts(&self, heap: &Heap<L>) -> Stats {
        self.with_own(heap.counts())
    }

    fn with_own(&self, stats: Stats) -> Stats {
        let handed_over = self.ring().map_or(0, FreeRing::count) as u64;
        Stats { contended: self.lock.contended(), handed_over, ..stats }
    }
}
