//! Memory settings that a program can change at run time: a limit, and huge pages.

use super::Heap;
use crate::free_list::FreeList;
use crate::region::{GRANULE, Granule};
use core::time::Duration;

impl<L: FreeList> Heap<L> {
    /// Limits the heap to the first `bytes` bytes of the region: [`top`](crate::Stats::top) does not rise above them. A
    /// value of the region's size or more removes the limit.
    ///
    /// Nothing moves: if top is above `bytes` now, top is the limit. Returns the limit in bytes, a multiple of 16.
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

    /// The limit in bytes, if one is set below the region's end.
    pub(crate) fn limit(&self) -> Option<usize> {
        (self.limit.0 < self.region_size() / GRANULE).then(|| self.limit.bytes())
    }

    /// Keeps memory that is idle, since use has fallen to a fraction, for `time`; [`Duration::ZERO`] restores the
    /// default, some thousand calls. A clock is then asked, at most once every 256 calls.
    /// About 10 MiB of idle memory stay at either setting, also after `time`; [`trim`](Self::trim) returns it.
    ///
    /// ```
    /// use core::time::Duration;
    ///
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 26)?;
    /// heap.decay(Duration::from_secs(10));
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub fn decay(&mut self, time: Duration) {
        self.purge_policy.decay = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    }

    /// Bytes of the largest payload that an empty heap could hold.
    pub(crate) fn most_bytes(&self) -> usize {
        self.limit().unwrap_or(self.region_size())
    }

    /// Segments freed so far.
    pub(crate) fn freed(&self) -> u64 {
        self.tiling.counters.freed
    }

    /// Asks the system to back the region with huge pages (`MADV_HUGEPAGE`), or not to (`MADV_NOHUGEPAGE`). False if it
    /// refuses: the kernel may lack them, or the memory is lent. Without this call, the system's default applies.
    ///
    /// Huge pages save page faults and TLB misses in large heaps, but cost memory: one byte in use keeps 2 MiB
    /// resident, and purged pages may become resident again with their neighbours. After this call, `realloc` copies
    /// large payloads instead of moving their pages.
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
            // Pages mapped again would not have the advice.
            self.stop_moving();
        }
        taken
    }
}
