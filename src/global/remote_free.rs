//! A free that does not wait: the block is handed over to whoever holds its region's lock next.

use super::held::{Locked, Slow};
use super::{Guarded, SmallocGlobal};
use crate::calls;
use crate::free_list::FreeList;
use crate::heap::is_aligned;
use crate::region::{GRANULE, Granule};
use crate::threads::free_ring::{MIN_BLOCK, SLOTS};
use crate::threads::lock::Guard;
use core::alloc::Layout;

/// Blocks that are handed over between two looks at what is due to go back to the system. More than wait at once: where
/// the owner does nothing, they look who find no room for their blocks.
const LOOK_EVERY: usize = 2 * SLOTS;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Hands a payload over to its region. False if that has no room for more, or where the block is none that could be
    /// freed: that is found out with the lock held.
    pub(super) fn hand_over(&self, region: usize, payload: *mut u8, layout: Option<Layout>) -> bool {
        let Some(shared) = self.regions.all().get(region) else { return false };
        let offset = self.regions.offset_in(region, payload);
        let aligned = layout.is_none_or(|layout| is_aligned(payload, layout));
        let block = Block { at: Granule(offset / GRANULE), size: layout.map(|layout| layout.size()) };
        match block.pack() {
            Some(packed) if aligned && offset.is_multiple_of(GRANULE) => {
                let ticket = shared.ring().and_then(|ring| ring.push(packed));
                if ticket.is_some_and(|ticket| ticket % LOOK_EVERY == LOOK_EVERY - 1) {
                    self.purge_for_owner(region);
                }
                ticket.is_some()
            }
            _ => false,
        }
    }

    /// Purges what is due in a region, unless its lock is taken. An owner that only allocates never does it: purging is
    /// considered at the end of a free.
    #[cold]
    #[inline(never)]
    fn purge_for_owner(&self, region: usize) {
        if let Some(guard) = self.regions.get(region).lock.try_lock() {
            calls::purge_if_due(Slow { global: self, guard }.drained(region));
        }
    }

    /// Takes all locks, and frees what was handed over.
    pub(super) fn lock_all(&self) -> [Guard<'_, Guarded<L>>; REGIONS] {
        self.ensure_registered();
        let mut region = 0;
        self.regions.lock_all().map(|guard| {
            let held = Slow { global: self, guard }.drained(region);
            region = region.wrapping_add(1);
            held.guard
        })
    }
}

impl<L: FreeList, const REGIONS: usize, const SLOW: bool> Locked<'_, L, REGIONS, SLOW> {
    /// Frees what was handed over to the heap, if there is anything: whoever takes its lock does this first.
    #[inline(always)]
    pub(super) fn drained(mut self, region: usize) -> Self {
        if REGIONS > 1 && self.global.regions.get(region).has_remote_frees() {
            self.free_handed_over(region);
        }
        self
    }

    /// Frees all that was handed over to the heap. A double free, or a layout that does not match, is found out here.
    #[cold]
    #[inline(never)]
    fn free_handed_over(&mut self, region: usize) {
        let Some(ring) = self.global.regions.get(region).ring() else { return };
        ring.drain(|packed| {
            let block = Block::unpack(packed);
            let payload = self.guard.region().pointer(block.at).as_ptr();
            let layout = block.size.and_then(|size| Layout::from_size_align(size, 1).ok());
            calls::free_one(self, payload, layout);
        });
    }
}

/// A block that is handed over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Block {
    at: Granule,
    /// The size that its layout names, if there is a layout.
    size: Option<usize>,
}

impl Block {
    /// Both in one even number: the granule above, the size plus one below. None for what is too large for that.
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
