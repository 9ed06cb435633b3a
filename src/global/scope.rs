//! Regions as budgets: which region a piece of code allocates in, and the limit and the name of each.

use super::SmallocGlobal;
use crate::free_list::FreeList;
use crate::system::fatal::fatal;
use crate::threads::caches::Caches;
use crate::threads::home::scope::Scope;
use crate::threads::regions::Count;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Makes the first `count` regions the homes of threads, at least 1. In the others only
    /// [`in_region`](Self::in_region) and [`prefer_region`](Self::prefer_region) allocate, so their statistics tell
    /// exactly what that code holds. 0, and more than there are regions, mean all; that is the default.
    ///
    /// ```
    /// use smalloc::{Indexed, SmallocGlobal};
    ///
    /// // Threads allocate in region 0; regions 1 to 3 are for tenants.
    /// static HEAP: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(64 << 20).with_homes(1);
    /// ```
    #[must_use]
    pub const fn with_homes(mut self, count: usize) -> Self {
        self.regions.set_homes(count);
        self
    }

    /// Maps `count` regions, at least 1 and at most the type's. Overrides the environment variable `SMALLOC_REGIONS`,
    /// which is a number or `cores`.
    ///
    /// ```
    /// use smalloc::{Indexed, SmallocGlobal};
    ///
    /// static HEAP: SmallocGlobal<Indexed, 16> = SmallocGlobal::with_region_size(64 << 20).with_regions(3);
    /// HEAP.init()?;
    /// assert_eq!((HEAP.stats().region_size, HEAP.region_count()), (3 * (64 << 20), 3));
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    #[must_use]
    pub const fn with_regions(mut self, count: usize) -> Self {
        self.regions.set_count(Count::Exactly(count));
        self
    }

    /// Maps a region for each core that the process may run on (`sched_getaffinity`), at most the type's.
    #[must_use]
    pub const fn with_region_per_core(mut self) -> Self {
        self.regions.set_count(Count::Cores);
        self
    }

    /// The number of regions that are mapped; the type's before [`init`](Self::init) and the first allocation.
    #[must_use]
    pub fn region_count(&self) -> usize {
        self.regions.count()
    }

    /// Runs `work`; this thread allocates in a region meanwhile, and nowhere else.
    ///
    /// A request that the region has no room for fails as if the heap were full: the low-memory callback is called, and
    /// `alloc` returns null. A `realloc` stays in the region of its payload if the payload can be resized in place, and
    /// otherwise moves to this one. Payloads may be freed anywhere, by any thread.
    ///
    /// Scopes may be nested; the innermost of a heap counts. A scope ends when `work` returns or unwinds, and belongs
    /// to the thread: threads that `work` starts do not inherit it, and a future that is polled in it leaves it when it
    /// is suspended. Outside of all scopes this costs no instruction; inside, each call takes a slower path.
    ///
    /// A region that does not exist ends the process with one line.
    ///
    /// ```
    /// use smalloc::{Indexed, SmallocGlobal};
    ///
    /// #[global_allocator]
    /// static HEAP: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(64 << 20).with_homes(1);
    ///
    /// HEAP.name_region(1, "parser");
    /// HEAP.set_region_limit(1, 1 << 20);
    /// let words = HEAP.in_region(1, || vec![0_u64; 1000]);
    /// assert_eq!(HEAP.region_stats(1).unwrap().used_bytes, 8000);
    /// assert!(HEAP.in_region(1, || Vec::<u8>::new().try_reserve(2 << 20)).is_err());
    /// drop(words);
    /// assert_eq!(HEAP.region_stats(1).unwrap().used_bytes, 0);
    /// ```
    pub fn in_region<R>(&self, region: usize, work: impl FnOnce() -> R) -> R {
        self.assert_region(region);
        Caches::without(|| self.regions.within(Scope::Region(region), work))
    }

    /// [`in_region`](Self::in_region), but a request that the region has no room for goes to the homes of threads.
    ///
    /// ```
    /// use smalloc::{Indexed, SmallocGlobal};
    ///
    /// #[global_allocator]
    /// static HEAP: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(64 << 20).with_homes(1);
    ///
    /// HEAP.set_region_limit(1, 1 << 20);
    /// let large = HEAP.prefer_region(1, || vec![1_u8; 2 << 20]);
    /// assert_eq!(HEAP.region_stats(1).unwrap().used_bytes, 0);
    /// # drop(large);
    /// ```
    pub fn prefer_region<R>(&self, region: usize, work: impl FnOnce() -> R) -> R {
        self.assert_region(region);
        Caches::without(|| self.regions.within(Scope::Preferred(region), work))
    }

    /// Names a region, for people: [`region_name`](Self::region_name) returns the name. False if there is no such
    /// region.
    pub fn name_region(&self, region: usize, name: &'static str) -> bool {
        let exists = region < REGIONS;
        if exists {
            self.enter_slow(region).guard.name = Some(name);
        }
        exists
    }

    /// The name of a region; `None` if it has none, or does not exist.
    #[must_use]
    pub fn region_name(&self, region: usize) -> Option<&'static str> {
        if region < REGIONS { self.enter_slow(region).guard.name } else { None }
    }

    /// [`set_limit`](Self::set_limit) of one region: limits placement to its first `bytes` bytes. Returns the limit in
    /// bytes; `None` if there is no such region.
    pub fn set_region_limit(&self, region: usize, bytes: usize) -> Option<usize> {
        if region >= REGIONS {
            return None;
        }
        Some(self.set_limit_of(region, &mut self.enter_slow(region).guard, bytes))
    }

    /// Ends the process if there is no such region. Their number is known once they are mapped.
    fn assert_region(&self, region: usize) {
        if REGIONS > 1 && !self.regions.is_mapped() {
            // If this fails, so do the requests.
            let _ = self.init();
        }
        let count = self.regions.count();
        if region >= count {
            fatal(format_args!("there is no region {region}: the heap has {count}"));
        }
    }
}
