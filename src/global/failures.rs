//! The report of a request that found no place: off unless it was asked for, and told once.

use super::{Heap, SmallocGlobal};
use crate::free_list::FreeList;
use crate::system::errno;
use crate::system::fatal::{refuse, write_to_stderr};
use crate::threads::lock::Guard;
use core::alloc::Layout;
use core::ffi::CStr;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Whether failures are reported: nobody has said, so the environment will; no; the next one; one has been.
const UNSAID: u8 = 0;
const OFF: u8 = 1;
const NEXT: u8 = 2;
const DONE: u8 = 3;

/// Whether the next failure is to be reported.
pub(super) struct Reporting {
    state: AtomicU8,
    /// Threads that expect failures at the moment.
    expecting: AtomicUsize,
}

impl Reporting {
    pub(super) const fn unsaid() -> Self {
        Self { state: AtomicU8::new(UNSAID), expecting: AtomicUsize::new(0) }
    }

    const fn on() -> Self {
        Self { state: AtomicU8::new(NEXT), ..Self::unsaid() }
    }

    /// Asks the environment, if the program has said nothing.
    pub(super) fn ask_environment(&self) {
        if self.state.load(Ordering::Relaxed) == UNSAID {
            let state = if asked_for() { NEXT } else { OFF };
            let _ = self.state.compare_exchange(UNSAID, state, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether this failure is to be reported. True once.
    fn is_next(&self) -> bool {
        self.expecting.load(Ordering::Relaxed) == 0
            && self.state.compare_exchange(NEXT, DONE, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Whether the environment variable `SMALLOC_REPORT` asks for a report. What is neither yes nor no ends the process.
fn asked_for() -> bool {
    // SAFETY: the name ends in a zero byte.
    let value = unsafe { libc::getenv(c"SMALLOC_REPORT".as_ptr()) };
    let Some(value) = NonNull::new(value) else { return false };
    // SAFETY: what the environment holds ends in a zero byte.
    let text = unsafe { CStr::from_ptr(value.as_ptr()) }.to_bytes();
    match text {
        b"1" => true,
        b"0" | b"" => false,
        _ => refuse(format_args!("SMALLOC_REPORT: \"{}\" is neither 0 nor 1", text.escape_ascii())),
    }
}

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
        self.reporting = Reporting::on();
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
        self.reporting.state.store(if report { NEXT } else { OFF }, Ordering::Relaxed);
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
        struct Expecting<'a>(&'a AtomicUsize);
        impl Drop for Expecting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.reporting.expecting.fetch_add(1, Ordering::Relaxed);
        let _expecting = Expecting(&self.reporting.expecting);
        work()
    }

    /// Reports a request that found no place in the region tried last, if that was asked for.
    #[cold]
    #[inline(never)]
    pub(super) fn report<'a>(&'a self, heap: Guard<'a, Heap<L>>, layout: Layout) -> Guard<'a, Heap<L>> {
        if !self.reporting.is_next() {
            return heap;
        }
        let failure = heap.failure(layout.size(), layout.align());
        heap.unlocked(|| errno::unchanged(|| failure.tell(write_to_stderr))).0
    }
}
