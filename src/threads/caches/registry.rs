//! All caches of the process: a list that only grows, and who has which.
//!
//! A cache of a thread that ended is taken by the next thread. The registry's lock is taken before any heap's lock, and
//! never by a thread that has entered a cache.

use super::cache::Cache;
use super::word::{self, EMPTY, REFUSED};
use crate::system::errno;
use crate::system::mapping::Mapping;
use crate::threads::lock::{Guard, Lock};
use core::mem;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

/// Threads that have a cache at the same time. Further ones go without.
const MOST_CACHES: usize = 128;

static LOCK: Lock<()> = Lock::new(());
static FIRST: AtomicPtr<Cache> = AtomicPtr::new(ptr::null_mut());

/// The pthread key whose destructor runs when a thread with a cache ends, plus one; 0 before it is created.
static KEY: AtomicU32 = AtomicU32::new(0);
/// The value of `KEY` after the key was deleted.
const NO_MORE: u32 = u32::MAX;

pub(super) fn lock() -> Guard<'static, ()> {
    LOCK.lock()
}

pub(super) fn try_lock() -> Option<Guard<'static, ()>> {
    LOCK.try_lock()
}

/// Takes the registry's lock for the duration of a `fork`, unless this thread holds it, or is inside a call on a heap
/// and would have to wait: another thread may hold the registry and wait for that heap.
///
/// # Safety
/// As for [`Lock::lock_for_fork`].
pub(crate) unsafe fn lock_for_fork(inside: bool) {
    if !LOCK.is_held_here() {
        // SAFETY: guaranteed by the caller.
        unsafe { LOCK.lock_for_fork(|_| inside) };
    }
}

pub(super) fn is_locked_for_fork() -> bool {
    LOCK.is_locked_for_fork()
}

/// Unlocks the registry, if it was locked for a fork.
///
/// # Safety
/// As for [`Lock::unlock_after_fork`].
pub(crate) unsafe fn unlock_after_fork() {
    if is_locked_for_fork() {
        // SAFETY: guaranteed by the caller.
        unsafe { LOCK.unlock_after_fork() };
    }
}

/// In a forked child, releases the registry if a thread held it that the child does not have. That may have been
/// changing this thread's cache, which is given up then.
///
/// # Safety
/// The process has just been forked, so this is its only thread.
pub(crate) unsafe fn forget_other_threads() {
    if !is_locked_for_fork() && !LOCK.is_held_here() {
        word::set(&REFUSED);
        // SAFETY: nobody else can hold the lock.
        unsafe { LOCK.unlock_after_fork() };
    }
}

/// The cache that this thread has taken, also while it must not use it.
pub(super) fn of_thread() -> *const Cache {
    match KEY.load(Ordering::Relaxed) {
        0 | NO_MORE => ptr::null(),
        // SAFETY: the key exists.
        key => unsafe { libc::pthread_getspecific(key.wrapping_sub(1)) }.cast_const().cast(),
    }
}

/// All caches, the newest first.
pub(super) fn all() -> impl Iterator<Item = &'static Cache> {
    // SAFETY: a cache in the list stays mapped.
    let load = |place: &AtomicPtr<Cache>| unsafe { place.load(Ordering::Acquire).as_ref() };
    core::iter::successors(load(&FIRST), move |cache| load(&cache.next))
}

/// The caches of a heap.
pub(super) fn of_heap(heap: usize) -> impl Iterator<Item = &'static Cache> {
    all().filter(move |cache| cache.heap.load(Ordering::Relaxed) == heap)
}

/// Takes a cache for this thread: one that holds payloads of region `region` of the heap and has no owner, else one
/// that nobody uses, else a new one. `None` if there are too many, or the system has no memory or key.
///
/// The thread has none meanwhile, and keeps none if this fails: the calls below may allocate.
pub(super) fn take(heap: usize, region: usize) -> Option<&'static Cache> {
    let before = word::get();
    word::set(&REFUSED);
    errno::unchanged(|| {
        let key = key()?;
        let cache = find(before, heap, region)?;
        let value: *const Cache = cache;
        // SAFETY: the key is deleted only once no thread runs this code any more.
        if unsafe { libc::pthread_setspecific(key, value.cast()) } == 0 {
            return Some(cache);
        }
        let _registry = lock();
        cache.taken.store(false, Ordering::Relaxed);
        None
    })
}

/// The caches of threads with region `region` of the heap as their home.
fn of_home(heap: usize, region: usize) -> impl Iterator<Item = &'static Cache> {
    of_heap(heap).filter(move |cache| cache.region() == region && !cache.is_depot())
}

/// Whether at most `most` living threads have a cache of region `region` of the heap. The registry is locked.
pub(super) fn has_at_most(most: usize, heap: usize, region: usize) -> bool {
    of_home(heap, region).filter(|cache| cache.taken.load(Ordering::Relaxed)).count() <= most
}

/// Gives the caches of a region a depot if they are several. `open` prepares one that does not serve.
pub(super) fn share(heap: usize, region: usize, open: impl FnOnce(&Cache)) {
    let _registry = lock();
    if has_at_most(1, heap, region) {
        return;
    }
    let is_depot = |cache: &&Cache| cache.is_depot() && cache.region() == region;
    let Some(depot) = of_heap(heap).find(is_depot).or_else(unused) else { return };
    if !depot.shared.swap(true, Ordering::Relaxed) || depot.passes(0) {
        depot.taken.store(true, Ordering::Relaxed);
        open(depot);
    }
    for cache in of_home(heap, region) {
        cache.depot.store(ptr::from_ref(depot).cast_mut(), Ordering::Release);
    }
}

/// A cache that nobody uses. The registry is locked.
fn unused() -> Option<&'static Cache> {
    let is_free = |cache: &&Cache| !cache.taken.load(Ordering::Relaxed);
    match of_heap(0).find(is_free) {
        None if all().count() < MOST_CACHES => errno::unchanged(map),
        cache => cache,
    }
}

fn find(before: &Cache, heap: usize, region: usize) -> Option<&'static Cache> {
    let _registry = lock();
    // The thread's cache until now, if its heap was dropped.
    before.taken.store(false, Ordering::Relaxed);
    let is_free = |cache: &&Cache| !cache.taken.load(Ordering::Relaxed);
    let orphan = of_home(heap, region).find(is_free);
    let cache = orphan.or_else(unused)?;
    cache.taken.store(true, Ordering::Relaxed);
    Some(cache)
}

/// Maps a cache and adds it to the list.
fn map() -> Option<&'static Cache> {
    let mapping = Mapping::anonymous(size_of::<Cache>(), 0).ok()?;
    // SAFETY: the mapping has room for one cache.
    let cache = unsafe { mapping.entry::<Cache>(0) };
    mem::forget(mapping);
    // SAFETY: zeros are a cache, the mapping is aligned to a page, and it stays.
    let cache: &'static Cache = unsafe { cache.as_ref() };
    cache.next.store(FIRST.load(Ordering::Relaxed), Ordering::Relaxed);
    FIRST.store(ptr::from_ref(cache).cast_mut(), Ordering::Release);
    Some(cache)
}

/// The key, created by the first caller; `None` if the system has none left, or this library is being unloaded.
fn key() -> Option<libc::pthread_key_t> {
    let known = KEY.load(Ordering::Relaxed);
    if known == NO_MORE {
        return None;
    }
    if known != 0 {
        return Some(known.wrapping_sub(1));
    }
    let mut key = 0;
    // SAFETY: `key` is writable, and `delete_key` deletes it before the destructor's code goes away.
    if unsafe { libc::pthread_key_create(&mut key, Some(at_exit)) } != 0 {
        return None;
    }
    match KEY.compare_exchange(0, key.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed) {
        Ok(_) => Some(key),
        Err(other) => {
            // SAFETY: another thread published its key first, so no other thread knows this one.
            unsafe { libc::pthread_key_delete(key) };
            (other != NO_MORE).then(|| other.wrapping_sub(1))
        }
    }
}

/// Destructor of the key. From here on the thread's calls go past the caches: it does not learn when it makes the last
/// one, since after four rounds of destructors the system calls no more of them.
unsafe extern "C" fn at_exit(cache: *mut libc::c_void) {
    word::set(&REFUSED);
    // SAFETY: the value was set by `take`, and caches are never unmapped.
    let cache: &'static Cache = unsafe { &*cache.cast() };
    errno::unchanged(|| {
        let _registry = lock();
        if let Some((heap, give_back)) = cache.at_exit()
            && cache.heap.load(Ordering::Relaxed) != 0
        {
            // SAFETY: such a heap never moves, and has not been dropped, or the cache would not be its any more. The
            // owner of the cache is here, and others enter it only with the registry locked.
            unsafe { give_back(heap, cache) };
        }
        release(cache);
    });
}

/// Leaves a cache to the next thread. Payloads that are still in it stay the heap's, whose threads may take the cache.
/// The registry is locked.
pub(super) fn release(cache: &Cache) {
    cache.admit(0);
    if cache.bytes() == 0 && cache.at_exit().is_some() {
        cache.heap.store(0, Ordering::Relaxed);
    }
    cache.taken.store(false, Ordering::Relaxed);
}

/// Whether a thread may still take a cache.
pub(super) fn may_take(cache: &Cache) -> bool {
    ptr::eq(cache, &EMPTY) || (!ptr::eq(cache, &REFUSED) && cache.heap.load(Ordering::Relaxed) == 0)
}

/// Deletes the key, whose destructor would be called in an unloaded library when a thread ends. None is created after.
pub(crate) fn delete_key() {
    let key = KEY.swap(NO_MORE, Ordering::Relaxed);
    if key != 0 && key != NO_MORE {
        // SAFETY: this call has taken the key out of `KEY`.
        unsafe { libc::pthread_key_delete(key.wrapping_sub(1)) };
    }
}
