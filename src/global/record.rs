//! Recording: every call passes [`SmallocGlobal::note`] while it holds the heap's lock.
//!
//! While a heap is recorded its lock is watched, so that the short ways of `alloc` and `dealloc` do not exist; the others
//! ask. The recorder has a lock of its own, which is taken last, so that the calls on all regions are in one order.

use super::{Guarded, SmallocGlobal};
use crate::free_list::{Fit, FreeList};
use crate::heap::Heap;
use crate::recording::{self, Call, Head, Record, RecordError, Recorded};
use crate::region::{Extent, Granule};
use crate::system::append_file::AppendFile;
use crate::system::errno;
use crate::threads::lock::{Lock, SlowReason};
use crate::watch::{Free, Named, Request, Resize, Watch};
use core::alloc::Layout;
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether a heap has asked the environment for a recording: the first of a process does.
static ASKED: AtomicBool = AtomicBool::new(false);

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Records every call from now on in a file: where it was placed, at what cost, by which thread, and in which order.
    ///
    /// A recording that is there is replaced, anything else stays. The file grows by 32 bytes a call, which are written
    /// with the lock held; all threads then take turns at that too. What is in it outlives the process, also one that is killed. If it cannot
    /// grow, because the disk is full, the recording ends with a line on standard error, and the program goes on.
    ///
    /// The segments in use and the limit come first, so that a recording that begins late can be replayed too. For its first
    /// allocation, a program is too late: the environment variable `SMALLOC_RECORD` names a file to which the first
    /// `SmallocGlobal` of a process is recorded from its first call on, with the number of the process for `%p`.
    ///
    /// A child of `fork` is not recorded, and leaves its parent's recording alone. Nobody else may shorten the file
    /// while it is written.
    ///
    /// Several regions are recorded in one file, in one order. A request that was refused by the thread's home and placed
    /// elsewhere is two records, a `realloc` that moves to another region an `alloc` and a `dealloc`, and a free that
    /// was handed over is recorded when it is done, by the thread that does it.
    ///
    /// The format is told in [`recording`](crate::recording); `smalloc replay` reads it.
    ///
    /// # Errors
    /// The heap is being recorded already, the file is in use or is something else, it cannot be made or mapped, or there is
    /// no region.
    ///
    /// ```
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::with_region_size(1 << 20);
    ///
    /// let path = std::env::temp_dir().join(format!("smalloc-record-{}", std::process::id()));
    /// HEAP.record_to(path.to_str().unwrap())?;
    /// let (block, _) = HEAP.smalloc(std::alloc::Layout::new::<u64>());
    /// assert!(block.is_some());
    /// let recorded = HEAP.stop_recording().unwrap();
    /// assert_eq!((recorded.records, recorded.complete), (1, true));
    /// # std::fs::remove_file(path)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn record_to(&self, path: impl AsRef<[u8]>) -> Result<(), RecordError> {
        self.init().map_err(RecordError::NoRegion)?;
        let heaps = self.lock_all();
        if self.recorder.lock().is_on() {
            return Err(RecordError::AlreadyRecording);
        }
        drop(heaps);
        errno::unchanged(|| {
            let log = recording::create(path.as_ref())?;
            self.begin(log)
        })
    }

    /// Ends the recording, and says what is in it. None if there is none.
    ///
    /// A recording that ended by itself is told of once.
    pub fn stop_recording(&self) -> Option<Recorded> {
        let mut heaps = self.lock_all();
        let recorded = errno::unchanged(|| self.recorder.lock().stop());
        heaps.iter_mut().for_each(|heap| heap.set_slow(SlowReason::Recorder, false));
        recorded
    }

    /// The file that the environment names for this heap, if it is the first that asks.
    pub(super) fn log_from_environment() -> Option<AppendFile> {
        if ASKED.swap(true, Ordering::Relaxed) { None } else { recording::from_environment() }
    }

    /// Begins a recording of regions that are mapped.
    pub(super) fn begin(&self, log: AppendFile) -> Result<(), RecordError> {
        let mut heaps = self.lock_all();
        let mut recorder = self.recorder.lock();
        let size = heaps.first().map_or(0, |heap| heap.region().size());
        recorder.begin(log, Head::new(L::NAME, REGIONS as u32, size))?;
        for (region, heap) in heaps.iter().enumerate() {
            for run in heap.runs().flatten().filter(|run| run.in_use) {
                let held = Record::new(Call::Held, run.extent.bytes(), Some(run.extent.start.bytes()));
                recorder.write(Record { region: region as u16, ..held });
            }
            if let Some(limit) = heap.limit() {
                let limit = Record::new(Call::Limit, limit, None);
                recorder.write(Record { region: region as u16, ..limit });
            }
        }
        heaps.iter_mut().for_each(|heap| heap.set_slow(SlowReason::Recorder, recorder.is_on()));
        Ok(())
    }

    /// Records a call that is being made on the heap of a region, whose lock is held, if it is recorded.
    #[inline(always)]
    pub(super) fn note(&self, region: usize, lock: &Lock<Guarded<L>>, record: impl FnOnce() -> Record) {
        if lock.is_slow() {
            self.write_down(lock, Record { region: region as u16, ..record() });
        }
    }

    #[cold]
    #[inline(never)]
    fn write_down(&self, lock: &Lock<Guarded<L>>, record: Record) {
        if !errno::unchanged(|| self.recorder.lock().write(record)) {
            lock.set_slow(SlowReason::Recorder, false);
        }
    }
}

/// Records the calls on a region's heap, as a watcher.
pub(super) struct Recording<'a, L: FreeList, const REGIONS: usize, const SLOW: bool> {
    pub(super) global: &'a SmallocGlobal<L, REGIONS>,
    pub(super) lock: &'a Lock<Guarded<L>>,
}

impl<L: FreeList, const REGIONS: usize, const SLOW: bool> Recording<'_, L, REGIONS, SLOW> {
    #[inline(always)]
    fn note(&self, record: impl FnOnce() -> Record) {
        if SLOW {
            self.global.note(self.global.regions.number_of_lock(self.lock), self.lock, record);
        }
    }
}

impl<L: FreeList, const REGIONS: usize, const SLOW: bool> Watch<L> for Recording<'_, L, REGIONS, SLOW> {
    #[inline(always)]
    fn placed(&mut self, _heap: &Heap<L>, request: &Request, fit: Fit) {
        self.note(|| placed(request, fit));
    }

    #[inline(always)]
    fn freeing(&mut self, _heap: &mut Heap<L>, segment: Extent, named: Named) -> Free {
        self.note(|| {
            let at = Some(segment.start.bytes());
            let with = |call, layout: Layout| Record {
                align: layout.align(),
                ..Record::new(call, layout.size(), at)
            };
            match named {
                Named::Pointer => Record::new(Call::Sfree, segment.bytes(), at),
                Named::Layout(layout) => with(Call::Dealloc, layout),
                Named::MovedFrom(layout) => with(Call::MovedFrom, layout),
            }
        });
        Free::Now
    }

    #[inline(always)]
    fn resized(&mut self, _heap: &Heap<L>, resize: &Resize) {
        let at = resize.segment.start;
        self.note(|| placed(&Request::moving(resize.layout, resize.new_size, at), Fit::NONE.at(at)));
    }
}

/// The record of a request, and of where it was placed.
fn placed(request: &Request, fit: Fit) -> Record {
    let narrow = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Record {
        align: request.align,
        old_offset: request.from.map(Granule::bytes),
        stepped: narrow(fit.stepped()),
        probes: narrow(fit.probes()),
        ..Record::new(request.call, request.size, fit.start().map(Granule::bytes))
    }
}
