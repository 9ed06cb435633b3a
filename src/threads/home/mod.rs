//! A small number per thread, from which its home region follows.
//!
//! It is assigned at first use: the lowest of the numbers that the fewest living threads have. So threads that start
//! one after the other get 0, 1, 2 and so on, and the number of a thread that ended is assigned next.
//!
//! The number, plus one, is kept in a word of initial-exec thread-local storage: reading it takes two
//! loads and never allocates, even before `main` and in a thread's last destructors. In a [`scope`] the word points to
//! it instead. A pthread key is used only to learn that a thread ends.

pub(crate) mod scope;
mod word;

use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::system::errno;

/// Distinct numbers. With more threads, several have the same.
pub(crate) const NUMBERS: usize = 64;

/// Living threads with each number.
static LIVING_THREADS: [AtomicU32; NUMBERS] = [const { AtomicU32::new(0) }; NUMBERS];
/// The pthread key whose destructor releases a number, plus one; 0 before it is created.
static KEY: AtomicU32 = AtomicU32::new(0);
/// The value of `KEY` after the key was deleted.
const DELETED: u32 = u32::MAX;

/// The calling thread's number, less than [`NUMBERS`]; `None` if it has none yet, or is in a [`scope`].
#[inline(always)]
pub(crate) fn number() -> Option<usize> {
    number_of(word::get())
}

#[inline(always)]
fn number_of(word: *const ()) -> Option<usize> {
    let number = word.addr().wrapping_sub(1);
    (number < NUMBERS).then_some(number)
}

/// The calling thread's number, assigned now if it has none yet, also in a scope.
pub(crate) fn number_slow() -> usize {
    scope::number_below(word::get()).unwrap_or_else(assign)
}

#[cold]
#[inline(never)]
fn assign() -> usize {
    let number = claim();
    // Set before anything else: the calls below may allocate and need the number.
    word::set(ptr::without_provenance(number.wrapping_add(1)));
    errno::unchanged(|| release_at_exit(number));
    number
}

/// Claims the lowest of the numbers with the fewest threads.
fn claim() -> usize {
    loop {
        let counts = LIVING_THREADS.iter().map(|threads| threads.load(Ordering::Relaxed));
        let (number, fewest) = counts.enumerate().min_by_key(|&(_, count)| count).unwrap_or((0, 0));
        let Some(threads) = LIVING_THREADS.get(number) else { return 0 };
        let more = fewest.wrapping_add(1);
        if threads.compare_exchange(fewest, more, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return number;
        }
    }
}

/// Arranges for the number to be released when the thread ends. If the system has no key left, numbers are never
/// released, and threads share homes sooner than necessary.
fn release_at_exit(number: usize) {
    let Some(key) = key() else { return };
    let value = ptr::without_provenance::<libc::c_void>(number.wrapping_add(1));
    // SAFETY: the key is deleted only when no thread uses this library any more, or the process exits.
    unsafe { libc::pthread_setspecific(key, value) };
}

/// The key, created by the first caller; `None` if the system has none left.
fn key() -> Option<libc::pthread_key_t> {
    match KEY.load(Ordering::Relaxed) {
        0 => {}
        DELETED => return None,
        known => return Some(known.wrapping_sub(1)),
    }
    let mut key = 0;
    // SAFETY: `key` is writable, and the destructor lives as long as the process.
    if unsafe { libc::pthread_key_create(&mut key, Some(release)) } != 0 {
        return None;
    }
    match KEY.compare_exchange(0, key.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Some(key),
        Err(other) => {
            // SAFETY: another thread published its key first, so no other thread knows this one.
            unsafe { libc::pthread_key_delete(key) };
            (other != DELETED).then(|| other.wrapping_sub(1))
        }
    }
}

/// Deletes the key, whose destructor would be called in an unloaded library when a thread ends. None is created after.
pub(super) fn delete_key() {
    let known = KEY.swap(DELETED, Ordering::Relaxed);
    if known != 0 && known != DELETED {
        // SAFETY: this call has taken the key out of `KEY`.
        unsafe { libc::pthread_key_delete(known.wrapping_sub(1)) };
    }
}

/// Destructor of the key. The thread keeps its number until its end, but no longer counts.
unsafe extern "C" fn release(value: *mut libc::c_void) {
    if let Some(threads) = LIVING_THREADS.get(value.addr().wrapping_sub(1)) {
        threads.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Resets the counts in a forked child, where only the calling thread is left.
pub(crate) fn forget_other_threads() {
    let mine = scope::number_below(word::get());
    for (number, threads) in LIVING_THREADS.iter().enumerate() {
        threads.store(u32::from(Some(number) == mine), Ordering::Relaxed);
    }
}
