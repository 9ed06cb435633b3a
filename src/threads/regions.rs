//! Several regions side by side: which one a thread uses, and which one contains a payload.
//!
//! ```text
//! base                         base + stride                base + 2 * stride
//! | region 0 | tables |  | ring | | region 1 | tables |  | ring | | region 2 | tables |  | ring |  ...
//! ```
//!
//! One reservation holds them all. The stride is a power of two, so a payload's region follows from its address. Code
//! that needs several locks takes them in region order.

use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::home::{self, NUMBERS};
use super::lock::{Guard, Lock};
use super::preparing::is_preparing;
use super::shared::{Guarded, RING, SharedHeap};
use crate::free_list::FreeList;
use crate::heap::{largest_region, map_side_by_side};
use crate::region::{InitError, MAX_REGION, MIN_REGION};
use crate::system::clock::sleep_ns;
use crate::system::{addresses, environment};

/// Bytes of a region without a requested size: more than most machines have, since address space is free.
const DEFAULT_REGION: usize = 32 << 30;

/// Nanoseconds before all locks are tried again.
const RETRY_NS: u32 = 100_000;

#[repr(C)]
pub(crate) struct Regions<L: FreeList, const N: usize> {
    shared: [SharedHeap<L>; N],
    /// Requested bytes per region, 0 for the default. The mapped size may be smaller.
    requested: usize,
    /// Address of the first region, 0 before it is mapped. Like `stride_bits`, used only with several regions.
    base: AtomicUsize,
    /// Base-2 logarithm of the stride in bytes.
    stride_bits: AtomicU32,
}

impl<L: FreeList, const N: usize> Regions<L, N> {
    /// Regions of `requested` bytes each, mapped at first use.
    pub(crate) const fn unmapped(requested: usize) -> Self {
        const { assert!(N >= 1 && N <= NUMBERS, "a SmallocGlobal has 1 to 64 regions") };
        Self {
            shared: [const { SharedHeap::unmapped() }; N],
            requested,
            base: AtomicUsize::new(0),
            stride_bits: AtomicU32::new(0),
        }
    }

    /// Region `number`, or the first one if there is none.
    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> &SharedHeap<L> {
        // SAFETY: N is at least 1, so region 0 exists.
        self.shared.get(number).unwrap_or(unsafe { self.shared.get_unchecked(0) })
    }

    #[inline(always)]
    pub(crate) fn home_number(&self) -> usize {
        if N == 1 { 0 } else { home::number() % N }
    }

    /// Number of the region that contains a payload; any number for a foreign pointer.
    #[inline(always)]
    pub(crate) fn number_of(&self, payload: *const u8) -> usize {
        if N == 1 {
            return 0;
        }
        // Relaxed: the payload comes from a thread that saw the regions mapped.
        let offset = payload.addr().wrapping_sub(self.base.load(Ordering::Relaxed));
        offset.wrapping_shr(self.stride_bits.load(Ordering::Relaxed))
    }

    /// Bytes from the start of region `number` to a payload in it.
    pub(crate) fn offset_in(&self, number: usize, payload: *const u8) -> usize {
        let start = number.wrapping_shl(self.stride_bits.load(Ordering::Relaxed));
        payload.addr().wrapping_sub(self.base.load(Ordering::Relaxed)).wrapping_sub(start)
    }

    pub(crate) fn number_of_lock(&self, lock: &Lock<Guarded<L>>) -> usize {
        if N == 1 {
            return 0;
        }
        self.shared.iter().position(|shared| ptr::eq(&shared.lock, lock)).unwrap_or(0)
    }

    pub(crate) fn all(&self) -> &[SharedHeap<L>; N] {
        &self.shared
    }

    /// All region numbers in cyclic order, beginning with `first`.
    pub(crate) fn numbers_from(&self, first: usize) -> impl Iterator<Item = usize> + use<L, N> {
        (0..N).map(move |step| first.wrapping_add(step) % N)
    }

    /// Takes all locks. While another thread that holds one prepares a fork, it is given all of them.
    pub(crate) fn lock_all(&self) -> [Guard<'_, Guarded<L>>; N] {
        loop {
            let mut complete = true;
            let guards = self.shared.each_ref().map(|shared| {
                let guard = if complete { shared.lock.lock_unless(is_preparing) } else { None };
                complete = guard.is_some();
                guard
            });
            if complete {
                let mut guards = guards.into_iter().flatten();
                // There is a guard for each region, so this never waits.
                let guard = |lock| guards.next().unwrap_or_else(|| Lock::lock(lock));
                return self.shared.each_ref().map(|shared| &shared.lock).map(guard);
            }
            drop(guards);
            sleep_ns(RETRY_NS);
        }
    }

    pub(crate) fn init(&self) -> Result<(), InitError> {
        let mut heaps = self.lock_all();
        let mapped = |heap: &Guard<'_, Guarded<L>>| !heap.base().is_null();
        if heaps.first().is_some_and(mapped) {
            return Ok(());
        }
        let wanted = self.region_bytes();
        let stride = map_side_by_side(&mut heaps.each_mut().map(|guarded| &mut guarded.heap), wanted, RING)?;
        warn_if_small(heaps.first().map_or(0, |first| first.region().size()), wanted);
        if N > 1 {
            self.shared.iter().zip(&mut heaps).for_each(|(shared, heap)| shared.open_ring(heap));
        }
        self.stride_bits.store(stride.trailing_zeros(), Ordering::Relaxed);
        self.base.store(heaps.first().map_or(0, |first| first.base().addr()), Ordering::Relaxed);
        Ok(())
    }

    /// Unmaps all regions, in which nothing is in use and whose locks the caller holds. They can be mapped again.
    pub(crate) fn unmap(&self, heaps: &mut [Guard<'_, Guarded<L>>; N]) {
        self.base.store(0, Ordering::Relaxed);
        self.shared.iter().zip(heaps).for_each(|(shared, heap)| shared.unmap(heap));
    }

    fn region_bytes(&self) -> usize {
        match self.requested {
            0 => environment::REGION.size(MIN_REGION, MAX_REGION).unwrap_or_else(Self::default_bytes),
            requested => requested,
        }
    }

    /// Bytes of a region whose size nobody has named: under a limit of addresses, all regions take at most half of what
    /// it leaves, since stacks and libraries need addresses too.
    fn default_bytes() -> usize {
        addresses::left().map_or(DEFAULT_REGION, |left| {
            largest_region::<L>(left / 2, N, RING).clamp(MIN_REGION, DEFAULT_REGION)
        })
    }

    /// Calls [`Lock::unlock_after_fork`] for every region that is locked for a fork.
    ///
    /// # Safety
    /// This thread has locked them, and has no guard of them.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        for shared in self.shared.iter().filter(|shared| shared.lock.is_locked_for_fork()) {
            // SAFETY: guaranteed by the caller.
            unsafe { shared.lock.unlock_after_fork() };
        }
    }
}

/// A region smaller than its wanted size divided by this is told.
const SMALL: usize = 100;

/// Tells that the system has refused all but a small part of the wanted size.
fn warn_if_small(size: usize, wanted: usize) {
    if size < wanted / SMALL {
        environment::REGION.tell(format_args!(
            "a region has {size} bytes, since the system refused {wanted} (raise the limit of addresses, or name a size)"
        ));
    }
}
