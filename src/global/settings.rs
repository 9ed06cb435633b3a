//! Settings that hold from the first allocation on, made where the heap is declared.

use super::SmallocGlobal;
use super::files::Files;
use super::low_memory::{LowMemory, LowMemoryCallback};
use crate::free_list::FreeList;
use crate::system::fatal::say;
use core::sync::atomic::Ordering;

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// A heap whose regions have `bytes` bytes together: [`with_region_size`](Self::with_region_size) of an equal part.
    ///
    /// ```
    /// use smalloc::{Indexed, SmallocGlobal};
    ///
    /// static HEAP: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_total_size(64 << 20);
    /// HEAP.init()?;
    /// assert_eq!(HEAP.stats().region_size, 64 << 20);
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    #[must_use]
    pub const fn with_total_size(bytes: usize) -> Self {
        Self::with_region_size(bytes / REGIONS)
    }

    /// [`set_limit`](Self::set_limit) from the first allocation on: limits each region to its first `bytes` bytes.
    ///
    /// ```
    /// # use smalloc::SmallocGlobal;
    /// #[global_allocator]
    /// static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20).with_limit(1 << 20);
    ///
    /// assert!(Vec::<u8>::new().try_reserve(2 << 20).is_err());
    /// HEAP.set_limit(4 << 20);
    /// assert!(Vec::<u8>::new().try_reserve(2 << 20).is_ok());
    /// ```
    #[must_use]
    pub const fn with_limit(mut self, bytes: usize) -> Self {
        self.regions.set_first_limit(bytes);
        self
    }

    /// [`on_low_memory`](Self::on_low_memory) from the first allocation on.
    ///
    /// ```
    /// # use smalloc::SmallocGlobal;
    /// # use std::alloc::Layout;
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// static REFUSED: AtomicUsize = AtomicUsize::new(0);
    ///
    /// fn count(_: Layout) -> bool {
    ///     REFUSED.fetch_add(1, Ordering::Relaxed);
    ///     false
    /// }
    ///
    /// #[global_allocator]
    /// static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20).calling_on_low_memory(count);
    ///
    /// assert!(Vec::<u8>::new().try_reserve(1 << 30).is_err());
    /// assert_eq!(REFUSED.load(Ordering::Relaxed), 1);
    /// ```
    #[must_use]
    pub const fn calling_on_low_memory(mut self, function: LowMemory) -> Self {
        self.low_memory = LowMemoryCallback::calling(function);
        self
    }

    /// [`huge_pages`](Self::huge_pages) from the first allocation on. If the system refuses, its default applies.
    #[must_use]
    pub const fn with_huge_pages(mut self, wanted: bool) -> Self {
        self.regions.set_huge_pages(wanted);
        self
    }

    /// [`record_to`](Self::record_to) a file from the first allocation on. If that is impossible, a line on standard
    /// error says why, and the program continues.
    #[must_use]
    pub const fn recording_to(mut self, path: &'static str) -> Self {
        self.files.record = Some(path);
        self
    }

    /// [`publish_to`](Self::publish_to) a file from the first allocation on. If that is impossible, a line on standard
    /// error says why, and the program continues.
    #[must_use]
    pub const fn publishing_to(mut self, path: &'static str) -> Self {
        self.files.publish = Some(path);
        self
    }

    /// [`set_limit`](Self::set_limit) of all regions together: each gets an equal part of `bytes`. Returns the sum of
    /// their limits in bytes. A region that is full does not use what another one has left.
    pub fn set_total_limit(&self, bytes: usize) -> usize {
        // If the regions cannot be mapped, the limit holds once they are.
        let _ = self.init();
        let count = self.region_count();
        let part = bytes.checked_div(count).unwrap_or(bytes);
        let limits = (0..count).filter_map(|region| self.set_region_limit(region, part));
        limits.fold(0, usize::saturating_add)
    }

    /// Opens the files that the declaration names, once. The regions are mapped.
    pub(super) fn open_files(&self) {
        let Files { record, publish, opened } = &self.files;
        if (record.is_none() && publish.is_none()) || opened.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(path) = record
            && let Err(error) = self.record_to(path)
        {
            say(format_args!("cannot record to \"{path}\": {error} (name a file that can be written)"));
        }
        if let Some(path) = publish
            && let Err(error) = self.publish_to(path)
        {
            say(format_args!("cannot publish to \"{path}\": {error} (name a file that can be written)"));
        }
    }
}
