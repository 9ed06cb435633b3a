//! Recording: every call goes through [`SmallocGlobal::record`] while it holds the heap's lock.
//!
//! Recording makes the lock slow, so the fast paths of `alloc` and `dealloc` need not check for it. The recorder has a
//! lock of its own, taken last, which puts the calls on all regions in one order.

use super::{Guarded, SmallocGlobal};
use crate::free_list::{Fit, FreeList};
use crate::heap::Heap;
use crate::recording::{self, Call, Head, Record, RecordError, Recorded};
use crate::region::{Extent, Granule};
use crate::system::append_file::AppendFile;
use crate::system::errno;
use crate::threads::caches::Bypass;
use crate::threads::lock::{Guard, Lock, SlowReason};
use crate::watch::{Free, Named, Request, Resize, Watch};
use core::alloc::Layout;
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether a heap of this process has read the variable; only the first one does.
static ENVIRONMENT_READ: AtomicBool = AtomicBool::new(false);

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Records every call from now on in a file: its placement, its cost, its thread, and its place in the order of
    /// calls.
    ///
    /// Replaces an existing recording, but no other file. The file grows by 32 bytes a call, written with the lock
    /// held, so threads take turns at that too. Its contents survive the process, even if it is killed. If the file
    /// cannot grow because the disk is full, recording ends with a line on standard error, and the program continues.
    ///
    /// The segments in use and the limit are recorded first, so a recording that begins late can be replayed. To record
    /// a program from its first allocation, set the environment variable `SMALLOC_RECORD` to a file name: the first
    /// `SmallocGlobal` of the process is recorded from its first call on. `%p` in the name becomes the process id.
    ///
    /// A child of `fork` is not recorded and leaves its parent's recording alone. The file must not be truncated while
    /// it is written.
    ///
    /// Several regions are recorded in one file, in one order. A request that the home region refused and another one
    /// placed is two records, a `realloc` that moves to another region is an `alloc` and a `dealloc`, and a remote free
    /// is recorded when it is done, by the thread that does it.
    ///
    /// The format is documented in [`recording`]; `smalloc replay` reads it.
    ///
    /// # Errors
    /// The heap is being recorded already, the file is in use or is not a recording, it cannot be created or mapped, or
    /// there is no region.
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
            let file = recording::create(path.as_ref())?;
            self.begin_recording(file)
        })
    }

    /// Ends the recording and returns its summary; `None` if there is none.
    ///
    /// If the recording ended on its own, the next call reports it, once.
    pub fn stop_recording(&self) -> Option<Recorded> {
        let recorded = self.end_recording(&mut self.lock_all());
        self.bypass_caches_for_recorder();
        recorded
    }

    /// Keeps threads from their caches while the heap is recorded, or counted by call site.
    pub(super) fn bypass_caches_for_recorder(&self) {
        let is_recorded = || self.regions.all().iter().any(|shared| shared.lock.has(SlowReason::Recorder));
        self.bypass_caches(Bypass::Recording, is_recorded);
    }

    /// Ends the recording, if there is one. The caller holds all locks.
    pub(super) fn end_recording(&self, heaps: &mut [Guard<'_, Guarded<L>>; REGIONS]) -> Option<Recorded> {
        let recorded = errno::unchanged(|| self.recorder.lock().stop());
        self.set_recorded(heaps);
        recorded
    }

    /// The file named by the environment; `None` if there is none, or another heap has taken it.
    pub(super) fn file_from_environment() -> Option<AppendFile> {
        if ENVIRONMENT_READ.swap(true, Ordering::Relaxed) { None } else { recording::from_environment() }
    }

    /// Begins to record regions that are mapped.
    pub(super) fn begin_recording(&self, file: AppendFile) -> Result<(), RecordError> {
        self.prepare_sites();
        // Cached payloads need not be recorded as in use.
        drop(self.empty_caches());
        let mut heaps = self.lock_all();
        let mut recorder = self.recorder.lock();
        let size = heaps.first().map_or(0, |heap| heap.region().size());
        recorder.begin(file, Head::new(L::NAME, REGIONS as u32, size))?;
        self.record_sites(&mut recorder);
        for (region, heap) in heaps.iter().enumerate() {
            for run in heap.runs().flatten().filter(|run| run.in_use) {
                let held = Record::new(Call::Held, run.extent.bytes(), Some(run.extent.start.bytes()));
                let held = Record { region: region as u16, ..held };
                recorder.write(held, self.stack_of(&held));
            }
            if let Some(limit) = heap.limit() {
                let limit = Record::new(Call::Limit, limit, None);
                recorder.write(Record { region: region as u16, ..limit }, 0);
            }
        }
        drop(recorder);
        self.set_recorded(&mut heaps);
        drop(heaps);
        self.bypass_caches_for_recorder();
        Ok(())
    }

    /// Sends the calls on all regions through their slow paths while they are recorded, or counted by call site.
    pub(super) fn set_recorded(&self, heaps: &mut [Guard<'_, Guarded<L>>; REGIONS]) {
        let is_recording = self.recorder.lock().is_on();
        let is_on = self.set_sites(is_recording);
        heaps.iter_mut().for_each(|heap| heap.set_slow(SlowReason::Recorder, is_on));
    }

    /// Records a call on a region, whose lock is held, if the heap is being recorded. `stack` is the number of the
    /// call's stack, 0 for none.
    #[inline(always)]
    pub(super) fn record(
        &self,
        region: usize,
        lock: &Lock<Guarded<L>>,
        stack: u32,
        record: impl FnOnce() -> Record,
    ) {
        if lock.is_slow() {
            self.record_slow(lock, Record { region: region as u16, ..record() }, stack);
        }
    }

    #[cold]
    #[inline(never)]
    fn record_slow(&self, lock: &Lock<Guarded<L>>, record: Record, stack: u32) {
        let is_recorded = errno::unchanged(|| self.recorder.lock().write(record, stack));
        let is_counted = self.count_site(&record, stack);
        if !is_recorded && !is_counted {
            lock.set_slow(SlowReason::Recorder, false);
        }
    }
}

/// Watches a region's calls for the recorder.
pub(super) struct RecordWatch<'a, L: FreeList, const REGIONS: usize, const SLOW: bool> {
    pub(super) global: &'a SmallocGlobal<L, REGIONS>,
    pub(super) lock: &'a Lock<Guarded<L>>,
    /// The number of the call's stack; 0 is none.
    pub(super) stack: u32,
}

impl<L: FreeList, const REGIONS: usize, const SLOW: bool> RecordWatch<'_, L, REGIONS, SLOW> {
    #[inline(always)]
    fn record(&self, stack: u32, record: impl FnOnce() -> Record) {
        if SLOW {
            let region = self.global.regions.number_of_lock(self.lock);
            self.global.record(region, self.lock, stack, record);
        }
    }
}

impl<L: FreeList, const REGIONS: usize, const SLOW: bool> Watch<L> for RecordWatch<'_, L, REGIONS, SLOW> {
    #[inline(always)]
    fn placed(&mut self, _heap: &Heap<L>, request: &Request, fit: Fit) {
        self.record(self.stack, || placed(request, fit));
    }

    #[inline(always)]
    fn freeing(&mut self, _heap: &mut Heap<L>, segment: Extent, named: Named) -> Free {
        self.record(0, || {
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
        self.record(self.stack, || {
            placed(&Request::moving(resize.layout, resize.new_size, at), Fit::NONE.at(at))
        });
    }
}

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
