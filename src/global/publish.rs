//! Publishing: the heap's statistics in a page that other processes can read, updated at every call.
//!
//! Publishing makes the lock slow, so that every call updates the page before it releases the lock. A heap has at most
//! one page, which is used only with a heap's lock held.

use super::published::Published;
use super::{Guarded, SmallocGlobal};
use crate::free_list::FreeList;
use crate::heap::Heap;
use crate::inspect::{LiveError, LivePage};
use crate::system::clock::{boot_ns, coarse_ns};
use crate::system::path::Path;
use crate::system::{environment, errno};
use crate::threads::lock::{Guard, Lock, SlowReason};
use crate::watch::Watch;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Nanoseconds between updates of all statistics: one tick of the coarse clock at 250 Hz.
const INTERVAL_NS: u64 = 4_000_000;
/// Pause between these updates as a multiple of their duration, so that they take at most 2 % of the time.
const PAUSE_FACTOR: u64 = 50;

/// Whether a heap of this process has read the variable; only the first one does.
static ENVIRONMENT_READ: AtomicBool = AtomicBool::new(false);
/// When a heap of this process first published, in nanoseconds since boot.
static FIRST_PUBLISHED_NS: AtomicU64 = AtomicU64::new(u64::MAX);

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Publishes the heap's statistics from now on in a file that other processes read while this one runs, with
    /// [`Live`](crate::Live) or `smalloc top`.
    ///
    /// The file has 4096 bytes and is mapped, so writing it needs no thread, socket or system call. The bytes in use
    /// are written at every call, with the lock held; the other numbers at calls that are at least 4 ms apart. A file
    /// that another process has left behind is replaced. It must not be truncated while it is written.
    ///
    /// The environment variable `SMALLOC_LIVE` names a file for the first heap of a process. `%p` in the name becomes
    /// the process id, which child processes that inherit the variable need.
    ///
    /// A child of `fork` does not publish and leaves its parent's page alone.
    ///
    /// # Errors
    /// The heap is not a `static` or publishes already, another heap or process publishes to the file, the file is
    /// something else, or it cannot be created or mapped.
    ///
    /// ```
    /// # use smalloc::SmallocGlobal;
    /// static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
    ///
    /// let path = std::env::temp_dir().join(format!("smalloc-live-{}", std::process::id()));
    /// HEAP.publish_to(path.to_str().unwrap())?;
    /// HEAP.smalloc(std::alloc::Layout::new::<[u8; 1024]>());
    ///
    /// // In another process:
    /// let live = smalloc::Live::open(path.to_str().unwrap())?;
    /// assert_eq!(live.read().used_bytes, 1024);
    /// # HEAP.stop_publishing();
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn publish_to(&self, path: impl AsRef<[u8]>) -> Result<(), LiveError> {
        let path = Path::new(path.as_ref());
        self.init().map_err(|error| LiveError::System { errno: error.errno })?;
        errno::unchanged(|| self.publish(&path))
    }

    fn publish(&self, path: &Path) -> Result<(), LiveError> {
        if !self.is_registered() {
            return Err(LiveError::NotStatic);
        }
        let heaps = self.lock_all();
        if self.published.lock().is_some() {
            return Err(LiveError::AlreadyPublishing);
        }
        drop(heaps);
        let now = boot_ns();
        let began = FIRST_PUBLISHED_NS.fetch_min(now, Ordering::Relaxed).min(now);
        let page = LivePage::create(path, process_id(), (began, boot_ns), L::NAME)?;
        let mut heaps = self.lock_all();
        page.write(&self.stats_of(&heaps), boot_ns(), 0);
        if self.published.lock().is_some() {
            // Another thread was faster. The page is dropped without the locks.
            page.stop();
            drop(heaps);
            return Err(LiveError::AlreadyPublishing);
        }
        let used_and_top = heaps.each_ref().map(|heap| heap.used_and_top());
        *self.published.lock() = Some(Published { page, used_and_top });
        heaps.iter_mut().for_each(|heap| heap.set_slow(SlowReason::LivePage, true));
        Ok(())
    }

    /// Stops publishing; the file remains, with the current numbers. Returns false if the heap did not publish.
    pub fn stop_publishing(&self) -> bool {
        // The page is dropped without the locks.
        let published = self.end_publishing(&mut self.lock_all());
        published.is_some()
    }

    /// Ends publishing and returns the page, if there is one. The caller holds all locks.
    pub(super) fn end_publishing(
        &self,
        heaps: &mut [Guard<'_, Guarded<L>>; REGIONS],
    ) -> Option<Published<REGIONS>> {
        let published = self.published.lock().take();
        heaps.iter_mut().for_each(|heap| heap.set_slow(SlowReason::LivePage, false));
        if let Some(Published { page, .. }) = &published {
            page.write(&self.stats_of(heaps), boot_ns(), 0);
            page.stop();
        }
        published
    }

    /// Publishes to the file that the environment names, if this is the first heap that asks.
    pub(super) fn publish_for_environment(&self) {
        if !self.is_registered() || ENVIRONMENT_READ.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(text) = environment::LIVE.value() {
            self.publish_to_pattern(text);
        }
    }

    /// Publishes to a file whose name may contain `%p`. Outlined, because a path takes several KiB of stack.
    #[cold]
    #[inline(never)]
    fn publish_to_pattern(&self, text: &[u8]) {
        let published = self.publish(&Path::with_process(text));
        let text = text.escape_ascii();
        match published {
            Ok(()) => {}
            // Child processes inherit the variable, so this is no error.
            Err(LiveError::InUse { process }) => environment::LIVE.tell(format_args!(
                "not publishing: process {process} already publishes to \"{text}\" (use %p for one file per process)"
            )),
            Err(error) => environment::LIVE.complain(format_args!(
                "cannot publish to \"{text}\": {error} (name a file that can be written)"
            )),
        }
    }

    #[cold]
    #[inline(never)]
    fn write_page(&self, region: usize, heap: &Heap<L>) {
        let mut live = self.published.lock();
        let Some(published) = &mut *live else { return };
        let (used, top) = published.update(region, heap.used_and_top());
        let now = coarse_ns();
        if !published.page.call(used, top, now) {
            return;
        }
        let begin = boot_ns();
        // If another thread holds another region's lock, a later call updates the rest.
        if let Some(stats) = self.try_stats_with(region, heap) {
            let took = boot_ns().saturating_sub(begin);
            let next = now.saturating_add(INTERVAL_NS.max(took.saturating_mul(PAUSE_FACTOR)));
            published.page.write(&stats, begin, next);
        }
    }

    /// Drops the page in a child of `fork`: it belongs to the parent.
    pub(super) fn drop_parents_page(&self) {
        let mut heaps = self.lock_all();
        let mut live = self.published.lock();
        if live.as_ref().is_some_and(|published| published.page.process() != u64::from(process_id())) {
            *live = None;
            heaps.iter_mut().for_each(|heap| heap.set_slow(SlowReason::LivePage, false));
        }
    }
}

/// Watches a region's calls for the published page.
pub(super) struct PublishWatch<'a, L: FreeList, const REGIONS: usize, const SLOW: bool> {
    pub(super) global: &'a SmallocGlobal<L, REGIONS>,
    pub(super) lock: &'a Lock<Guarded<L>>,
}

impl<L: FreeList, const REGIONS: usize, const SLOW: bool> Watch<L> for PublishWatch<'_, L, REGIONS, SLOW> {
    #[inline(always)]
    fn done(&mut self, heap: &Heap<L>) {
        if SLOW && self.lock.is_slow() {
            self.global.write_page(self.global.regions.number_of_lock(self.lock), heap);
        }
    }
}

fn process_id() -> u32 {
    // SAFETY: the call has no preconditions.
    unsafe { libc::getpid() as u32 }
}
