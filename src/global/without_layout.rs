//! Calls that take a pointer without its layout, as those of C do.

use super::{Guarded, SmallocGlobal};
use crate::calls;
use crate::free_list::FreeList;
use core::ptr::NonNull;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// The bytes that a payload may use: those of its segment, the requested size rounded up to 16. `None` if no
    /// payload in use begins there.
    ///
    /// With the feature `hardened`, a payload that will be freed with its layout must not use more than it requested.
    ///
    /// ```
    /// use core::alloc::Layout;
    ///
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::with_region_size(1 << 20);
    /// let block = HEAP.smalloc(Layout::new::<[u8; 100]>()).0.unwrap();
    /// assert_eq!(HEAP.usable_size(block), Some(112));
    /// assert_eq!(HEAP.usable_size(core::ptr::NonNull::dangling()), None);
    /// ```
    #[must_use]
    pub fn usable_size(&self, payload: NonNull<u8>) -> Option<usize> {
        let region = self.regions.number_of(payload.as_ptr());
        let size = |guarded: &Guarded<L>| {
            let freed = guarded.hardened.holds(&guarded.heap, payload.as_ptr());
            if freed { None } else { guarded.heap.usable_size(payload) }
        };
        match self.enter(region) {
            Some(held) => size(&held.guard),
            None => size(&self.enter_slow(region).guard),
        }
    }

    /// Whether an address lies in one of the regions, in use or free. Takes no lock.
    ///
    /// ```
    /// use core::alloc::Layout;
    ///
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::with_region_size(1 << 20);
    /// let block = HEAP.smalloc(Layout::new::<u64>()).0.unwrap();
    /// assert!(HEAP.contains(block.as_ptr()) && !HEAP.contains(&0_u8));
    /// ```
    #[inline]
    #[must_use]
    pub fn contains(&self, address: *const u8) -> bool {
        self.regions.contain(address)
    }

    /// Resizes a payload to `new_size` bytes without its layout, in place if possible, otherwise by moving it. `None`
    /// if nothing fits, and nothing has changed.
    ///
    /// The first [`usable_size`](Self::usable_size) bytes are preserved, or `new_size` if that is less. A payload that
    /// moves is aligned to 16 bytes. A pointer that is not a payload in use writes one line to standard error and
    /// aborts.
    ///
    /// # Safety
    /// Nothing uses the payload any more if it has moved; and `new_size` is at most `isize::MAX - 15`.
    ///
    /// ```
    /// use core::alloc::Layout;
    ///
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::with_region_size(1 << 20);
    /// let block = HEAP.smalloc(Layout::new::<[u8; 100]>()).0.unwrap();
    /// unsafe { block.write_bytes(7, 100) };
    /// let block = unsafe { HEAP.srealloc(block, 10_000) }.unwrap();
    /// assert_eq!(unsafe { block.add(99).read() }, 7);
    /// unsafe { HEAP.sfree(block) };
    /// ```
    pub unsafe fn srealloc(&self, payload: NonNull<u8>, new_size: usize) -> Option<NonNull<u8>> {
        let payload = payload.as_ptr();
        let region = self.regions.number_of(payload);
        NonNull::new(match self.enter_drained(region) {
            // SAFETY: guaranteed by the caller.
            Some(held) => unsafe { calls::realloc(held, payload, None, new_size) },
            // SAFETY: guaranteed by the caller.
            None => unsafe { self.realloc_slow(region, payload, None, new_size) },
        })
    }
}
