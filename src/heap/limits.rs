//! What a program says of the heap's memory while it runs: a limit, and huge pages.

use super::Heap;
use crate::free_list::FreeList;
use crate::region::{GRANULE, Granule};

impl<L: FreeList> Heap<L> {
    /// Keeps everything that is placed from now on within the first `bytes` bytes of the region: [`top`](crate::Stats::top) does
    /// not rise above them. More than the region has lifts the limit.
    ///
    /// Nothing moves: where top lies above `bytes` now, it is the limit. Returns the limit in bytes, a multiple of 16.
    ///
    /// ```
    /// use core::alloc::Layout;
    ///
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
    /// assert_eq!(heap.set_limit(4096), 4096);
    /// assert!(heap.alloc(Layout::new::<[u8; 5000]>()).is_null());
    /// assert_eq!(heap.set_limit(usize::MAX), 1 << 20);
    /// assert!(!heap.alloc(Layout::new::<[u8; 5000]>()).is_null());
    /// assert_eq!(heap.set_limit(0), 5008);
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub fn set_limit(&mut self, bytes: usize) -> usize {
        self.limit = Granule(bytes / GRANULE).max(self.tiling.ground.top);
        self.tiling.ready = self.tiling.ready.min(self.limit);
        if self.tiling.ground.region.base().is_null() {
            self.limit.bytes()
        } else {
            self.limit.bytes().min(self.tiling.ground.region.size())
        }
    }

    /// The limit in bytes, if one was set that is below the region's end.
    pub(crate) fn limit(&self) -> Option<usize> {
        (self.limit.0 < self.region_size() / GRANULE).then(|| self.limit.bytes())
    }

    /// Asks the system to back the region with huge pages (`MADV_HUGEPAGE`), or not to (`MADV_NOHUGEPAGE`). False where it
    /// refuses: it may be built without them, or the memory be lent. Without this call it does as it does for all memory.
    ///
    /// Huge pages save page faults and translations of addresses in large heaps. They cost memory: of 2 MiB in which one
    /// byte is used, all are taken, and what was given back in small pieces may be taken again. From this call on large
    /// payloads are copied where they would have been moved by their pages.
    ///
    /// ```
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 26)?;
    /// if !heap.huge_pages(true) {
    ///     println!("the system has no huge pages");
    /// }
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub fn huge_pages(&mut self, wanted: bool) -> bool {
        let taken =
            !self.reservation.is_lent() && !self.base().is_null() && self.region().advise_huge_pages(wanted);
        if taken {
            // What is mapped anew would not be as it is asked for here.
            self.stop_moving();
        }
        taken
    }
}
