//! The reserve: the last bytes below the limit, for code that handles an allocation failure.
//!
//! The heap's own limit is what others may use. It is raised for a request from [`SmallocGlobal::spend_reserve`] and
//! lowered again before the lock is released. While top lies in the reserve, the lock is slow, and every slow entry
//! lowers the limit to top, so that others cannot follow.

use super::{Guarded, SmallocGlobal};
use crate::free_list::FreeList;
use crate::recording::{Call, Record};
use crate::threads::home::scope::Scope;
use crate::threads::lock::{Guard, SlowReason};

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Keeps the last `bytes` bytes of each region, below its limit, as a reserve that only
    /// [`spend_reserve`](Self::spend_reserve) opens.
    #[must_use]
    pub const fn with_reserve(mut self, bytes: usize) -> Self {
        self.regions.set_reserve(bytes);
        self
    }

    /// Runs `work`; requests of this thread that find no room elsewhere are placed in the reserve meanwhile.
    ///
    /// It is meant for code that handles an allocation failure: to log it, to roll a transaction back, to answer a
    /// client. The reserve is open for this thread alone, until `work` returns or unwinds; requests of other threads
    /// fail as before. Blocks in the reserve may outlive `work`, and the reserve has its full size again when they are
    /// freed; until then, holes between them serve every thread, and each call takes the slow path.
    ///
    /// A block that begins below the reserve may end in it, and then leaves others nothing of what is below either.
    ///
    /// A request that the reserve has no room for fails as any other: the low-memory callback is called.
    ///
    /// ```
    /// use smalloc::SmallocGlobal;
    ///
    /// #[global_allocator]
    /// static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(16 << 20).with_reserve(1 << 20);
    ///
    /// let mut rows: Vec<Vec<u8>> = Vec::with_capacity(100);
    /// let message = loop {
    ///     let mut row = Vec::new();
    ///     if let Err(error) = row.try_reserve_exact(500 << 10) {
    ///         break HEAP.spend_reserve(|| {
    ///             // Large enough that an ordinary request fails here.
    ///             let mut message = String::with_capacity(900 << 10);
    ///             message += &format!("{} rows, then: {error}", rows.len());
    ///             message
    ///         });
    ///     }
    ///     rows.push(row);
    /// };
    /// assert!(message.starts_with("30 rows"));
    /// ```
    pub fn spend_reserve<R>(&self, work: impl FnOnce() -> R) -> R {
        self.regions.within(Scope::Reserve, work)
    }

    /// Sets the program's limit of a region, which includes the reserve. Returns it in bytes.
    pub(super) fn set_limit_of(
        &self,
        region: usize,
        heap: &mut Guard<'_, Guarded<L>>,
        bytes: usize,
    ) -> usize {
        heap.limit = bytes;
        let reserve = self.regions.reserve();
        let limit = if reserve > 0 { self.regions.ordinary_limit(heap) } else { bytes };
        self.limit(region, heap, limit).saturating_add(reserve)
    }

    /// Lets requests use the reserve until [`close_reserve`](Self::close_reserve).
    pub(super) fn open_reserve(&self, region: usize, heap: &mut Guard<'_, Guarded<L>>) {
        let whole = heap.limit;
        self.limit(region, heap, whole);
    }

    /// Keeps requests out of the reserve, or out of the rest of it.
    #[cold]
    pub(super) fn close_reserve(&self, region: usize, heap: &mut Guard<'_, Guarded<L>>) {
        let ordinary = self.regions.ordinary_limit(heap);
        let limit = self.limit(region, heap, ordinary);
        heap.set_slow(SlowReason::Reserve, limit > ordinary);
    }

    /// Sets the limit of a heap, and returns it: `bytes`, or top if that is higher.
    fn limit(&self, region: usize, heap: &mut Guard<'_, Guarded<L>>, bytes: usize) -> usize {
        let limit = heap.set_limit(bytes);
        self.record(region, heap.lock(), 0, || Record::new(Call::Limit, bytes, None));
        limit
    }
}
