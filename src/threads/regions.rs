//! Several first-fit regions side by side: which one a thread uses, and in which one a payload lies.
//!
//! ```text
//! base                         base + stride                base + 2 * stride
//! | region 0 | tables |  | ring | | region 1 | tables |  | ring | | region 2 | tables |  | ring |  ...
//! ```
//!
//! One reservation holds them all, and the stride is a power of two, so that a payload's region follows from its
//! address. Whoever needs several locks at once takes them in the order of the regions.

use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::home::{self, NUMBERS};
use super::lock::{Guard, Lock};
use super::shared::{Guarded, RING, Shared};
use crate::free_list::FreeList;
use crate::heap::map_side_by_side;
use crate::region::{InitError, MAX_REGION, MIN_REGION};
use crate::system::environment;

/// The region of a heap that was not told a size, in bytes: more than most machines have. Addresses cost nothing.
const DEFAULT_REGION: usize = 32 << 30;

#[repr(C)]
pub(crate) struct Regions<L: FreeList, const N: usize> {
    shared: [Shared<L>; N],
    /// The size in bytes that was asked for; what is mapped may be smaller. 0 asks for as much as is sensible.
    wanted: usize,
    /// Where the first region begins; 0 before the regions are mapped. Used only where there are several, as is the next.
    base: AtomicUsize,
    /// The power of two that the stride is.
    stride_bits: AtomicU32,
}

impl<L: FreeList, const N: usize> Regions<L, N> {
    /// Regions of `wanted` bytes each, mapped at first use.
    pub(crate) const fn unmapped(wanted: usize) -> Self {
        const { assert!(N >= 1 && N <= NUMBERS, "a SmallocGlobal has 1 to 64 regions") };
        Self {
            shared: [const { Shared::unmapped() }; N],
            wanted,
            base: AtomicUsize::new(0),
            stride_bits: AtomicU32::new(0),
        }
    }

    /// The region of that number; the first one if there is none.
    #[inline(always)]
    pub(crate) fn get(&self, number: usize) -> &Shared<L> {
        // SAFETY: there is a region 0, for there is at least one.
        self.shared.get(number).unwrap_or(unsafe { self.shared.get_unchecked(0) })
    }

    /// The number of the calling thread's home.
    #[inline(always)]
    pub(crate) fn home_number(&self) -> usize {
        if N == 1 { 0 } else { home::number() % N }
    }

    /// The number of the region in which a payload lies. Any number for what lies in none.
    #[inline(always)]
    pub(crate) fn number_of(&self, payload: *const u8) -> usize {
        if N == 1 {
            return 0;
        }
        // Whoever has a payload has it from a thread that saw the regions mapped.
        let offset = payload.addr().wrapping_sub(self.base.load(Ordering::Relaxed));
        offset.wrapping_shr(self.stride_bits.load(Ordering::Relaxed))
    }

    /// The bytes from the start of that region to a payload in it.
    pub(crate) fn offset_in(&self, number: usize, payload: *const u8) -> usize {
        let start = number.wrapping_shl(self.stride_bits.load(Ordering::Relaxed));
        payload.addr().wrapping_sub(self.base.load(Ordering::Relaxed)).wrapping_sub(start)
    }

    /// The number of the region that a lock guards.
    pub(crate) fn number_of_lock(&self, lock: &Lock<Guarded<L>>) -> usize {
        if N == 1 {
            return 0;
        }
        self.shared.iter().position(|shared| ptr::eq(&shared.lock, lock)).unwrap_or(0)
    }

    /// All regions, in order.
    pub(crate) fn all(&self) -> &[Shared<L>; N] {
        &self.shared
    }

    /// The numbers of all regions, from the one of that number on, round to the one before it.
    pub(crate) fn numbers_from(&self, first: usize) -> impl Iterator<Item = usize> + use<L, N> {
        (0..N).map(move |step| first.wrapping_add(step) % N)
    }

    /// Takes all locks.
    pub(crate) fn lock_all(&self) -> [Guard<'_, Guarded<L>>; N] {
        self.shared.each_ref().map(|shared| shared.lock.lock())
    }

    /// Maps the regions, unless they are mapped.
    pub(crate) fn init(&self) -> Result<(), InitError> {
        let mut heaps = self.lock_all();
        let mapped = |heap: &Guard<'_, Guarded<L>>| !heap.base().is_null();
        if heaps.first().is_some_and(mapped) {
            return Ok(());
        }
        let stride = map_side_by_side(
            &mut heaps.each_mut().map(|guarded| &mut guarded.heap),
            self.region_bytes(),
            RING,
        )?;
        if N > 1 {
            self.shared.iter().zip(&mut heaps).for_each(|(shared, heap)| shared.open_ring(heap));
        }
        self.stride_bits.store(stride.trailing_zeros(), Ordering::Relaxed);
        self.base.store(heaps.first().map_or(0, |first| first.base().addr()), Ordering::Relaxed);
        Ok(())
    }

    /// The size to be mapped for each region, in bytes.
    fn region_bytes(&self) -> usize {
        match self.wanted {
            0 => environment::REGION.size(MIN_REGION, MAX_REGION).unwrap_or(DEFAULT_REGION),
            wanted => wanted,
        }
    }

    /// As [`Lock::unlock_after_fork`](crate::threads::lock::Lock::unlock_after_fork), for all.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        // SAFETY: the caller's promise.
        self.shared.iter().for_each(|shared| unsafe { shared.lock.unlock_after_fork() });
    }
}
