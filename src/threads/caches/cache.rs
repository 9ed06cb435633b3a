//! A thread's cache: for each size a stack of free payloads that the heap counts as in use.
//!
//! Only the owner of a cache changes it, and only while `busy` is set. A thread that wants to change the caches of
//! others first closes their heap's gate, then waits until none of them is busy (see [`stop`](super::stop)):
//!
//! ```text
//! owner:    busy = 1   load gate    change or leave      busy = 0
//! other:    close gate   membarrier   wait for busy == 0   change   open gate
//! ```
//!
//! `membarrier` makes every running thread execute a barrier. A thread that passes it before its load of the gate sees
//! the gate closed; one that passes it later has set `busy`, and is waited for. So a hit needs neither an atomic
//! read-modify-write nor a barrier.
//!
//! A signal handler that finds its own thread's cache busy leaves it alone.
//!
//! Other threads may read the stacks at any time, to look for a payload that is freed twice. A payload leaves its
//! stack before it is handed on, and `count` is stored after the slots below it, so a payload that the program owns is
//! in no stack that its owner can read.

use crate::region::{GRANULE, Outside, mark};
use core::ptr;
use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence,
};
use static_assertions::const_assert;

/// The largest cached payload, in granules: 896 bytes. One window of the bitmaps shows all of it.
pub(crate) const MOST_GRANULES: usize = 56;
/// Payloads in a stack. With these, a stack is two cache lines.
const SLOTS: usize = 30;
/// The most payloads that are taken out of a stack, or put into it, at once.
pub(crate) const BATCH: usize = 16;

/// Free payloads of one size, the last one freed on top.
#[repr(C, align(128))]
struct Stack {
    /// At most `SLOTS`. Stored with release, after the slots.
    count: AtomicU32,
    /// A free that finds so many payloads makes room first.
    cap: AtomicU16,
    /// Payloads that the next refill asks for.
    want: AtomicU8,
    /// Whether the stack was refilled or spilled since the last look for idle ones.
    active: AtomicBool,
    /// Granules of the region, of which the first `count` are cached.
    slots: [AtomicU32; SLOTS],
}

const_assert!(size_of::<Stack>() == 128);
const_assert!(size_of::<Cache>() <= 8 << 10);

/// A thread's cache. Zeros are one that serves nobody.
#[repr(C, align(128))]
pub(crate) struct Cache {
    busy: AtomicBool,
    /// The gate's value for which the cache serves its owner. 0 for none.
    pass: AtomicUsize,
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
    /// The next cache of the process. Written once, before the cache is published.
    pub(super) next: AtomicPtr<Cache>,
    /// Bytes that the stacks may hold in all: the sum of their caps is at most this.
    budget: AtomicUsize,
    /// Bytes of the budget that are in no cap.
    slack: AtomicUsize,
    /// Slow events since the last look for idle stacks.
    events: AtomicU32,
    /// Stack `n` holds payloads of `n` granules; the first one stays empty.
    stacks: [Stack; MOST_GRANULES + 1],
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

/// The outcome of a free that a cache was asked to take.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    Done,
    /// The stack has as many payloads as it may.
    Full,
    /// The payload has the mark of one that is cached.
    Suspect,
    /// The cache serves nobody now, or cannot see a segment of this layout there.
    No,
}

/// Bytes of `count` payloads of `n` granules.
const fn bytes(count: usize, n: usize) -> usize {
    count.saturating_mul(n).saturating_mul(GRANULE)
}

/// The cap that a stack of `n` granules begins with, and keeps when it is idle.
const fn least_cap(n: usize) -> usize {
    let payloads = 512 / bytes(1, n);
    if payloads < 1 {
        1
    } else if payloads > 8 {
        8
    } else {
        payloads
    }
}

/// The largest cap of a stack of `n` granules.
const fn most_cap(n: usize) -> usize {
    let payloads = 8192 / bytes(1, n);
    if payloads > SLOTS { SLOTS } else { payloads }
}

impl Cache {
    pub(super) const fn none() -> Self {
        Self {
            busy: AtomicBool::new(false),
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
            next: AtomicPtr::new(ptr::null_mut()),
            budget: AtomicUsize::new(0),
            slack: AtomicUsize::new(0),
            events: AtomicU32::new(0),
            stacks: [const {
                Stack {
                    count: AtomicU32::new(0),
                    cap: AtomicU16::new(0),
                    want: AtomicU8::new(0),
                    active: AtomicBool::new(false),
                    slots: [const { AtomicU32::new(0) }; SLOTS],
                }
            }; MOST_GRANULES + 1],
        }
    }

    // ---- hits --------------------------------------------------------------------------------------------------

    /// Runs `work` as the only one who changes the cache. `None` if the gate is closed to it, or a signal handler has
    /// interrupted its thread's own work.
    #[inline(always)]
    fn enter<R>(&self, gate: &AtomicUsize, work: impl FnOnce() -> R) -> Option<R> {
        if self.busy.load(Ordering::Relaxed) {
            return None;
        }
        self.busy.store(true, Ordering::Relaxed);
        // The compiler keeps the order; `membarrier` makes the processor keep it.
        compiler_fence(Ordering::SeqCst);
        let open = self.pass.load(Ordering::Relaxed) == gate.load(Ordering::Relaxed);
        let result = if open { Some(work()) } else { None };
        self.busy.store(false, Ordering::Release);
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
        })?
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

    /// Takes a payload of `n` granules back, whose address is a multiple of `align`.
    #[inline(always)]
    pub(crate) fn push(&self, gate: &AtomicUsize, payload: *mut u8, n: usize, align: usize) -> Pushed {
        let Some(stack) = self.stacks.get(n) else { return Pushed::No };
        let pushed = self.enter(gate, || {
            let at = match self.look(payload, n, align) {
                Ok(at) => at,
                Err(why) => return why,
            };
            let count = stack.count.load(Ordering::Relaxed);
            if count >= u32::from(stack.cap.load(Ordering::Relaxed)) {
                return Pushed::Full;
            }
            // SAFETY: a cap is at most `SLOTS`, and the count is less.
            unsafe { stack.slots.get_unchecked(count as usize) }.store(at, Ordering::Relaxed);
            stack.count.store(count.wrapping_add(1), Ordering::Release);
            // SAFETY: a segment in use begins there, as `look` has seen.
            unsafe { mark(payload) }.store(self.key(payload), Ordering::Relaxed);
            Pushed::Done
        });
        pushed.unwrap_or(Pushed::No)
    }

    /// The granule of a payload of `n` granules, which has no mark.
    #[inline(always)]
    fn look(&self, payload: *mut u8, n: usize, align: usize) -> Result<u32, Pushed> {
        let at = self.outside.granule(payload);
        if at >= self.reach.load(Ordering::Relaxed) || payload.addr() & align.wrapping_sub(1) != 0 {
            return Err(Pushed::No);
        }
        // SAFETY: the granule is in reach, which lies in the committed part of the region.
        if !unsafe { self.outside.is_short(at, n) } {
            return Err(Pushed::No);
        }
        // SAFETY: a segment in use begins there.
        if unsafe { mark(payload) }.load(Ordering::Relaxed) == self.key(payload) {
            return Err(Pushed::Suspect);
        }
        // A granule of a region fits in 32 bits.
        Ok(at as u32)
    }

    /// Whether a payload has `n` granules and no mark. [`Pushed::Done`] if so.
    #[inline(always)]
    pub(crate) fn owns(&self, gate: &AtomicUsize, payload: *mut u8, n: usize, align: usize) -> Pushed {
        let found = self.enter(gate, || self.look(payload, n, align).err().unwrap_or(Pushed::Done));
        found.unwrap_or(Pushed::No)
    }

    // ---- slow paths of the owner -------------------------------------------------------------------------------

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
            stack.count.store(cached.len().saturating_sub(1) as u32, Ordering::Release);
            self.hits.store(self.hits.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            Some(self.unmarked(at))
        })?
    }

    /// Payloads of `n` granules that the next refill should place, at least one. 0 if this size is not cached now.
    pub(crate) fn wanted(&self, n: usize) -> usize {
        let Some(stack) = self.stacks.get(n) else { return 0 };
        let cap = usize::from(stack.cap.load(Ordering::Relaxed));
        usize::from(stack.want.load(Ordering::Relaxed)).min(cap).min(BATCH)
    }

    /// Puts payloads of `n` granules on the stack, the last one on top, if there is room for all of them.
    pub(crate) fn fill(&self, gate: &AtomicUsize, n: usize, payloads: &[u32]) -> bool {
        let Some(stack) = self.stacks.get(n) else { return false };
        let filled = self.enter(gate, || {
            let count = stack.cached().len();
            let Some(slots) = stack.slots.get(count..count.saturating_add(payloads.len())) else {
                return false;
            };
            slots.iter().zip(payloads).for_each(|(slot, &at)| slot.store(at, Ordering::Relaxed));
            stack.count.store(count.saturating_add(payloads.len()) as u32, Ordering::Release);
            true
        });
        filled == Some(true)
    }

    /// Takes the oldest payloads of `n` granules, at most `most`. Returns how many.
    pub(crate) fn take_oldest(
        &self,
        gate: &AtomicUsize,
        n: usize,
        most: usize,
        out: &mut [u32; BATCH],
    ) -> usize {
        self.enter(gate, || self.take_oldest_stopped(n, most, out)).unwrap_or(0)
    }

    /// [`take_oldest`](Self::take_oldest) by the only thread that may enter the cache.
    pub(crate) fn take_oldest_stopped(&self, n: usize, most: usize, out: &mut [u32; BATCH]) -> usize {
        let Some(stack) = self.stacks.get(n) else { return 0 };
        let cached = stack.cached();
        let taken = cached.len().min(most).min(BATCH);
        let load = |slot: &AtomicU32| slot.load(Ordering::Relaxed);
        out.iter_mut().zip(cached).take(taken).for_each(|(place, slot)| *place = load(slot));
        let kept = cached.iter().skip(taken);
        cached.iter().zip(kept).for_each(|(place, slot)| place.store(load(slot), Ordering::Relaxed));
        stack.count.store(cached.len().saturating_sub(taken) as u32, Ordering::Release);
        taken
    }

    /// Raises the granules that may be looked at, after a look under the lock.
    pub(crate) fn reach(&self, granules: usize) {
        self.reach.store(granules, Ordering::Relaxed);
    }

    pub(crate) fn region(&self) -> usize {
        self.region.load(Ordering::Relaxed)
    }

    // ---- policy ------------------------------------------------------------------------------------------------

    /// Notes a refill of a stack and asks for more the next time. Returns whether idle stacks are due for a look.
    pub(crate) fn refilled(&self, n: usize) -> bool {
        let Some(stack) = self.stacks.get(n) else { return false };
        let want = stack.want.load(Ordering::Relaxed);
        stack.want.store(want.saturating_mul(2).min(BATCH as u8), Ordering::Relaxed);
        if usize::from(want) * 2 > usize::from(stack.cap.load(Ordering::Relaxed)) {
            self.raise(stack, n);
        }
        self.event(stack)
    }

    /// Notes that a stack is full. Returns the payloads to give back, and whether idle stacks are due for a look.
    pub(crate) fn overflowed(&self, n: usize) -> (usize, bool) {
        let Some(stack) = self.stacks.get(n) else { return (0, false) };
        self.raise(stack, n);
        let cap = usize::from(stack.cap.load(Ordering::Relaxed));
        let count = stack.cached().len();
        let spill = if count >= cap { count.saturating_sub(cap / 2) } else { 0 };
        (spill, self.event(stack))
    }

    /// Counts a slow event. Every 128th one, idle stacks are due for a look.
    fn event(&self, stack: &Stack) -> bool {
        stack.active.store(true, Ordering::Relaxed);
        let events = self.events.load(Ordering::Relaxed).wrapping_add(1) % 128;
        self.events.store(events, Ordering::Relaxed);
        events == 0
    }

    /// Doubles a stack's cap as far as the budget allows.
    fn raise(&self, stack: &Stack, n: usize) {
        let cap = usize::from(stack.cap.load(Ordering::Relaxed));
        let more = cap.min(most_cap(n).saturating_sub(cap));
        let slack = self.slack.load(Ordering::Relaxed);
        if let Some(rest) = slack.checked_sub(bytes(more, n)) {
            stack.cap.store(cap.saturating_add(more) as u16, Ordering::Relaxed);
            self.slack.store(rest, Ordering::Relaxed);
        }
    }

    /// Halves the cap of stack `n` if it was idle since the last look. Returns the payloads to give back: half of an
    /// idle stack, rounded up.
    pub(crate) fn age(&self, n: usize) -> usize {
        let Some(stack) = self.stacks.get(n) else { return 0 };
        if stack.active.swap(false, Ordering::Relaxed) {
            return 0;
        }
        let cap = usize::from(stack.cap.load(Ordering::Relaxed));
        let lower = (cap / 2).max(least_cap(n)).min(cap);
        stack.cap.store(lower as u16, Ordering::Relaxed);
        stack.want.store(1, Ordering::Relaxed);
        let slack = self.slack.load(Ordering::Relaxed).saturating_add(bytes(cap.saturating_sub(lower), n));
        self.slack.store(slack, Ordering::Relaxed);
        let count = stack.cached().len();
        count.div_ceil(2).max(count.saturating_sub(lower))
    }

    // ---- owners ------------------------------------------------------------------------------------------------

    /// Prepares an empty cache for a thread, which sees it afterwards, with a budget of `budget` bytes.
    pub(super) fn open(&self, home: &Home, pass: usize, budget: usize) {
        self.outside.set(home.base, home.bitmaps);
        self.secret.store(home.secret, Ordering::Relaxed);
        self.region.store(home.region, Ordering::Relaxed);
        self.reach.store(0, Ordering::Relaxed);
        if self.heap.load(Ordering::Relaxed) != home.heap {
            self.take_hits();
        }
        self.events.store(0, Ordering::Relaxed);
        let mut slack = budget;
        for (n, stack) in self.stacks.iter().enumerate().skip(1) {
            stack.cap.store(least_cap(n) as u16, Ordering::Relaxed);
            stack.want.store(1, Ordering::Relaxed);
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

    /// Sets the budget to `budget` bytes; if that is less, as far as no cap holds it.
    pub(super) fn resize(&self, budget: usize) {
        let (old, slack) = (self.budget.load(Ordering::Relaxed), self.slack.load(Ordering::Relaxed));
        let lower = old.saturating_sub(budget).min(slack);
        let raise = budget.saturating_sub(old);
        self.budget.store(old.saturating_sub(lower).saturating_add(raise), Ordering::Relaxed);
        self.slack.store(slack.saturating_sub(lower).saturating_add(raise), Ordering::Relaxed);
    }

    /// Lets the owner pass the gate while it has this value; 0 for never.
    pub(super) fn admit(&self, pass: usize) {
        self.pass.store(pass, Ordering::Relaxed);
    }

    pub(super) fn passes(&self, gate: usize) -> bool {
        self.pass.load(Ordering::Relaxed) == gate
    }

    /// Whether somebody is changing the cache. Acquire: the changes are visible if not.
    pub(super) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Acquire)
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
    /// The slots with payloads.
    fn cached(&self) -> &[AtomicU32] {
        self.slots.get(..self.count.load(Ordering::Acquire) as usize).unwrap_or(&[])
    }
}
