//! Remote frees: a block is queued for its region, whose next lock holder frees it.

use super::held::{Locked, LockedSlow};
use super::{Guarded, SmallocGlobal};
use crate::calls;
use crate::free_list::FreeList;
use crate::heap::is_aligned;
use crate::region::{GRANULE, Granule};
use crate::threads::free_ring::{MIN_BLOCK, SLOTS};
use crate::threads::lock::Guard;
use core::alloc::Layout;

/// Blocks queued between two purge checks by producers. More than the ring holds: an idle region's ring fills up first,
/// and the producer that finds it full runs the check.
const PURGE_CHECK_EVERY: usize = 2 * SLOTS;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Queues a payload for its region. False if the queue is full, or the pointer cannot be a payload; the caller then
    /// frees with the lock held, where misuse is reported.
    pub(super) fn hand_over(&self, region: usize, payload: *mut u8, layout: Option<Layout>) -> bool {
        let Some(shared) = self.regions.all().get(region) else { return false };
        let offset = self.regions.offset_in(region, payload);
        let aligned = layout.is_none_or(|layout| is_aligned(payload, layout));
        let block = Block { at: Granule(offset / GRANULE), size: layout.map(|layout| layout.size()) };
        match block.pack() {
            // The measurement counts a free when it happens.
            _ if self.is_measuring_thread() => false,
            Some(packed) if aligned && offset.is_multiple_of(GRANULE) => {
                let ticket = shared.ring().and_then(|ring| ring.push(packed));
                if ticket.is_some_and(|ticket| ticket % PURGE_CHECK_EVERY == PURGE_CHECK_EVERY - 1) {
                    self.purge_for_owner(region);
                }
                ticket.is_some()
            }
            _ => false,
        }
    }

    /// Purges a region if that is due and its lock is free. An owner that only allocates never purges.
    #[cold]
    #[inline(never)]
    fn purge_for_owner(&self, region: usize) {
        self.count_calls(PURGE_CHECK_EVERY);
        if let Some(guard) = self.regions.get(region).lock.try_lock() {
            calls::purge_if_due(LockedSlow { global: self, guard }.drained(region));
        }
    }

    /// Takes all locks and does the queued remote frees.
    pub(super) fn lock_all(&self) -> [Guard<'_, Guarded<L>>; REGIONS] {
        self.ensure_registered();
        let mut region = 0;
        self.regions.lock_all().map(|guard| {
            let held = LockedSlow { global: self, guard }.drained(region);
            region = region.wrapping_add(1);
            held.guard
        })
    }
}

impl<L: FreeList, const REGIONS: usize, const SLOW: bool> Locked<'_, L, REGIONS, SLOW> {
    /// Does the queued remote frees, if there are any. Code that takes a region's lock calls this first.
    #[inline(always)]
    pub(super) fn drained(mut self, region: usize) -> Self {
        if REGIONS > 1 && self.global.regions.get(region).has_remote_frees() {
            self.free_queued(region);
        }
        self
    }

    /// Frees all queued blocks. A double free or a wrong layout in a remote free is found here.
    #[cold]
    #[inline(never)]
    fn free_queued(&mut self, region: usize) {
        let Some(ring) = self.global.regions.get(region).ring() else { return };
        self.global.unmeasured(|| {
            ring.drain(|packed| {
                let block = Block::unpack(packed);
                let payload = self.guard.region().pointer(block.at).as_ptr();
                let layout = block.size.and_then(|size| Layout::from_size_align(size, 1).ok());
                calls::free_one(self, payload, layout);
            });
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Block {
    at: Granule,
    /// Bytes of its layout; `None` without a layout.
    size: Option<usize>,
}

impl Block {
    /// Packs the block into an even number: granule above, size plus one below. `None` if one is too large.
    fn pack(self) -> Option<u64> {
        let at = u32::try_from(self.at.0).ok()?;
        let size = u32::try_from(self.size.map_or(0, |size| size.wrapping_add(1))).ok()?;
        (u64::from(at) << 32).checked_add(MIN_BLOCK + u64::from(size.checked_mul(2)?))
    }

    fn unpack(packed: u64) -> Self {
        let packed = packed.wrapping_sub(MIN_BLOCK);
        let size = packed as u32 as usize / 2;
        Self { at: Granule((packed >> 32) as usize), size: size.checked_sub(1) }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/global/remote_free.rs"]
mod tests;
