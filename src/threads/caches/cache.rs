//! A thread's cache: for each size a stack of free payloads that the heap counts as in use.
//!
//! Only the owner of a cache changes it, and only while `pass` says that it is busy. A thread that wants to change the
//! caches of others first closes their heap's gate, then waits until none of them is busy (see [`stop`](super::stop)):
//!
//! ```text
//! owner:    pass = BUSY   load gate    change or leave        pass = the one before
//! other:    close gate   membarrier   wait for pass != BUSY   change   open gate
//! ```
//!
//! `membarrier` makes every running thread execute a barrier. A thread that passes it before its load of the gate sees
//! the gate closed; one that passes it later has made its cache busy, and is waited for. So a hit needs neither an
//! atomic read-modify-write nor a barrier.
//!
//! A signal handler that finds its own thread's cache busy leaves it alone: no gate has the value `BUSY`.
//!
//! Other threads may read the stacks at any time, to look for a payload that is freed twice. A payload leaves its
//! stack before it is handed on, and `count` is stored after the slots below it, so a payload that the program owns is
//! in no stack that its owner can read.

use crate::region::{GRANULE, Outside, mark};
use core::ptr;
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence,
};
use static_assertions::const_assert;

/// The largest cached payload, in granules: 896 bytes. One window of the bitmaps shows all of it.
pub(crate) const MOST_GRANULES: usize = 56;
/// `pass` of a cache that is being changed. No gate has this value.
pub(super) const BUSY: usize = usize::MAX - 1;
/// Payloads in a stack. With these, a stack is two cache lines.
pub(super) const SLOTS: usize = 30;
/// The most payloads that are taken out of a stack, or put into it, at once.
pub(crate) const BATCH: usize = 16;

/// Free payloads of one size, the last one freed on top.
#[repr(C, align(128))]
pub(super) struct Stack {
    /// At most `SLOTS`. Stored with release, after the slots.
    count: AtomicU32,
    /// At most `SLOTS`. A free that finds so many payloads makes room first.
    pub(super) cap: AtomicU32,
    /// Granules of the region, of which the first `count` are cached.
    pub(super) slots: [AtomicU32; SLOTS],
}

/// How a stack was used.
pub(super) struct Habit {
    /// Payloads that the next refill asks for.
    pub(super) want: AtomicU8,
    /// Whether the stack was refilled or spilled since the last look for idle ones.
    pub(super) active: AtomicBool,
}

const_assert!(size_of::<Stack>() == 128);
const_assert!(size_of::<Cache>() <= 8 << 10);

/// A thread's cache. Zeros are one that serves nobody.
#[repr(C, align(128))]
pub(crate) struct Cache {
    /// The gate's value for which the cache serves its owner; 0 for none, `BUSY` while it is being changed.
    pub(super) pass: AtomicUsize,
    outside: Outside,
    /// Granules from the base that may be looked at without the lock.
    reach: AtomicUsize,
    secret: AtomicU64,
    hits: AtomicU64,
    // ---- for the slow paths ----------------------------------------------------------------------------------------
    /// The number of the heap whose payloads are cached; 0 for none.
    pub(super) heap: AtomicUsize,
    /// The region that they lie in.
    region: AtomicUsize,
    /// The heap, and what gives the payloads back when the owner ends; null if the heap may move.
    heap_at: AtomicPtr<()>,
    at_exit: AtomicPtr<AtExit>,
    /// Whether a living thread has it. Written with the registry locked.
    pub(super) taken: AtomicBool,
    /// Where threads with the same home leave payloads for each other; null if there is no such place.
    pub(super) depot: AtomicPtr<Cache>,
    /// Whether this is such a place. Written with the registry locked.
    pub(super) shared: AtomicBool,
    /// The next cache of the process. Written once, before the cache is published.
    pub(super) next: AtomicPtr<Cache>,
    /// Bytes that the stacks may hold in all: the sum of their caps is at most this.
    pub(super) budget: AtomicUsize,
    /// Bytes of the budget that are in no cap.
    pub(super) slack: AtomicUsize,
    /// Slow events since the last look for idle stacks.
    pub(super) events: AtomicU32,
    pub(super) habits: [Habit; MOST_GRANULES + 1],
    /// Stack `n` holds payloads of `n` granules; the first one stays empty.
    pub(super) stacks: [Stack; MOST_GRANULES + 1],
}

/// The properties that all payloads of a cache share.
pub(crate) struct Home {
    pub(crate) heap: usize,
    pub(crate) region: usize,
    pub(crate) base: *mut u8,
    /// Addresses of the two bitmaps.
    pub(crate) bitmaps: (usize, usize),
    pub(crate) secret: u64,
    /// The heap, if it never moves, and the function that gives payloads back to it.
    pub(crate) at_exit: Option<(*const (), &'static AtExit)>,
}

/// Gives the payloads of a cache back to the heap at an address, if it is there.
///
/// # Safety
/// A heap was at this address when the cache was opened for it, and its memory is still readable. No other thread may
/// enter the cache.
pub(crate) type AtExit = unsafe fn(*const (), &Cache);

/// Why a cache does not take a payload back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The stack has as many payloads as it may.
    Full,
    /// The payload has the mark of one that is cached.
    Suspect,
    /// The cache serves nobody now, or cannot see a segment of this layout there.
    Unseen,
}

/// Bytes of `count` payloads of `n` granules.
pub(super) const fn bytes(count: usize, n: usize) -> usize {
    count.saturating_mul(n).saturating_mul(GRANULE)
}

/// The cap that a stack of `n` granules begins with, and keeps when it is idle.
pub(super) fn least_cap(n: usize) -> usize {
    512_usize.checked_div(bytes(1, n)).unwrap_or(0).clamp(1, 8)
}

impl Cache {
    pub(super) const fn none() -> Self {
        Self {
            pass: AtomicUsize::new(0),
            outside: Outside::none(),
            reach: AtomicUsize::new(0),
            secret: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            heap: AtomicUsize::new(0),
            region: AtomicUsize::new(0),
            heap_at: AtomicPtr::new(ptr::null_mut()),
            at_exit: AtomicPtr::new(ptr::null_mut()),
            taken: AtomicBool::new(false),
            depot: AtomicPtr::new(ptr::null_mut()),
            shared: AtomicBool::new(false),
            next: AtomicPtr::new(ptr::null_mut()),
            budget: AtomicUsize::new(0),
            slack: AtomicUsize::new(0),
            events: AtomicU32::new(0),
            habits: [const { Habit { want: AtomicU8::new(0), active: AtomicBool::new(false) } };
                MOST_GRANULES + 1],
            stacks: [const {
                Stack {
                    count: AtomicU32::new(0),
                    cap: AtomicU32::new(0),
                    slots: [const { AtomicU32::new(0) }; SLOTS],
                }
            }; MOST_GRANULES + 1],
        }
    }

    // ---- hits --------------------------------------------------------------------------------------------------

    /// Runs `work` as the only one who changes the cache. `None` if that returns it, if the gate is closed to the
    /// cache, or if a signal handler has interrupted its thread's own work.
    #[inline(always)]
    pub(super) fn enter<R>(&self, gate: &AtomicUsize, work: impl FnOnce() -> Option<R>) -> Option<R> {
        let pass = self.pass.load(Ordering::Relaxed);
        self.pass.store(BUSY, Ordering::Relaxed);
        // The compiler keeps the order; `membarrier` makes the processor keep it. Acquire: those who had closed the
        // gate may have changed the cache.
        compiler_fence(Ordering::SeqCst);
        let result = if pass == gate.load(Ordering::Acquire) { work() } else { None };
        self.pass.store(pass, Ordering::Release);
        result
    }

    /// Takes a payload of `n` granules, aligned to a granule.
    #[inline(always)]
    pub(crate) fn pop(&self, gate: &AtomicUsize, n: usize) -> Option<*mut u8> {
        let stack = self.stacks.get(n)?;
        self.enter(gate, || {
            let rest = stack.count.load(Ordering::Relaxed).checked_sub(1)?;
            // SAFETY: a count is at most `SLOTS`.
            let at = unsafe { stack.slots.get_unchecked(rest as usize) }.load(Ordering::Relaxed);
            stack.count.store(rest, Ordering::Release);
            let hits = self.hits.load(Ordering::Relaxed).wrapping_add(1);
            self.hits.store(hits, Ordering::Relaxed);
            Some(self.unmarked(at))
        })
    }

    /// The payload at a granule, which the caller has taken out of the cache or placed in its region, without the mark
    /// that it may have.
    #[inline(always)]
    pub(crate) fn unmarked(&self, at: u32) -> *mut u8 {
        // SAFETY: such a payload lies in the committed part of the region.
        let payload = unsafe { self.outside.payload(at) };
        // SAFETY: a segment in use begins there, and is the caller's.
        unsafe { mark(payload) }.store(0, Ordering::Relaxed);
        payload
    }

    /// The mark of a payload in any cache of the heap.
    #[inline(always)]
    fn key(&self, payload: *const u8) -> u64 {
        self.secret.load(Ordering::Relaxed) ^ payload.addr() as u64
    }

    /// Takes a payload of `n` granules back, whose address is a multiple of `align`. Returns whether it did.
    #[inline(always)]
    pub(crate) fn push(&self, gate: &AtomicUsize, payload: *mut u8, n: usize, align: usize) -> bool {
        let Some(stack) = self.stacks.get(n) else { return false };
        let pushed = self.enter(gate, || {
            let (at, key) = self.look(payload, n, align).ok()?;
            let count = stack.count.load(Ordering::Relaxed);
            if count >= stack.cap.load(Ordering::Relaxed) {
                return None;
            }
            // SAFETY: a cap is at most `SLOTS`, and the count is less.
            unsafe { stack.slots.get_unchecked(count as usize) }.store(at, Ordering::Relaxed);
            stack.count.store(count.wrapping_add(1), Ordering::Release);
            // SAFETY: a segment in use begins there, as `look` has seen.
            unsafe { mark(payload) }.store(key, Ordering::Relaxed);
            Some(())
        });
        pushed.is_some()
    }

    /// The granule of a payload of `n` granules, and its mark, which it does not have.
    #[inline(always)]
    fn look(&self, payload: *mut u8, n: usize, align: usize) -> Result<(u32, u64), Refusal> {
        let at = self.outside.granule(payload);
        if at >= self.reach.load(Ordering::Relaxed) || payload.addr() & align.wrapping_sub(1) != 0 {
            return Err(Refusal::Unseen);
        }
        // SAFETY: the granule is in reach, which lies in the committed part of the region.
        if !unsafe { self.outside.is_short(at, n) } {
            return Err(Refusal::Unseen);
        }
        let key = self.key(payload);
        // SAFETY: a segment in use begins there.
        if unsafe { mark(payload) }.load(Ordering::Relaxed) == key {
            return Err(Refusal::Suspect);
        }
        // A granule of a region fits in 32 bits.
        Ok((at as u32, key))
    }

    /// Whether the cache sees a payload of `n` granules there, which has no mark.
    #[inline(always)]
    pub(crate) fn owns(&self, gate: &AtomicUsize, payload: *mut u8, n: usize, align: usize) -> bool {
        self.enter(gate, || self.look(payload, n, align).ok()).is_some()
    }

    // ---- slow paths of the owner -------------------------------------------------------------------------------

    /// Why the cache does not take a payload back; [`Refusal::Full`] also if it would now.
    pub(crate) fn refusal(&self, gate: &AtomicUsize, payload: *mut u8, n: usize, align: usize) -> Refusal {
        let why = self.enter(gate, || Some(self.look(payload, n, align).err().unwrap_or(Refusal::Full)));
        why.unwrap_or(Refusal::Unseen)
    }

    /// Takes a payload of `n` granules whose address is a multiple of `align`, if one is cached.
    pub(crate) fn pop_aligned(&self, gate: &AtomicUsize, n: usize, align: usize) -> Option<*mut u8> {
        let stack = self.stacks.get(n)?;
        self.enter(gate, || {
            let cached = stack.cached();
            let fits = |slot: &AtomicU32| {
                // SAFETY: a cached payload lies in the committed part of the region.
                let payload = unsafe { self.outside.payload(slot.load(Ordering::Relaxed)) };
                payload.addr() & align.wrapping_sub(1) == 0
            };
            let place = cached.iter().rposition(fits)?;
            let (slot, last) = (cached.get(place)?, cached.last()?);
            let at = slot.load(Ordering::Relaxed);
            slot.store(last.load(Ordering::Relaxed), Ordering::Relaxed);
            stack.set_count(cached.len().saturating_sub(1));
            self.hits.store(self.hits.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            Some(self.unmarked(at))
        })
    }

    /// Payloads of `n` granules that the next refill should place, at least one. 0 if this size is not cached now.
    pub(crate) fn wanted(&self, n: usize) -> usize {
        let (Some(stack), Some(habit)) = (self.stacks.get(n), self.habits.get(n)) else { return 0 };
        usize::from(habit.want.load(Ordering::Relaxed)).min(stack.cap()).min(BATCH)
    }

    /// Puts payloads of `n` granules on the stack, the last one on top, if there is room for all of them.
    pub(crate) fn fill(&self, gate: &AtomicUsize, n: usize, payloads: &[u32]) -> bool {
        let Some(stack) = self.stacks.get(n) else { return false };
        let filled = self.enter(gate, || {
            let count = stack.cached().len();
            let slots = stack.slots.get(count..count.saturating_add(payloads.len()))?;
            slots.iter().zip(payloads).for_each(|(slot, &at)| slot.store(at, Ordering::Relaxed));
            stack.set_count(count.saturating_add(payloads.len()));
            Some(())
        });
        filled.is_some()
    }

    /// Takes the oldest payloads of `n` granules, at most `most`. Returns how many.
    pub(crate) fn take_oldest(
        &self,
        gate: &AtomicUsize,
        n: usize,
        most: usize,
        out: &mut [u32; BATCH],
    ) -> usize {
        self.enter(gate, || Some(self.take_oldest_stopped(n, most, out))).unwrap_or(0)
    }

    /// [`take_oldest`](Self::take_oldest) by the only thread that may enter the cache.
    pub(crate) fn take_oldest_stopped(&self, n: usize, most: usize, out: &mut [u32; BATCH]) -> usize {
        let Some(stack) = self.stacks.get(n) else { return 0 };
        let cached = stack.cached();
        let taken = cached.len().min(most).min(BATCH);
        let load = |slot: &AtomicU32| slot.load(Ordering::Relaxed);
        out.iter_mut().zip(cached).take(taken).for_each(|(place, slot)| *place = load(slot));
        stack.drop_oldest(taken);
        taken
    }

    /// Raises the granules that may be looked at, after a look under the lock.
    pub(crate) fn reach(&self, granules: usize) {
        self.reach.store(granules, Ordering::Relaxed);
    }

    pub(crate) fn region(&self) -> usize {
        self.region.load(Ordering::Relaxed)
    }

    // ---- owners ------------------------------------------------------------------------------------------------

    /// Prepares an empty cache for a thread, which sees it afterwards, with a budget of `budget` bytes.
    pub(super) fn open(&self, home: &Home, pass: usize, budget: usize) {
        self.outside.set(home.base, home.bitmaps);
        self.secret.store(home.secret, Ordering::Relaxed);
        self.region.store(home.region, Ordering::Relaxed);
        self.reach.store(0, Ordering::Relaxed);
        self.depot.store(ptr::null_mut(), Ordering::Relaxed);
        if self.heap.load(Ordering::Relaxed) != home.heap {
            self.take_hits();
        }
        self.events.store(0, Ordering::Relaxed);
        let mut slack = budget;
        for (n, (stack, habit)) in self.stacks.iter().zip(&self.habits).enumerate().skip(1) {
            stack.cap.store(least_cap(n) as u32, Ordering::Relaxed);
            habit.want.store(1, Ordering::Relaxed);
            slack = slack.saturating_sub(bytes(least_cap(n), n));
        }
        self.budget.store(budget, Ordering::Relaxed);
        self.slack.store(slack, Ordering::Relaxed);
        let (heap, function) = home.at_exit.map_or((ptr::null_mut(), ptr::null_mut()), |(heap, function)| {
            (heap.cast_mut(), ptr::from_ref(function).cast_mut())
        });
        self.heap_at.store(heap, Ordering::Relaxed);
        self.at_exit.store(function, Ordering::Relaxed);
        self.heap.store(home.heap, Ordering::Relaxed);
        self.admit(pass);
    }

    /// The heap, and what gives the payloads back to it, if the heap never moves.
    pub(super) fn at_exit(&self) -> Option<(*const (), &'static AtExit)> {
        // SAFETY: null, or what `open` made of a reference to a constant.
        let function = unsafe { self.at_exit.load(Ordering::Relaxed).as_ref() };
        function.map(|function| (self.heap_at.load(Ordering::Relaxed).cast_const(), function))
    }

    /// Lets the owner pass the gate while it has this value; 0 for never.
    pub(super) fn admit(&self, pass: usize) {
        self.pass.store(pass, Ordering::Release);
    }

    pub(super) fn passes(&self, gate: usize) -> bool {
        self.pass.load(Ordering::Relaxed) == gate
    }

    /// Whether somebody is changing the cache. Acquire: the changes are visible if not.
    pub(super) fn is_busy(&self) -> bool {
        self.pass.load(Ordering::Acquire) == BUSY
    }

    /// Forgets the payloads, which no longer exist, or belong to nobody in this process.
    pub(super) fn forget(&self) {
        self.stacks.iter().for_each(|stack| stack.count.store(0, Ordering::Release));
    }

    // ---- for everybody -----------------------------------------------------------------------------------------

    pub(super) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// The hits so far, which are counted anew from here on. Only for the owner, or while nobody may enter.
    pub(super) fn take_hits(&self) -> u64 {
        self.hits.swap(0, Ordering::Relaxed)
    }

    /// Bytes of the cached payloads, about: the owner may be changing them.
    pub(super) fn bytes(&self) -> usize {
        let each = self.stacks.iter().enumerate().map(|(n, stack)| bytes(stack.cached().len(), n));
        each.fold(0, usize::saturating_add)
    }

    /// Whether the payload at a granule is cached here.
    pub(super) fn contains(&self, at: u32, n: usize) -> bool {
        let cached = self.stacks.get(n).map_or(&[][..], Stack::cached);
        cached.iter().any(|slot| slot.load(Ordering::Relaxed) == at)
    }
}

impl Stack {
    pub(super) fn set_count(&self, count: usize) {
        self.count.store(count as u32, Ordering::Release);
    }

    /// Removes the oldest payloads, at most `most`.
    pub(super) fn drop_oldest(&self, most: usize) {
        let cached = self.cached();
        let kept = cached.iter().skip(most);
        cached.iter().zip(kept).for_each(|(place, slot)| {
            place.store(slot.load(Ordering::Relaxed), Ordering::Relaxed);
        });
        self.set_count(cached.len().saturating_sub(most));
    }

    pub(super) fn cap(&self) -> usize {
        self.cap.load(Ordering::Relaxed) as usize
    }

    /// The slots with payloads.
    pub(super) fn cached(&self) -> &[AtomicU32] {
        self.slots.get(..self.count.load(Ordering::Acquire) as usize).unwrap_or(&[])
    }
}
