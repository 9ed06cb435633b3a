//! The lock: who holds it, how others wait for it, and how it passes through a `fork`.
//!
//! The lock is one word. It is 0 while the lock is free, and else the token of the thread that holds it:
//!
//! ```text
//!          lock: compare exchange
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
//! At rest the word may also say `SLOW`, instead of 0 and beside `FORKING`. Then only
//! [`Lock::try_lock_fast`] fails, so that what happens most need not ask who watches.
//!
//! Taking the lock and naming its owner are one atomic step, and so are the reverse. Were they two, a signal handler that
//! runs between them would find the lock held by nobody, and wait for the very thread that it interrupts.
//!
//! A thread that finds the lock held pauses, each time twice as long, and looks at the word without writing to it; after some
//! microseconds it sleeps. With more threads than cores the holder is often one that does not run, and only those
//! that sleep let it. Yielding does not: the thread stays in the way, wakes into the same crowd, and all wait longer.
//! The more sleep, the longer each of them does, so that however many they are, one in a tenth of a millisecond wakes.

use core::cell::UnsafeCell;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};

use crate::system::clock::sleep_ns;
use crate::system::fatal::fatal;

/// The word of a lock that nobody holds. No thread has this token.
const FREE: usize = 0;
/// The bit that marks the word during a `fork`. Tokens are addresses of thread control blocks, multiples of 4.
const FORKING: usize = 1;
/// The bit that marks the word at rest when every use of the value must come by the long way.
const SLOW: usize = 2;

/// Pauses before the first look at the word; they double with every look.
const FIRST_PAUSES: u32 = 4;
/// Pauses before the last look that is not followed by a sleep: all together some microseconds, many times what an
/// operation takes under the lock.
const MOST_PAUSES: u32 = 64;
/// How long a thread sleeps for each that does, in nanoseconds. With less, those that wake are in the way of those that work.
const SLEEP_NS: u32 = 100_000;
/// The longest sleep in nanoseconds.
const LONGEST_SLEEP_NS: u32 = 20_000_000;

/// Who wants to see every use of a value.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(crate) enum SlowReason {
    Recorder = 1,
    LivePage = 2,
    Purge = 4,
    /// The heap is new, and not yet covered against `fork`.
    FirstUse = 8,
}

/// A value that one thread at a time may use.
#[repr(C)]
pub(crate) struct Lock<T> {
    /// What the word is at rest, or the token of the thread that holds the lock.
    word: AtomicUsize,
    /// What `word` becomes when a guard is dropped: `FREE` or `SLOW`, or the token of a thread that forks with
    /// `FORKING`, and with `SLOW` or without. Written only by the thread that holds the lock.
    rest: AtomicUsize,
    contended: AtomicU64,
    /// Threads that sleep until they look at the word again. After a fork they are counted anew: the child has none.
    sleepers: AtomicU32,
    /// The reasons that there are. Written only by the thread that holds the lock.
    reasons: AtomicU8,
    value: UnsafeCell<T>,
}

// SAFETY: a `&T` or `&mut T` is given out only through a guard, there is one guard at a time, and it stays on its thread.
unsafe impl<T: Send> Sync for Lock<T> {}

/// The value of a lock that this thread holds, until this is dropped.
#[must_use = "the lock is released when the guard is dropped"]
pub(crate) struct Guard<'a, T> {
    lock: &'a Lock<T>,
    /// Keeps the guard on its thread, whose token the word holds.
    _not_send: PhantomData<*const ()>,
}

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self::at_rest(FREE, 0, value)
    }

    /// A lock that is slow from the beginning.
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
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the lock, and waits for it as long as another thread has it.
    ///
    /// If this thread has it already, the process ends with a message: waiting would never end.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let me = thread_token();
        if self.take(FREE, me) {
            return self.guard();
        }
        self.lock_slow(me)
    }

    /// Takes the lock if it is free, without waiting.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        let me = thread_token();
        let word = self.word.load(Ordering::Relaxed);
        (at_rest(word, me) && self.take(word, me)).then(|| self.guard())
    }

    /// Takes the lock if it is free and not slow, in one step, without waiting.
    #[inline(always)]
    pub(crate) fn try_lock_fast(&self) -> Option<Guard<'_, T>> {
        self.take(FREE, thread_token()).then(|| self.guard())
    }

    /// Whether [`Lock::try_lock_fast`] fails when the lock is at rest.
    #[inline(always)]
    pub(crate) fn is_slow(&self) -> bool {
        self.rest.load(Ordering::Relaxed) & SLOW != 0
    }

    /// Lets [`Lock::try_lock_fast`] fail from now on, or as far as this reason is concerned succeed again. The caller holds
    /// the lock.
    pub(crate) fn set_slow(&self, reason: SlowReason, slow: bool) {
        let others = self.reasons.load(Ordering::Relaxed) & !(reason as u8);
        let reasons = if slow { others | reason as u8 } else { others };
        self.reasons.store(reasons, Ordering::Relaxed);
        let rest = self.rest.load(Ordering::Relaxed) & !SLOW;
        self.rest.store(if reasons != 0 { rest | SLOW } else { rest }, Ordering::Relaxed);
    }

    /// How many times a thread had to wait for the lock.
    pub(crate) fn contended(&self) -> u64 {
        self.contended.load(Ordering::Relaxed)
    }

    /// Takes the lock for the time of a `fork`, so that the child gets the value between two operations.
    ///
    /// Until `unlock_after_fork` the thread may still lock and unlock: the prepare handlers of others allocate.
    ///
    /// # Safety
    /// The same thread calls `unlock_after_fork`, in the parent and in the child.
    pub(crate) unsafe fn lock_for_fork(&self) {
        let me = thread_token();
        let word = self.word.load(Ordering::Relaxed);
        if !(word & !SLOW == FREE && self.take(word, me)) {
            self.wait_to_hold(me);
        }
        // A signal handler in between finds the lock held by its thread, which is the truth.
        let rest = me | FORKING | self.rest.load(Ordering::Relaxed);
        self.rest.store(rest, Ordering::Relaxed);
        self.word.store(rest, Ordering::Release);
    }

    /// Releases the lock that `lock_for_fork` took. The child's only thread has the token of the thread that forked.
    ///
    /// # Safety
    /// This thread called `lock_for_fork`, or is the one thread of the child of a thread that did, and holds no guard.
    pub(crate) unsafe fn unlock_after_fork(&self) {
        // From here on a signal handler may no longer lock: it would unlock, and the word would be another thread's.
        self.word.store(thread_token(), Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        self.sleepers.store(0, Ordering::Relaxed);
        let rest = self.rest.load(Ordering::Relaxed) & SLOW;
        self.rest.store(rest, Ordering::Relaxed);
        self.word.store(rest, Ordering::Release);
    }

    /// Turns the word from `from` to `to`. The only step that gives a thread the value.
    #[inline(always)]
    fn take(&self, from: usize, to: usize) -> bool {
        if single_threaded() {
            return self.take_alone(from, to);
        }
        self.word.compare_exchange(from, to, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The same without an atomic step, for the only thread of the process. A signal handler that runs between the two
    /// leaves the word as it found it.
    #[inline(always)]
    fn take_alone(&self, from: usize, to: usize) -> bool {
        let free = self.word.load(Ordering::Relaxed) == from;
        if free {
            self.word.store(to, Ordering::Relaxed);
            compiler_fence(Ordering::Acquire);
        }
        free
    }

    /// The guard of a thread that has just taken the lock.
    #[inline(always)]
    fn guard(&self) -> Guard<'_, T> {
        Guard { lock: self, _not_send: PhantomData }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self, me: usize) -> Guard<'_, T> {
        let word = self.word.load(Ordering::Relaxed);
        if !(at_rest(word, me) && self.take(word, me)) {
            self.wait_to_hold(me);
        }
        self.guard()
    }

    /// Waits until the word is free and turns it into `me`.
    #[cold]
    #[inline(never)]
    fn wait_to_hold(&self, me: usize) {
        if self.word.load(Ordering::Relaxed) & !(FORKING | SLOW) == me {
            recursive();
        }
        self.contended.fetch_add(1, Ordering::Relaxed);
        let mut wait = Wait::new();
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & !SLOW == FREE && self.take(word, me) {
                return;
            }
            wait.a_while(&self.sleepers);
        }
    }
}

/// Whether a lock with that word can be taken by the thread whose token is `me`.
#[inline(always)]
fn at_rest(word: usize, me: usize) -> bool {
    let holder = word & !SLOW;
    holder == FREE || holder == me | FORKING
}

impl<T> Guard<'_, T> {
    /// Lets [`Lock::try_lock_fast`] fail from now on, or as far as this reason is concerned succeed again.
    pub(crate) fn set_slow(&mut self, reason: SlowReason, slow: bool) {
        self.lock.set_slow(reason, slow);
    }
}

impl<'a, T> Guard<'a, T> {
    /// The lock that is held.
    #[inline(always)]
    pub(crate) fn lock(&self) -> &'a Lock<T> {
        self.lock
    }

    /// Releases the lock, does the work, and takes the lock again.
    pub(crate) fn unlocked<R>(self, work: impl FnOnce() -> R) -> (Self, R) {
        let lock = self.lock;
        drop(self);
        let result = work();
        (lock.lock(), result)
    }

    /// Lets those have the lock who sleep until it is free, if there are any.
    pub(crate) fn give_way(self) -> Self {
        match self.lock.sleepers.load(Ordering::Relaxed) {
            0 => self,
            // The last of them wakes by then.
            all => self.unlocked(|| sleep_ns(naptime(all.saturating_add(1)))).0,
        }
    }

    /// Releases the lock for a while, again and again, as long as `busy` says so.
    pub(crate) fn wait_while(mut self, busy: impl Fn(&T) -> bool) -> Self {
        let (mut wait, sleepers) = (Wait::new(), &self.lock.sleepers);
        while busy(&self) {
            (self, ()) = self.unlocked(|| wait.a_while(sleepers));
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
        // SAFETY: the word is this thread's token, and the one guard is borrowed mutably.
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
pub(crate) fn recursive() -> ! {
    fatal(format_args!("recursive call: the thread already holds the heap's lock"))
}

/// How a thread waits next.
pub(crate) struct Wait {
    pauses: u32,
}

impl Wait {
    pub(crate) fn new() -> Self {
        Wait { pauses: FIRST_PAUSES }
    }

    /// Waits a little longer than the last time; in the end sleeps, as one of so many.
    pub(crate) fn a_while(&mut self, sleepers: &AtomicU32) {
        if self.pauses <= MOST_PAUSES {
            for _ in 0..self.pauses {
                core::hint::spin_loop();
            }
            self.pauses *= 2;
        } else {
            let all = sleepers.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            sleep_ns(naptime(all));
            let one_less = |all: u32| Some(all.saturating_sub(1));
            let _ = sleepers.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
            // Looks, and once more after the longest pause.
            self.pauses = MOST_PAUSES;
        }
    }
}

/// How long each of so many sleeps, in nanoseconds.
fn naptime(sleepers: u32) -> u32 {
    sleepers.saturating_mul(SLEEP_NS).min(LONGEST_SLEEP_NS)
}

/// Whether the process is known to have one thread only. The C library knows, if it is glibc 2.32 or newer: the flag is
/// lowered before a thread is started, and is read without a call. Its name is weak, so that it may be missing.
#[inline(always)]
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64", not(miri)))]
fn single_threaded() -> bool {
    let flag: *const u8;
    // SAFETY: reads the address of a variable, or null where there is none, from where the linker has put it.
    unsafe {
        core::arch::asm!(
            ".weak __libc_single_threaded",
            "mov {}, qword ptr [rip + __libc_single_threaded@GOTPCREL]",
            out(reg) flag,
            options(pure, readonly, nostack, preserves_flags)
        );
    }
    // SAFETY: what is not null is the C library's variable, which lives as long as the process.
    !flag.is_null() && unsafe { flag.read_volatile() } != 0
}

/// Whether the process is known to have one thread only.
#[inline(always)]
#[cfg(not(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64", not(miri))))]
fn single_threaded() -> bool {
    false
}

/// A number of the calling thread that no other living thread has: not 0, a multiple of 4, and the same after a `fork`.
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

/// A number of the calling thread that no other living thread has: not 0, a multiple of 4, and the same after a `fork`.
#[inline(always)]
#[cfg(all(any(target_os = "linux", target_os = "android"), target_arch = "aarch64", not(miri)))]
pub(crate) fn thread_token() -> usize {
    let token: usize;
    // SAFETY: the register may be read by every program and is only read.
    unsafe {
        core::arch::asm!("mrs {}, tpidr_el0", out(reg) token, options(pure, nomem, nostack, preserves_flags));
    }
    token
}

/// A number of the calling thread that no other living thread has: not 0, a multiple of 4, and the same after a `fork`.
#[inline]
#[cfg(not(all(
    any(target_os = "linux", target_os = "android"),
    any(target_arch = "x86_64", target_arch = "aarch64"),
    not(miri)
)))]
pub(crate) fn thread_token() -> usize {
    // SAFETY: the call takes no arguments and cannot fail.
    let thread = unsafe { libc::pthread_self() };
    // The system's threads are numbered by the address of their control block.
    thread as usize
}
