//! A free that does not wait: the block is handed over to whoever holds its region's lock next.

use super::SmallocGlobal;
use crate::free_list::FreeList;
use crate::heap::is_aligned;
use crate::region::{GRANULE, Granule};
use crate::threads::free_ring::{FIRST, SLOTS};
use crate::threads::lock::Guard;
use crate::threads::shared::Heap;
use crate::unlocked::purge_if_due;
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
                let ticket = shared.handed_over().and_then(|ring| ring.put(packed));
                if ticket.is_some_and(|ticket| ticket % LOOK_EVERY == LOOK_EVERY - 1) {
                    self.purge_for_owner(region);
                }
                ticket.is_some()
            }
            _ => false,
        }
    }

    /// Gives back what is due in a region, unless its lock is taken. An owner that only allocates never does it: memory
    /// is given back at the end of a free.
    #[cold]
    #[inline(never)]
    fn purge_for_owner(&self, region: usize) {
        let shared = self.regions.get(region);
        if let Some(mut heap) = shared.heap.try_lock() {
            self.free_waiting(region, &mut heap);
            purge_if_due(heap);
        }
    }

    /// Frees what was handed over to a heap, if there is any: whoever takes its lock does this first.
    #[inline]
    pub(super) fn free_waiting(&self, region: usize, heap: &mut Guard<'_, Heap<L>>) {
        if REGIONS > 1 && self.regions.get(region).has_waiting() {
            self.free_handed_over(region, heap);
        }
    }

    /// Frees all that was handed over to a heap. A double free, or a layout that does not match, is found out here.
    #[cold]
    #[inline(never)]
    fn free_handed_over(&self, region: usize, heap: &mut Guard<'_, Heap<L>>) {
        let Some(ring) = self.regions.get(region).handed_over() else { return };
        ring.take(|packed| {
            let block = Block::unpack(packed);
            let payload = heap.region().pointer(block.at).as_ptr();
            match block.size.and_then(|size| Layout::from_size_align(size, 1).ok()) {
                Some(layout) if !heap.is_slow() => heap.free(payload, layout),
                layout => self.free_in(region, heap, payload, layout),
            }
        });
    }

    /// Takes all locks, and frees what was handed over.
    pub(super) fn lock_all(&self) -> [Guard<'_, Heap<L>>; REGIONS] {
        self.cover_first();
        let mut heaps = self.regions.lock_all();
        heaps.iter_mut().enumerate().for_each(|(region, heap)| self.free_waiting(region, heap));
        heaps
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
        (u64::from(at) << 32).checked_add(FIRST + u64::from(size.checked_mul(2)?))
    }

    fn unpack(packed: u64) -> Self {
        let packed = packed.wrapping_sub(FIRST);
        let size = packed as u32 as usize / 2;
        Self { at: Granule((packed >> 32) as usize), size: size.checked_sub(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_what_they_were() {
        let most = u32::MAX as usize - 1;
        let large = i32::MAX as usize - 1;
        for at in [0, 1, 12_345, most] {
            for size in [None, Some(0), Some(1), Some(4096), Some(large)] {
                let block = Block { at: Granule(at), size };
                let packed = block.pack().unwrap();
                assert!(packed >= FIRST && packed.is_multiple_of(2));
                assert_eq!(Block::unpack(packed), block);
            }
        }
        assert_eq!(Block { at: Granule(most + 1), size: None }.pack(), None);
        assert_eq!(Block { at: Granule(usize::MAX), size: None }.pack(), None);
        assert_eq!(Block { at: Granule(0), size: Some(large + 1) }.pack(), None);
    }
}
