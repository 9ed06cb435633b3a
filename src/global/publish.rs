//! Publishing: what the heap holds, at every call, in a page that other processes can read.
//!
//! While a heap publishes its lock is watched, so that every call passes [`SmallocGlobal::show`] before it releases the
//! lock. The page is used with the lock held only, and there is one at a time.

use super::published::Published;
use super::{Guarded, SmallocGlobal};
use crate::free_list::FreeList;
use crate::heap::Heap;
use crate::inspect::{LiveError, LivePage};
use crate::system::clock::{boot_ns, coarse_ns};
use crate::system::path::Path;
use crate::system::{environment, errno};
use crate::threads::lock::{Lock, SlowReason};
use crate::watch::Watch;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Nanoseconds between two times that all numbers are written.
const INTERVAL_NS: u64 = 4_000_000;
/// At most one part in so many of the time is spent on writing them.
const SHARE: u64 = 50;

/// Whether a heap has asked the environment for a page: the first of a process does.
static ASKED: AtomicBool = AtomicBool::new(false);
/// When a heap of this process first published, in nanoseconds since the system started.
static BEGAN: AtomicU64 = AtomicU64::new(u64::MAX);

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Publishes the heap's numbers from now on in a file, for [`Live`](crate::Live) and the example `live` to be read by
    /// other processes while this one runs.
    ///
    /// The file has 4096 bytes and is mapped. No thread, socket or call of the system is needed to write it: what is in
    /// use is written at every call, with the lock held, and all numbers at calls that are 4 ms apart or more. A file that a
    /// process has left behind is replaced. Nobody may shorten it while it is written.
    ///
    /// The environment variable `SMALLOC_LIVE` names a file for the first heap of a process, with the number of the
    /// process for `%p`; a child that inherits it needs that.
    ///
    /// A child of `fork` does not publish, and leaves its parent's page alone.
    ///
    /// # Errors
    /// The heap is no `static` or publishes already, another heap or process publishes in that file, the file is something
    /// else, or it cannot be made or mapped.
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
        let began = BEGAN.fetch_min(now, Ordering::Relaxed).min(now);
        let page = LivePage::create(path, process(), (began, boot_ns), L::NAME)?;
        let mut heaps = self.lock_all();
        page.write(&self.stats_of(&heaps), boot_ns(), 0);
        let used_and_top = heaps.each_ref().map(|heap| heap.used_and_top());
        *self.published.lock() = Some(Published { page, used_and_top });
        heaps.iter_mut().for_each(|heap| heap.set_slow(SlowReason::LivePage, true));
        Ok(())
    }

    /// Stops to publish; the file stays, with the numbers of now. False if the heap did not publish.
    pub fn stop_publishing(&self) -> bool {
        let mut heaps = self.lock_all();
        let published = self.published.lock().take();
        heaps.iter_mut().for_each(|heap| heap.set_slow(SlowReason::LivePage, false));
        if let Some(Published { page, .. }) = &published {
            page.write(&self.stats_of(&heaps), boot_ns(), 0);
            page.stop();
        }
        drop(heaps);
        published.is_some()
    }

    /// Publishes in the file that the environment names, if it names one and this is the first heap that asks.
    pub(super) fn publish_for_environment(&self) {
        if !self.is_registered() || ASKED.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(text) = environment::LIVE.value() {
            self.publish_where_told(text);
        }
    }

    /// Publishes in the file that a text with `%p` in it names. Apart, since a path takes pages of the stack, which a
    /// first call that publishes nothing should not touch.
    #[cold]
    #[inline(never)]
    fn publish_where_told(&self, text: &[u8]) {
        let published = self.publish(&Path::with_process(text));
        let text = text.escape_ascii();
        match published {
            Ok(()) => {}
            // Programs that this one starts inherit its environment.
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
        let (used, top) = published.set(region, heap.used_and_top());
        let now = coarse_ns();
        if !published.page.call(used, top, now) {
            return;
        }
        let begin = boot_ns();
        // Where another thread is at work in another region, the next call will do.
        if let Some(stats) = self.stats_beside(region, heap) {
            let took = boot_ns().saturating_sub(begin);
            let next = now.saturating_add(INTERVAL_NS.max(took.saturating_mul(SHARE)));
            published.page.write(&stats, begin, next);
        }
    }

    /// In the child of a `fork`, lets go of the page, which is the parent's.
    pub(super) fn leave_page_to_parent(&self) {
        let mut heaps = self.lock_all();
        let mut live = self.published.lock();
        if live.as_ref().is_some_and(|published| published.page.process() != u64::from(process())) {
            *live = None;
            heaps.iter_mut().for_each(|heap| heap.set_slow(SlowReason::LivePage, false));
        }
    }
}

/// Publishes what every call leaves behind in a region's heap, as a watcher.
pub(super) struct Publishing<'a, L: FreeList, const REGIONS: usize, const SLOW: bool> {
    pub(super) global: &'a SmallocGlobal<L, REGIONS>,
    pub(super) lock: &'a Lock<Guarded<L>>,
}

impl<L: FreeList, const REGIONS: usize, const SLOW: bool> Watch<L> for Publishing<'_, L, REGIONS, SLOW> {
    #[inline(always)]
    fn done(&mut self, heap: &Heap<L>) {
        if SLOW && self.lock.is_slow() {
            self.global.write_page(self.global.regions.number_of_lock(self.lock), heap);
        }
    }
}

/// The number of this process.
fn process() -> u32 {
    // SAFETY: the call has no conditions.
    unsafe { libc::getpid() as u32 }
}
