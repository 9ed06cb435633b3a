//! The work of the feature `sites`.

use super::super::SmallocGlobal;
use super::super::held::LockedSlow;
use crate::free_list::FreeList;
use crate::recording::{Call, Line, Object, Record, Recorder};
use crate::region::GRANULE;
use crate::sites::{self, Sampler, Sites, Stack, Table};
use crate::system::{environment, errno};
use crate::threads::lock::Lock;
use core::sync::atomic::{AtomicBool, Ordering};

/// Attempts to copy the counts while other threads add call stacks.
const COPY_ATTEMPTS: usize = 4;
/// Frames of this file at the inside of a stack: `Stack::take` and `enter_taking_stack`.
const OWN_FRAMES: usize = 2;

/// A heap's knowledge of call sites.
pub(crate) struct CallSites {
    /// Whether calls are recorded, or counted by call stack.
    is_on: AtomicBool,
    sampler: Sampler,
    /// Locked only while holding a heap's lock, and before `recorder`.
    table: Lock<Table>,
}

impl CallSites {
    pub(crate) const fn off() -> Self {
        Self { is_on: AtomicBool::new(false), sampler: Sampler::unset(), table: Lock::new(Table::EMPTY) }
    }

    #[inline]
    pub(super) fn is_due(&self, bytes: usize) -> bool {
        self.is_on.load(Ordering::Relaxed) && self.sampler.is_due(bytes)
    }
}

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Sets how often a request's call stack is taken, in recordings and for [`sites`](Self::sites): once in `bytes`
    /// bytes on average. 1 takes the stack of every request, 0 of none. The default is 512 KiB, or the value of the
    /// environment variable `SMALLOC_SITES`.
    ///
    /// A stack takes some microseconds, at 32 frames about 5. Requests are chosen at random, as if each byte had the
    /// same chance, so the samples stand for all requests.
    ///
    /// ```
    /// static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::new();
    /// HEAP.set_site_interval(1 << 20);
    /// ```
    pub fn set_site_interval(&self, bytes: usize) {
        let mut heaps = self.lock_all();
        self.sites.sampler.set_interval(bytes);
        let bytes = self.sites.sampler.interval() as u64;
        errno::unchanged(|| self.recorder.lock().write_site(Line::Interval { bytes }));
        // A recording that ended for lack of room is noticed here.
        self.set_recorded(&mut heaps);
    }

    /// Begins to count bytes and blocks by call stack, for [`sites`](Self::sites). Blocks that are in use already are
    /// not counted. Fails with the system's error number if the system has no memory for the counts.
    ///
    /// While a heap counts, every call takes a slow path that looks for the block in a table.
    ///
    /// # Errors
    /// The system has no memory for the counts. They take up to 32 MiB for a million call stacks and 64 MiB for a million
    /// blocks whose stacks were taken; more are not counted.
    pub fn count_sites(&self) -> Result<(), i32> {
        self.prepare_sites();
        let mut heaps = self.lock_all();
        self.sites.table.lock().start()?;
        self.set_recorded(&mut heaps);
        drop(heaps);
        self.bypass_caches_for_recorder();
        Ok(())
    }

    /// Stops counting and forgets the counts. A recording goes on.
    pub fn stop_counting_sites(&self) {
        let mut heaps = self.lock_all();
        errno::unchanged(|| self.sites.table.lock().stop());
        self.set_recorded(&mut heaps);
        drop(heaps);
        self.bypass_caches_for_recorder();
    }

    /// The live and the total bytes and blocks by call stack, since [`count_sites`](Self::count_sites). They are copied
    /// with the locks held, some nanoseconds for each frame of a stack.
    ///
    /// ```
    /// use smalloc::SmallocGlobal;
    ///
    /// #[global_allocator]
    /// static HEAP: SmallocGlobal = SmallocGlobal::new();
    ///
    /// HEAP.set_site_interval(1);
    /// HEAP.count_sites().expect("there is memory for counts");
    /// let text = vec![b'x'; 10_000];
    /// let sites = HEAP.sites().expect("there is memory for a copy");
    /// let most = sites.iter().max_by_key(|site| site.live_bytes).expect("something is in use");
    /// assert_eq!((most.live_bytes, most.live_blocks), (10_000, 1));
    ///
    /// let mut profile = Vec::new();
    /// sites.write_pprof(|bytes| profile.extend_from_slice(bytes));
    /// # assert!(profile.len() > 100 && text.len() == 10_000);
    /// ```
    ///
    /// # Errors
    /// The system's error number if it has no memory for the copy, or `EAGAIN` if other threads added call stacks faster
    /// than the copy's memory grew.
    pub fn sites(&self) -> Result<Sites, i32> {
        for _ in 0..COPY_ATTEMPTS {
            let frames = {
                let _heaps = self.lock_all();
                self.sites.table.lock().len()
            };
            let room = frames.saturating_add(frames / 4).saturating_add(1024);
            let mut sites = Sites::with_room(room, self.sites.sampler.interval())?;
            let _heaps = self.lock_all();
            if sites.copy(&self.sites.table.lock()) {
                return Ok(sites);
            }
        }
        Err(libc::EAGAIN)
    }

    /// Ends counting, and unmaps all tables. The caller holds all locks.
    pub(in super::super) fn close_sites(&self) {
        *self.sites.table.lock() = Table::EMPTY;
    }

    /// Locks a region's heap for a request whose call stack is taken first.
    #[cold]
    #[inline(never)]
    pub(super) fn enter_taking_stack(&self, region: usize) -> LockedSlow<'_, L, REGIONS> {
        let stack = Stack::take(OWN_FRAMES);
        errno::unchanged(|| sites::find_objects(&stack));
        let mut held = self.enter_slow(region);
        held.guard.stack = errno::unchanged(|| self.number_stack(&stack));
        held
    }

    /// The number of a stack, whose new frames are recorded. The caller holds a heap's lock.
    fn number_stack(&self, stack: &Stack) -> u32 {
        let mut table = self.sites.table.lock();
        let mut recorder = self.recorder.lock();
        table.number(stack, |caller, address| {
            record_objects(&mut recorder);
            recorder.write_site(Line::Frame { caller, address });
        })
    }

    /// Prepares for stacks to be taken. The caller holds no lock.
    pub(in super::super) fn prepare_sites(&self) {
        self.sites.sampler.interval_or(|| environment::SITES.interval());
        Stack::warm_up();
        errno::unchanged(sites::ask_loader);
    }

    /// Records what is known about call sites at the beginning of a recording. The caller holds all locks.
    pub(in super::super) fn record_sites(&self, recorder: &mut Recorder) {
        recorder.write_site(Line::Interval { bytes: self.sites.sampler.interval() as u64 });
        record_objects(recorder);
        for (caller, address) in self.sites.table.lock().frames() {
            recorder.write_site(Line::Frame { caller, address });
        }
    }

    /// Whether calls have to be recorded or counted. The caller holds all locks.
    pub(in super::super) fn set_sites(&self, is_recording: bool) -> bool {
        let is_on = is_recording || self.sites.table.lock().is_counting();
        self.sites.is_on.store(is_on, Ordering::Relaxed);
        is_on
    }

    /// The number of the stack of a block that was in use when a recording began; 0 if it is not known.
    pub(in super::super) fn stack_of(&self, held: &Record) -> u32 {
        key(held, held.offset).map_or(0, |key| self.sites.table.lock().stack_of(key))
    }

    /// Counts a call. False if nothing is counted.
    pub(in super::super) fn count_site(&self, record: &Record, stack: u32) -> bool {
        let mut table = self.sites.table.lock();
        if !table.is_counting() {
            return false;
        }
        let key = |offset: Option<usize>| key(record, offset);
        match record.call {
            Call::Dealloc | Call::Sfree | Call::MovedFrom => key(record.offset).map(|key| table.freed(key)),
            Call::Alloc | Call::AllocZeroed | Call::Smalloc | Call::Realloc => {
                // A `realloc` in place is counted as a free and an allocation, as one that moves is.
                let interval = self.sites.sampler.interval();
                key(record.offset).map(|key| table.placed(key, stack, record.size, interval))
            }
            Call::Held | Call::Limit => None,
        };
        true
    }
}

/// The name of a block among those of all regions; never 0.
fn key(record: &Record, offset: Option<usize>) -> Option<u64> {
    let granule = (offset? / GRANULE) as u64;
    Some((u64::from(record.region) << 40 | granule).wrapping_add(1))
}

/// Records the loaded objects that have been found since the last time.
fn record_objects(recorder: &mut Recorder) {
    for object in sites::objects(recorder.objects()) {
        let (build_id, path) = (object.build_id(), object.path());
        let line = Object {
            base: object.base,
            start: object.start,
            end: object.end,
            build_id_bytes: build_id.len(),
            path_bytes: path.len(),
        };
        recorder.write_object(line, build_id, path);
    }
}
