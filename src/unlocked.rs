//! What is done for a heap while its lock is not held: giving memory back to the system, waiting for that, and clearing.
//!
//! A thread that gives memory back has taken no segment for it: placement stays what it is. Whoever is given a place
//! in what is on its way waits until the system has it, and only then touches it. Meanwhile the lock is watched, so
//! that everybody comes by the long way, which asks.
//!
//! The links of [`Linked`](crate::Linked) lie in free memory and may be written at any time, so that list's memory is
//! given back with the lock held.

use crate::checkers;
use crate::free_list::FreeList;
use crate::heap::{Purge, granules};
use crate::region::Granule;
use crate::threads::lock::{self, Guard, Lock, SlowReason};
use crate::threads::shared::Heap;
use core::alloc::Layout;

/// Gives back what is due after a free, if anything is.
#[inline(always)]
pub(crate) fn purge_if_due<L: FreeList>(mut heap: Guard<'_, Heap<L>>) {
    if let Some(pass) = heap.purge_due() {
        purge(heap, pass);
    }
}

/// Gives back what a pass finds, and says how many bytes.
#[cold]
#[inline(never)]
pub(crate) fn purge<L: FreeList>(mut heap: Guard<'_, Heap<L>>, mut pass: Purge) -> usize {
    while let Some(mut pieces) = heap.begin_purge(&mut pass, lock::thread_token()) {
        if L::LINK_BYTES > 0 {
            // SAFETY: the pieces are free, and the lock is held.
            unsafe { pieces.discard() };
        } else {
            heap.set_slow(SlowReason::Purge, true);
            // SAFETY: the pieces are free. Who is given a part of them waits.
            (heap, ()) = heap.unlocked(|| unsafe { pieces.discard() });
            heap.set_slow(SlowReason::Purge, false);
        }
        heap.end_purge(&mut pass, &pieces);
        // Between two pieces others may come: who forks, or who waits for a piece.
        heap = idle(heap.give_way());
    }
    pass.bytes()
}

/// Returns once nothing of the `size` bytes that were placed at `at` is on its way to the system.
#[inline(always)]
pub(crate) fn settled<L: FreeList>(heap: Guard<'_, Heap<L>>, at: Granule, size: usize) -> Guard<'_, Heap<L>> {
    if heap.is_purging() { wait(heap, at, at.up(granules(size))) } else { heap }
}

#[cold]
#[inline(never)]
fn wait<L: FreeList>(heap: Guard<'_, Heap<L>>, from: Granule, to: Granule) -> Guard<'_, Heap<L>> {
    let me = lock::thread_token();
    heap.wait_while(|heap| match heap.purges(from, to) {
        Some(by) if by == me => lock::recursive(),
        by => by.is_some(),
    })
}

/// Returns once nothing is on its way to the system.
pub(crate) fn idle<L: FreeList>(heap: Guard<'_, Heap<L>>) -> Guard<'_, Heap<L>> {
    wait(heap, Granule(0), Granule(usize::MAX))
}

/// The payload that was placed at `at` by `place_zeroed`, cleared where it may not be zero.
pub(crate) fn zeroed<L: FreeList>(heap: Guard<'_, Heap<L>>, at: Granule, layout: Layout) -> *mut u8 {
    let heap = settled(heap, at, layout.size());
    let payload = heap.region().pointer(at);
    checkers::given_zeroed(payload, layout.size());
    drop(cleared(heap, at, layout.size()));
    payload.as_ptr()
}

/// Clears what may not be zero of the `size` bytes at `at`, which were just placed.
fn cleared<L: FreeList>(mut heap: Guard<'_, Heap<L>>, at: Granule, size: usize) -> Guard<'_, Heap<L>> {
    let mut from = at;
    while let Some((unknown, next)) = heap.next_unknown(at, size, from) {
        // SAFETY: these bytes belong to a payload that is this thread's.
        (heap, ()) = heap.unlocked(|| unsafe { unknown.cast::<u8>().write_bytes(0, unknown.len()) });
        from = next;
    }
    heap
}

/// Resizes the segment `at.0..at.0 + at.1` in place, of which the first `sizes.0` bytes are known, to `sizes.1` bytes; the
/// rest is zero. The lock, where that cannot be done.
pub(crate) fn grown_zeroed<L: FreeList>(
    mut heap: Guard<'_, Heap<L>>,
    (at, n): (Granule, usize),
    (old_size, new_size): (usize, usize),
) -> Result<(), Guard<'_, Heap<L>>> {
    let before = heap.wilderness();
    if !heap.resize(at, n, new_size) {
        return Err(heap);
    }
    let rest = heap.soil_grown(before, (at, n), old_size, new_size);
    let heap = settled(heap, at, new_size);
    checkers::resized(heap.region().pointer(at).as_ptr(), old_size, new_size);
    // SAFETY: these bytes belong to the payload and were not part of it before.
    unsafe { rest.cast::<u8>().write_bytes(0, rest.len()) };
    let grown = new_size.saturating_sub(Granule(n).bytes());
    if grown == 0 {
        purge_if_due(heap);
        return Ok(());
    }
    checkers::zeroed(heap.region().bytes(at.up(n).bytes(), grown));
    drop(cleared(heap, at.up(n), grown));
    Ok(())
}

/// Takes the lock for the time of a `fork`, when nothing is on its way to the system: the child has not the thread that
/// would see to the end of it.
///
/// # Safety
/// As for [`Lock::lock_for_fork`].
pub(crate) unsafe fn lock_for_fork<L: FreeList>(lock: &Lock<Heap<L>>) {
    loop {
        drop(idle(lock.lock()));
        // SAFETY: the caller's promise, or released below.
        unsafe { lock.lock_for_fork() };
        if !lock.lock().is_purging() {
            return;
        }
        // SAFETY: this thread took it just now, and holds no guard.
        unsafe { lock.unlock_after_fork() };
    }
}
