//! The failure report: off by default, written once.

use super::reporting::Reporting;
use super::{Guarded, SmallocGlobal};
use crate::free_list::FreeList;
use crate::system::errno;
use crate::system::fatal::write_to_stderr;
use crate::threads::lock::Guard;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Enables the report of the first request that fails, as [`report_failures`](Self::report_failures) does.
    ///
    /// ```
    /// use smalloc::SmallocGlobal;
    ///
    /// #[global_allocator]
    /// static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20).reporting_failures();
    /// ```
    #[must_use]
    pub const fn reporting_failures(mut self) -> Self {
        self.reporting = Reporting::armed();
        self
    }

    /// Enables or disables the report of the next request that fails. Overrides earlier calls and the environment
    /// variable `SMALLOC_REPORT`, which is 1 or 0.
    ///
    /// The report is a few lines on standard error: the request, whether the heap is full or fragmented or the request
    /// exceeds the region or the limit, the five largest holes, and a map in one line. It is written once, however many
    /// requests fail on however many threads, and allocates nothing.
    ///
    /// It is off by default because the heap cannot tell a fatal failure from an expected one: `Vec::push` aborts on
    /// null, `Vec::try_reserve` returns an error, and both make the same request. Wrap code that expects failures in
    /// [`expecting_failures`](Self::expecting_failures). Failures of [`smalloc`](Self::smalloc) are in its status only.
    pub fn report_failures(&self, report: bool) {
        self.reporting.set(report);
    }

    /// Runs `work`; failures on any thread are not reported meanwhile.
    ///
    /// ```
    /// # use smalloc::SmallocGlobal;
    /// #[global_allocator]
    /// static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20).reporting_failures();
    ///
    /// let mut cache: Vec<u8> = Vec::new();
    /// if HEAP.expecting_failures(|| cache.try_reserve(1 << 30)).is_err() {
    ///     // A smaller cache will do.
    /// }
    /// ```
    pub fn expecting_failures<R>(&self, work: impl FnOnce() -> R) -> R {
        self.reporting.expecting(work)
    }

    /// Reports a request that failed in the region tried last, if the report is enabled.
    #[cold]
    #[inline(never)]
    pub(super) fn report<'a>(
        &'a self,
        heap: Guard<'a, Guarded<L>>,
        size: usize,
        align: usize,
    ) -> Guard<'a, Guarded<L>> {
        if !self.reporting.claim() {
            return heap;
        }
        let failure = heap.failure(size, align);
        heap.unlocked(|| errno::unchanged(|| failure.tell(write_to_stderr))).0
    }
}
