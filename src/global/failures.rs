//! The report of a request that found no place: off unless it was asked for, and told once.

use super::reporting::Reporting;
use super::{Guarded, SmallocGlobal};
use crate::free_list::FreeList;
use crate::system::errno;
use crate::system::fatal::write_to_stderr;
use crate::threads::lock::Guard;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// The same heap, which reports the first request that finds no place: see
    /// [`report_failures`](Self::report_failures).
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

    /// From now on, reports the next request that finds no place, or none; whatever was said before, here or by the
    /// environment variable `SMALLOC_REPORT`, which is 1 or 0.
    ///
    /// The report is some lines on standard error: what was asked for, whether the heap is full or fragmented or the
    /// request is larger than the region or the limit, the five largest holes, and a map in one line. It is written once, however
    /// often and on however many threads requests fail, and allocates nothing.
    ///
    /// The heap cannot know what the program does with the null that it returns: a `Vec::push` ends the program, a
    /// `Vec::try_reserve` returns an error, and both ask the same of the heap. So nothing is reported unless it was asked
    /// for; where a program expects failures, [`expecting_failures`](Self::expecting_failures) keeps them out of the
    /// report. What [`smalloc`](Self::smalloc) cannot place is never reported: its status tells.
    pub fn report_failures(&self, report: bool) {
        self.reporting.set(report);
    }

    /// Runs `work`, and reports no failure meanwhile, on this thread or another.
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

    /// Reports a request that found no place in the region tried last, if that was asked for.
    #[cold]
    #[inline(never)]
    pub(super) fn report<'a>(
        &'a self,
        heap: Guard<'a, Guarded<L>>,
        size: usize,
        align: usize,
    ) -> Guard<'a, Guarded<L>> {
        if !self.reporting.is_next() {
            return heap;
        }
        let failure = heap.failure(size, align);
        heap.unlocked(|| errno::unchanged(|| failure.tell(write_to_stderr))).0
    }
}
