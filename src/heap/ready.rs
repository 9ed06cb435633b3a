//! Memory that is committed in advance, so that later requests need no system call.

use super::Heap;
use crate::free_list::FreeList;
use crate::region::{Extent, GRANULE};
use crate::system::errno;

impl<L: FreeList> Heap<L> {
    /// Commits memory for requests of `bytes` bytes in all, rounding and alignment included, and keeps it: none of them
    /// makes a system call. False if the region or the [limit](Self::set_limit) is too small, or the system refuses;
    /// less than asked for may then be ready.
    ///
    /// The bytes are those behind [`top`](crate::Stats::top); holes below come in addition. From now on, automatic
    /// purges leave at least `bytes` bytes of free memory, and `realloc` copies large payloads instead of moving their
    /// pages. [`trim`](Self::trim) still returns the memory, and a request for more may still grow the heap.
    ///
    /// ```
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 26)?;
    /// assert!(heap.make_ready(16 << 20));
    /// assert!(heap.stats().committed_bytes >= 16 << 20);
    /// assert!(!heap.make_ready(1 << 30)); // larger than the region
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub fn make_ready(&mut self, bytes: usize) -> bool {
        self.commit_behind_top(bytes).is_some()
    }

    /// [`make_ready`](Self::make_ready) that also brings the memory into RAM, so that later requests cause no page
    /// faults in it. The bookkeeping, a fiftieth, is still faulted in as it is used.
    ///
    /// ```
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 26)?;
    /// assert!(heap.make_resident(16 << 20));
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    pub fn make_resident(&mut self, bytes: usize) -> bool {
        match self.commit_behind_top(bytes) {
            Some(ready) => {
                self.region().populate(self.tiling.pages.whole(ready));
                true
            }
            None => false,
        }
    }

    fn commit_behind_top(&mut self, bytes: usize) -> Option<Extent> {
        let (n, top) = (bytes.div_ceil(GRANULE), self.top());
        let end = self.limit.0.min(self.region_size() / GRANULE);
        if n > end.saturating_sub(top.0) {
            return None;
        }
        let ready = Extent::of(top, n);
        if ready.end > self.tiling.ready && !errno::unchanged(|| self.open(ready.end)) {
            return None;
        }
        self.stop_moving();
        self.purge_policy.keep(n);
        Some(ready)
    }
}
