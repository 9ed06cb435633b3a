//! The lock: one word that names its owner, a contended path that sleeps, and what happens at a `fork`.
//!
//! The word is 0 while the lock is free, otherwise the token of the thread that holds it:
//!
//! ```text
//!          lock: compare-exchange
//!   0 ------------------------------> token
//!     <------------------------------
//!          drop: store of `rest`
//!
//!          lock_for_fork                       then
//!   0 ------------------------------> token ---------> token | FORKING = `rest`
//!     <------------------------------       <---------
//!          unlock_after_fork
//!
//!          lock, by the forking thread
//!   token | FORKING ----------------> token
//!                   <----------------
//!          drop: store of `rest`
//! ```
//!
//! A word at rest also has the bit `SLOW` while there is a [`SlowReason`]. Only [`Lock::try_lock_fast`] fails because
//! of it, so the fast path learns of all reasons from the compare-exchange it does anyway.
//!
//! Taking the lock and naming its owner are one atomic step, and so is the reverse. With two steps, a signal handler
//! that runs between them would find the lock without an owner and wait forever for the thread that it interrupts.
//!
//! A thread that finds the lock taken spins with exponential backoff, only reading the word; after some microseconds it
//! sleeps. With more threads than cores the holder is often not running, and only a sleeping thread leaves it a core.
//! `sched_yield` keeps the waiter runnable, so it competes again at once and total waiting grows. Sleep times are
//! proportional to the number of sleepers: on average one wakes every 100 µs.

use crate::system::clock::sleep_ns;
use crate::system::fatal::fatal;
use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};

/// The word of a free lock. No thread has this token.
const FREE: usize = 0;
/// Set in the word during a `fork`. Tokens are multiples of 4, so the two lowest bits are free.
const FORKING: usize = 1;
/// Set in the word at rest while every use of the value must take the slow path.
const SLOW: usize = 2;
/// The word, in a forked child, of a lock whose holder the child does not have. No thread has this token.
const ABANDONED: usize = 4;

/// Pauses before the first retry; each retry doubles them.
const FIRST_PAUSES: u32 = 4;
/// Pauses before the last retry without a sleep. All take some microseconds, far more than a call under the lock.
const MOST_PAUSES: u32 = 64;
/// Nanoseconds of sleep per sleeping thread. With less, waking threads slow down the working ones.
const SLEEP_NS: u32 = 100_000;
/// Longest sleep in nanoseconds, which bounds the wait after the lock becomes free.
const LONGEST_SLEEP_NS: u32 = 20_000_000;

/// Reasons to send every use of the value through the slow path.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum SlowReason {
    Recorder = 1,
    LivePage = 2,
    Purge = 4,
    /// The heap has not been registered for `fork` yet.
    FirstUse = 8,
    /// This is a forked child, and the thread was inside a call when it forked.
    Forked = 16,
    /// A heap keeps memory that this one's calls may turn out not to need.
    Idle = 32,
    /// A thread of the program is being measured.
    Measurement = 64,
    /// The heap's top lies in the reserve.
    Reserve = 128,
}

#[repr(C)]
pub(crate) struct Lock<T> {
    /// The resting word, or the token of the thread that holds the lock.
    word: AtomicUsize,
    /// The value of `word` after a guard is dropped: the forking thread's token with `FORKING`, else `FREE`; either
    /// with `SLOW` or without. Written only by the lock's holder.
    rest: AtomicUsize,
    contended: AtomicU64,
    /// Threads that sleep until they retry. Reset after a fork: the child has no other threads.
    sleepers: AtomicU32,
    /// Bits of the current [`SlowReason`]s. Written only by the lock's holder.
    reasons: AtomicU8,
    /// Points to a byte that is not 0 while the process is known to have a single thread, which takes the lock without
    /// an atomic instruction.
    single_threaded: AtomicPtr<u8>,
    value: UnsafeCell<T>,
}

// SAFETY: references to the value are handed out only through a guard; there is one, and it stays on its thread.
unsafe impl<T: Send> Sync for Lock<T> {}

/// Access to the value; dropping it releases the lock.
#[must_use = "the lock is released when the guard is dropped"]
pub(crate) struct Guard<'a, T> {
    lock: &'a Lock<T>,
    /// Keeps the guard on the thread whose token is in the word.
    _not_send: PhantomData<*const ()>,
}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self::at_rest(FREE, 0, value)
    }

    pub(crate) const fn slow(reason: SlowReason, value: T) -> Self {
        Self::at_rest(SLOW, reason as u8, value)
    }

    const fn at_rest(word: usize, reasons: u8, value: T) -> Self {
        Lock {
            word: AtomicUsize::new(word),
            rest: AtomicUsize::new(word),
            contended: AtomicU64::new(0),
            sleepers: AtomicU32::new(0),
            reasons: AtomicU8::new(reasons),
            single_threaded: AtomicPtr::new((&raw const NOT_KNOWN).cast_mut()),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock, waiting while another thread holds it.
    ///
    /// Ends the process with a message if this thread holds it already, because that wait would never end.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let me = thread_token();
        if self.take(FREE, me) {
            return self.guard();
        }
        self.lock_slow(me)
    }

    /// Takes the lock without waiting; `None` if it is taken.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        let me = thread_token();
        let word = self.word.load(Ordering::Relaxed);
        (at_rest(word, me) && self.take(word, me)).then(|| self.guard())
    }

    /// Takes the lock in one step, without waiting; `None` if it is taken or slow.
    #[inline(always)]
    pub(crate) fn try_lock_fast(&self) -> Option<Guard<'_, T>> {
        self.take(FREE, thread_token()).then(|| self.guard())
    }

    /// Whether [`Lock::try_lock_fast`] fails on the resting lock.
    #[inline(always)]
    pub(crate) fn is_slow(&self) -> bool {
        self.rest.load(Ordering::Relaxed) & SLOW != 0
    }

    /// Adds or removes a reason for the slow path. The caller holds the lock.
    pub(crate) fn set_slow(&self, reason: SlowReason, slow: bool) {
        if slow {
            self.reasons.fetch_or(reason as u8, Ordering::Relaxed);
        } else {
            self.reasons.fetch_and(!(reason as u8), Ordering::Relaxed);
        }
        loop {
            let reasons = self.reasons.load(Ordering::Relaxed);
            let rest = self.rest.load(Ordering::Relaxed) & !SLOW;
            self.rest.store(if reasons != 0 { rest | SLOW } else { rest }, Ordering::Relaxed);
            compiler_fence(Ordering::SeqCst);
            // A signal handler that forks may have added a reason meanwhile.
            if self.reasons.load(Ordering::Relaxed) == reasons {
                return;
            }
        }
    }

    /// [`lock`](Self::lock), but `None` if the wait is for a thread of which `give_up` returns true, by its token.
    pub(crate) fn lock_unless(&self, give_up: impl FnMut(usize) -> bool) -> Option<Guard<'_, T>> {
        self.try_lock().or_else(|| self.take_contended(thread_token(), give_up).then(|| self.guard()))
    }

    /// Whether this thread holds the lock: a signal handler runs on a thread that it has interrupted.
    pub(crate) fn is_held_here(&self) -> bool {
        self.word.load(Ordering::Relaxed) == thread_token()
    }

    pub(crate) fn is_locked_for_fork(&self) -> bool {
        self.rest.load(Ordering::Relaxed) & FORKING != 0
    }

    /// Whether this is the lock of a thread that a forked child does not have.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.word.load(Ordering::Relaxed) == ABANDONED
    }

    /// Marks, in a forked child, the lock of a thread that the child does not have. Taking it ends the process.
    pub(crate) fn abandon(&self) {
        self.word.store(ABANDONED, Ordering::Relaxed);
    }

    /// Whether a reason is set. The caller holds the lock.
    pub(crate) fn has(&self, reason: SlowReason) -> bool {
        self.reasons.load(Ordering::Relaxed) & reason as u8 != 0
    }

    /// Number of times a thread had to wait for the lock.
    pub(crate) fn contended(&self) -> u64 {
        self.contended.load(Ordering::Relaxed)
    }

    /// Takes the lock for the duration of a `fork`, so that the child inherits a consistent value.
    ///
    /// Until `unlock_after_fork` this thread may still lock and unlock: other libraries' prepare handlers allocate.
    /// False if the wait is for a thread of which `give_up` returns true, by its token.
    pub(crate) unsafe fn lock_for_fork(&self, give_up: impl FnMut(usize) -> bool) -> bool {
        let me = thread_token();
        let word = self.word.load(Ordering::Relaxed);
        let taken = word & !SLOW == FREE && self.take(word, me);
        if !taken && !self.take_contended(me, give_up) {
            return false;
        }
        // A signal handler that runs in between finds the lock held by its own thread, as it is.
        let rest = me | FORKING | self.rest.load(Ordering::Relaxed);
        self.rest.store(rest, Ordering::Relaxed);
        self.word.store(rest, Ordering::Release);
        true
    }

    /// Releases a lock taken by `lock_for_fork`. The child's only thread has the token of the thread that forked.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        // From here on a signal handler must not lock: its unlock would store a word with the old `rest`.
        self.word.store(thread_token(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.sleepers.store(0, Ordering::Relaxed);
        let rest = self.rest.load(Ordering::Relaxed) & SLOW;
        self.rest.store(rest, Ordering::Relaxed);
        self.word.store(rest, Ordering::Release);
    }

    /// Changes the word from `from` to `to`; the only step that takes the lock.
    #[inline(always)]
    fn take(&self, from: usize, to: usize) -> bool {
        if self.is_single_threaded() {
            return self.take_single_threaded(from, to);
        }
        self.word.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// [`take`](Self::take) without an atomic instruction. A signal handler between load and store restores the word.
    #[inline(always)]
    fn take_single_threaded(&self, from: usize, to: usize) -> bool {
        let free = self.word.load(Ordering::Relaxed) == from;
        if free {
            self.word.store(to, Ordering::Relaxed);
            compiler_fence(Ordering::Acquire);
        }
        free
    }

    /// Whether the process is known to have a single thread.
    #[inline(always)]
    fn is_single_threaded(&self) -> bool {
        // SAFETY: the pointer is never null, and what it points to lives as long as the process.
        unsafe { self.single_threaded.load(Ordering::Relaxed).read_volatile() != 0 }
    }

    /// Lets the lock find out whether the process has a single thread.
    pub(crate) fn learn_threads(&self) {
        if let Some(flag) = flag_of_libc() {
            self.single_threaded.store(flag.as_ptr(), Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn guard(&self) -> Guard<'_, T> {
        Guard { lock: self, _not_send: PhantomData }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self, me: usize) -> Guard<'_, T> {
        let word = self.word.load(Ordering::Relaxed);
        if !(at_rest(word, me) && self.take(word, me)) {
            self.take_contended(me, |_| false);
        }
        self.guard()
    }

    /// Waits until the word is free and sets it to `me`. False if `give_up` returns true for the holder's token.
    #[cold]
    #[inline(never)]
    fn take_contended(&self, me: usize, mut give_up: impl FnMut(usize) -> bool) -> bool {
        if self.word.load(Ordering::Relaxed) & !(FORKING | SLOW) == me {
            recursive_call();
        }
        self.contended.fetch_add(1, Ordering::Relaxed);
        let mut backoff = Backoff::new();
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & !SLOW == FREE && self.take(word, me) {
                return true;
            }
            if word == ABANDONED {
                lost_in_fork();
            }
            if give_up(word & !SLOW) {
                return false;
            }
            backoff.pause(&self.sleepers);
        }
    }
}

/// Whether thread `me` may take a lock whose word is `word`.
#[inline(always)]
fn at_rest(word: usize, me: usize) -> bool {
    let holder = word & !SLOW;
    holder == FREE || holder == me | FORKING
}

impl<T> Guard<'_, T> {
    /// Adds or removes a reason for the slow path.
    pub(crate) fn set_slow(&mut self, reason: SlowReason, slow: bool) {
        self.lock.set_slow(reason, slow);
    }
}

impl<'a, T> Guard<'a, T> {
    #[inline(always)]
    pub(crate) fn lock(&self) -> &'a Lock<T> {
        self.lock
    }

    /// Releases the lock, runs `work`, and takes the lock again.
    pub(crate) fn unlocked<R>(self, work: impl FnOnce() -> R) -> (Self, R) {
        let lock = self.lock;
        drop(self);
        let result = work();
        (lock.lock(), result)
    }

    /// Releases the lock long enough for sleeping waiters to take it.
    pub(crate) fn yield_to_waiters(self) -> Self {
        match self.lock.sleepers.load(Ordering::Relaxed) {
            0 => self,
            // All of them wake within this time.
            all => self.unlocked(|| sleep_ns(sleep_time(all.saturating_add(1)))).0,
        }
    }

    /// Releases the lock, with backoff, until `busy` returns false.
    pub(crate) fn wait_while(mut self, busy: impl Fn(&T) -> bool) -> Self {
        let (mut backoff, sleepers) = (Backoff::new(), &self.lock.sleepers);
        while busy(&self) {
            (self, ()) = self.unlocked(|| backoff.pause(sleepers));
        }
        self
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the word is this thread's token, and the guard is borrowed.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the word is this thread's token, and its only guard is borrowed mutably.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let rest = self.lock.rest.load(Ordering::Relaxed);
        self.lock.word.store(rest, Ordering::Release);
    }
}

/// Ends the process: the thread would wait for itself.
#[cold]
pub(crate) fn recursive_call() -> ! {
    fatal(format_args!("recursive call: the thread already holds the heap's lock"))
}

/// Ends the process: the thread that holds the lock was not copied by `fork`.
#[cold]
fn lost_in_fork() -> ! {
    fatal(format_args!(
        "fork in a signal handler: another thread was changing the heap, which this child cannot use (call exec or _exit)"
    ))
}

pub(crate) struct Backoff {
    pauses: u32,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Backoff { pauses: FIRST_PAUSES }
    }

    /// Waits longer than the last time, and sleeps once spinning has taken too long.
    pub(crate) fn pause(&mut self, sleepers: &AtomicU32) {
        if self.pauses <= MOST_PAUSES {
            for _ in 0..self.pauses {
                core::hint::spin_loop();
            }
            self.pauses *= 2;
        } else {
            let all = sleepers.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            sleep_ns(sleep_time(all));
            let one_less = |all: u32| Some(all.saturating_sub(1));
            let _ = sleepers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
            // After a sleep: retry at once, and again after the longest pause.
            self.pauses = MOST_PAUSES;
        }
    }
}

/// Nanoseconds that each of `sleepers` threads sleeps.
fn sleep_time(sleepers: u32) -> u32 {
    sleepers.saturating_mul(SLEEP_NS).min(LONGEST_SLEEP_NS)
}

/// A byte that is 0: nothing is known of other threads.
static NOT_KNOWN: u8 = 0;

/// The C library's flag, which is not 0 while the process has a single thread; reading it takes no call. glibc 2.32 and
/// newer clear it before they start a thread.
///
/// The symbol is weak, because other versions lack it.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64", not(miri)))]
pub(super) fn flag_of_libc() -> Option<NonNull<u8>> {
    let flag: *mut u8;
    // SAFETY: reads the variable's address, or null if it does not exist, from the global offset table.
    unsafe {
        core::arch::asm!(
            ".weak __libc_single_threaded",
            "mov {}, qword ptr [rip + __libc_single_threaded@GOTPCREL]",
            out(reg) flag,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    NonNull::new(flag)
}

#[cfg(not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64", not(miri))))]
pub(super) fn flag_of_libc() -> Option<NonNull<u8>> {
    None
}

/// A token unique among living threads: not 0, a multiple of 4, and unchanged by `fork`.
///
/// It is the address of the thread's control block, which both ABIs keep in a register.
#[inline(always)]
#[cfg(all(any(target_os = "linux", target_os = "android"), target_arch = "x86_64", not(miri)))]
pub(crate) fn thread_token() -> usize {
    let token: usize;
    // SAFETY: the first word of the thread control block is its own address.
    unsafe {
        core::arch::asm!("mov {}, fs:0", out(reg) token, options(pure, readonly, nostack, preserves_flags));
    }
    token
}

#[inline(always)]
#[cfg(all(any(target_os = "linux", target_os = "android"), target_arch = "aarch64", not(miri)))]
pub(crate) fn thread_token() -> usize {
    let token: usize;
    // SAFETY: every program may read this register.
    unsafe {
        core::arch::asm!("mrs {}, tpidr_el0", out(reg) token, options(pure, nomem, nostack, preserves_flags));
    }
    token
}

#[inline]
#[cfg(not(all(
    any(target_os = "linux", target_os = "android"),
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(miri)
)))]
pub(crate) fn thread_token() -> usize {
    // SAFETY: the call has no preconditions.
    let thread = unsafe { libc::pthread_self() };
    // Linux C libraries use the address of the thread's control block as its number.
    thread as usize
}
