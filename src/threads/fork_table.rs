//! Locks every heap in a static before a `fork` and unlocks it after, in both processes.
//!
//! `pthread_atfork` handlers take no argument and cannot be removed, so the heaps are kept in a table. It accepts only
//! heaps in the memory of a loaded object, as statics are, because that memory stays readable. A heap in a local
//! variable or a box is not registered; a `Mutex` there is not safe across a fork either.
//!
//! The table stays locked during a fork. A dropped heap leaves the table, and a heap that was moved out of its static
//! is skipped, because the address in its `registered_at` is no longer its own.
//!
//! The handlers are registered before `main`, while there is one thread. Without them, a child forked while another
//! thread adds the first heap would inherit the table locked. A heap that is used even earlier registers them itself.
//! Registration may allocate and therefore holds no lock: for allocations of the registering thread it counts as done,
//! and other threads register again, so that no heap is used before the handlers exist. Registering twice is harmless.
//!
//! A heap first used during a fork, in another library's handler, is locked for the rest of the fork.

use super::caches;
use super::home;
use super::lock::{Lock, thread_token};
use super::object;
use core::mem;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Heaps in the table; further ones are not registered. Few programs have more than one.
const CAPACITY: usize = 32;

/// Called with a heap's address before or after a fork. Returns false if the heap is no longer there.
///
/// # Safety
/// A heap was passed to [`add`] with this address and this handler, and its memory is still readable.
pub(crate) type Handler = unsafe fn(*const ()) -> bool;

#[derive(Clone, Copy)]
struct Entry {
    heap: *const (),
    before: Handler,
    after: Handler,
    after_in_child: Handler,
    /// Whether the current fork has locked the heap.
    locked: bool,
}

struct Table {
    /// Whether a fork is in progress: then its thread holds the table's lock and has run `prepare`.
    forking: bool,
    entries: [Option<Entry>; CAPACITY],
}

// SAFETY: the addresses are only passed to handlers, which any thread may call.
unsafe impl Send for Table {}

static TABLE: Lock<Table> = Lock::new(Table { forking: false, entries: [None; CAPACITY] });

impl Table {
    /// Adds a heap or replaces its entry; `None` if the table is full.
    fn insert(&mut self, new: Entry) -> Option<&mut Entry> {
        let is_it = |entry: &Option<Entry>| entry.is_some_and(|entry| entry.heap == new.heap);
        let free = || self.entries.iter().position(Option::is_none);
        let place = self.entries.iter().position(is_it).or_else(free)?;
        self.entries.get_mut(place).map(|entry| entry.insert(new))
    }
}

/// `UNREGISTERED`, `REGISTERED`, or the token of a thread that is registering the handlers.
static HANDLERS: AtomicUsize = AtomicUsize::new(UNREGISTERED);
const UNREGISTERED: usize = 0;
/// No thread has this token: it is no multiple of 4.
const REGISTERED: usize = 1;

/// Registers the handlers, unless they are registered or this thread is doing so. Returns false if the system refuses;
/// heaps added meanwhile are protected once a later attempt succeeds.
///
/// Prepare handlers run in reverse order of registration. The earlier these are registered, the later they lock the
/// heaps, and other libraries' prepare handlers may allocate until then.
fn register_handlers() -> bool {
    let (state, me) = (HANDLERS.load(Ordering::Acquire), thread_token());
    if state == REGISTERED || state == me {
        return true;
    }
    HANDLERS.store(me, Ordering::Relaxed);
    // SAFETY: the three functions live as long as the process.
    let refused = unsafe { libc::pthread_atfork(Some(prepare), Some(release), Some(release_in_child)) };
    HANDLERS.store(if refused == 0 { REGISTERED } else { UNREGISTERED }, Ordering::Release);
    refused == 0
}

/// Called by the loader before `main`, or when it loads the library that contains this crate.
#[used]
#[cfg_attr(not(miri), unsafe(link_section = ".init_array"))]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn begin() {
        register_handlers();
        object::find_own_object();
    }
    begin
};

/// Value of `registered_at` before an attempt to register the heap.
pub(crate) const NOT_ATTEMPTED: usize = 0;
/// Value of `registered_at` after an attempt that failed.
const FAILED: usize = 1;

/// Registers a heap if it is a static, and stores the result in `registered_at`: the heap's address, or `FAILED`.
///
/// The store happens with the table locked, so a fork comes entirely before or after.
pub(crate) fn add(
    heap: *const (),
    [before, after, after_in_child]: [Handler; 3],
    registered_at: &AtomicUsize,
) {
    let eligible = object::is_in_loaded_object(heap.addr()) && register_handlers();
    let entry = Entry { heap, before, after, after_in_child, locked: false };
    let mut table = TABLE.lock();
    let forking = table.forking;
    let added = if eligible { table.insert(entry) } else { None };
    registered_at.store(if added.is_some() { heap.addr() } else { FAILED }, Ordering::Relaxed);
    if forking && let Some(entry) = added {
        // SAFETY: the heap lies in a loaded object, and this thread, which holds the table, is the one that forks.
        entry.locked = unsafe { (entry.before)(entry.heap) };
    }
}

pub(crate) fn remove(heap: *const ()) {
    for entry in &mut TABLE.lock().entries {
        if entry.is_some_and(|entry| entry.heap == heap) {
            *entry = None;
        }
    }
}

extern "C" fn prepare() {
    if TABLE.lock().forking {
        // A second registration: this fork's handler has run already.
        return;
    }
    // SAFETY: `release` unlocks it on the same thread, in both processes.
    unsafe { object::LOADER.lock_for_fork() };
    // SAFETY: `release` unlocks it on the same thread, in both processes.
    unsafe { TABLE.lock_for_fork() };
    // SAFETY: `release` unlocks it on the same thread, in both processes.
    unsafe { caches::lock_for_fork() };
    let mut table = TABLE.lock();
    table.forking = true;
    for entry in table.entries.iter_mut().flatten() {
        // SAFETY: the heap was passed to `add` with this handler, and lies in a loaded object.
        entry.locked = unsafe { (entry.before)(entry.heap) };
    }
}

extern "C" fn release() {
    release_all(|entry| entry.after);
}

extern "C" fn release_in_child() {
    home::forget_other_threads();
    release_all(|entry| entry.after_in_child);
}

/// Releases what `prepare` locked, each heap through the handler that `after` selects.
fn release_all(after: fn(&Entry) -> Handler) {
    let mut table = TABLE.lock();
    if !mem::take(&mut table.forking) {
        return;
    }
    for entry in table.entries.iter_mut().flatten() {
        if mem::take(&mut entry.locked) {
            // SAFETY: `prepare` or `add` locked the heap on this thread, through the same entry.
            unsafe { after(entry)(entry.heap) };
        }
    }
    drop(table);
    // SAFETY: this thread took it in `prepare`, and holds no guard of it.
    unsafe { caches::unlock_after_fork() };
    // SAFETY: this thread took it in `prepare`, and has dropped its guard.
    unsafe { TABLE.unlock_after_fork() };
    // SAFETY: this thread took it in `prepare`, and holds no guard of it.
    unsafe { object::LOADER.unlock_after_fork() };
}
