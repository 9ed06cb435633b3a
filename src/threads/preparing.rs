//! The threads that prepare a `fork`.
//!
//! A thread that forks in a signal handler may hold a heap's lock, by the interrupted call, while it waits for others.
//! A thread that holds locks and waits for such a lock would wait for ever. So it checks this table, and releases its
//! own locks.

use super::lock::thread_token;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Threads in the table; further ones are not known. Few programs fork on several threads at once.
const CAPACITY: usize = 16;

/// Their tokens, 0 in free entries.
static THREADS: [AtomicUsize; CAPACITY] = [const { AtomicUsize::new(0) }; CAPACITY];

/// Adds the calling thread.
pub(super) fn begin() {
    let me = thread_token();
    let take =
        |entry: &AtomicUsize| entry.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    let _ = THREADS.iter().any(take);
}

/// Removes the calling thread.
pub(super) fn end() {
    let me = thread_token();
    for entry in &THREADS {
        let _ = entry.compare_exchange(me, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

/// Removes all threads: a forked child has none of them.
pub(super) fn forget_all() {
    THREADS.iter().for_each(|entry| entry.store(0, Ordering::Relaxed));
}

/// Whether the thread with this token prepares a fork.
pub(crate) fn is_preparing(token: usize) -> bool {
    THREADS.iter().any(|entry| entry.load(Ordering::Relaxed) == token)
}
