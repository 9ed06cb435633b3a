//! The number of a thread, from which its home region follows.
//!
//! It is dealt when the thread asks first: the lowest of those that the fewest living threads have. So threads that start
//! one after the other get 0, 1, 2 and so on, and what a thread had that has ended goes to the next one.
//!
//! The number lies in a word that every thread has from its beginning (thread-local storage of the kind *initial exec*).
//! To read it takes two loads, before `main` and in the last destructors of a thread too, and nothing is allocated for
//! it. A pthread key is there only to learn that a thread ends.

mod word;

use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::system::errno;

/// Numbers that threads can have. Of more threads, some have the same.
pub(crate) const NUMBERS: usize = 64;

/// How many living threads have each number.
static THREADS: [AtomicU32; NUMBERS] = [const { AtomicU32::new(0) }; NUMBERS];
/// The pthread key whose destructor gives a number back, plus one; 0 before it is made.
static KEY: AtomicU32 = AtomicU32::new(0);

/// The calling thread's number, less than [`NUMBERS`].
#[inline(always)]
pub(crate) fn number() -> usize {
    let word = word::get();
    if word == 0 { deal() } else { word.wrapping_sub(1) }
}

#[cold]
#[inline(never)]
fn deal() -> usize {
    let number = take();
    // First of all: what follows may allocate, and asks for the number then.
    word::set(number.wrapping_add(1));
    errno::unchanged(|| return_at_end(number));
    number
}

/// Takes the lowest of the numbers that the fewest threads have.
fn take() -> usize {
    loop {
        let counts = THREADS.iter().map(|threads| threads.load(Ordering::Relaxed));
        let (number, fewest) = counts.enumerate().min_by_key(|&(_, count)| count).unwrap_or((0, 0));
        let Some(threads) = THREADS.get(number) else { return 0 };
        let more = fewest.wrapping_add(1);
        if threads.compare_exchange(fewest, more, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return number;
        }
    }
}

/// Gives the number back when the thread ends. Where the system has no key left, numbers do not come back, and threads
/// share homes sooner than they have to.
fn return_at_end(number: usize) {
    let Some(key) = key() else { return };
    let value = ptr::without_provenance::<libc::c_void>(number.wrapping_add(1));
    // SAFETY: the key exists as long as the process.
    unsafe { libc::pthread_setspecific(key, value) };
}

/// The key, which the first caller makes.
fn key() -> Option<libc::pthread_key_t> {
    let known = KEY.load(Ordering::Relaxed);
    if known != 0 {
        return Some(known.wrapping_sub(1));
    }
    let mut key = 0;
    // SAFETY: the key is valid for writes, and the destructor lives as long as the process.
    if unsafe { libc::pthread_key_create(&mut key, Some(give_back)) } != 0 {
        return None;
    }
    match KEY.compare_exchange(0, key.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Some(key),
        Err(other) => {
            // SAFETY: nobody else knows of this key: another thread was faster.
            unsafe { libc::pthread_key_delete(key) };
            Some(other.wrapping_sub(1))
        }
    }
}

/// A thread ends. It keeps its number for what it still does, but is no longer counted.
unsafe extern "C" fn give_back(value: *mut libc::c_void) {
    if let Some(threads) = THREADS.get(value.addr().wrapping_sub(1)) {
        threads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// In the child of a fork only the calling thread is left.
pub(crate) fn forget_other_threads() {
    let mine = word::get();
    for (number, threads) in (1..).zip(&THREADS) {
        threads.store(u32::from(number == mine), Ordering::Relaxed);
    }
}
