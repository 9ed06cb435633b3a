//! Locks every heap in a static before a `fork` and unlocks it after, in both processes.
//!
//! `pthread_atfork` handlers take no argument and cannot be removed, so the heaps are kept in a table. It accepts only
//! heaps in the memory of a loaded object, as statics are, because that memory stays readable. A heap in a local
//! variable or a box is not registered; a `Mutex` there is not safe across a fork either.
//!
//! The table stays locked during a fork. A dropped heap leaves the table, also after it was moved out of its static:
//! its entry has the number that the heap was given when it was registered. While it lives elsewhere, its old place
//! keeps the bytes of a heap that nobody uses, or those of another heap.
//!
//! The handlers are registered before `main`, while there is one thread. Without them, a child forked while another
//! thread adds the first heap would inherit the table locked. A heap that is used even earlier registers them itself.
//! Registration may allocate and therefore holds no lock: for allocations of the registering thread it counts as done,
//! and other threads register again, so that no heap is used before the handlers exist. Registering twice is harmless.
//!
//! A signal handler may fork while its thread is inside a call on a heap, whose locks that call holds. These stay as
//! they are: the call goes on in both processes when the handler returns. Signals are blocked while a thread changes
//! the table or locks the heaps, so that no handler finds that half done.
//!
//! A heap first used during a fork, in another library's handler, is locked for the rest of the fork.

use super::caches;
use super::home;
use super::lock::{Lock, thread_token};
use super::{object, preparing, streams};
use crate::system::clock::sleep_ns;
use crate::system::signals::Blocked;
use core::mem;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Nanoseconds before all locks are tried again.
const RETRY_NS: u32 = 100_000;
/// Heaps in the table; further ones are not registered. Few programs have more than one.
const CAPACITY: usize = 32;

/// Called with a heap's address.
///
/// # Safety
/// A heap was [registered](Registration::register) with this address and this handler, and its memory is still
/// readable.
pub(crate) type Handler = unsafe fn(*const ());

/// The outcome of locking a heap before a fork.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// The heap is no longer there.
    Gone,
    /// Locked, except for what the interrupted call of this thread holds.
    Locked,
    /// Not locked: another thread holds a lock and prepares a fork itself.
    GaveUp,
}

/// The actions of a heap around a fork, and when the library that contains this crate is unloaded.
#[derive(Clone, Copy)]
pub(crate) struct Handlers {
    /// Whether this thread is inside a call on the heap: it forks in a signal handler.
    pub(crate) is_inside: unsafe fn(*const ()) -> bool,
    /// Locks the heap. `inside` tells whether this thread is inside a call on any heap.
    pub(crate) before: unsafe fn(*const (), inside: bool) -> Before,
    /// In the child: ends what other threads had begun.
    pub(crate) in_child: Handler,
    /// Unlocks the heap, in parent and child.
    pub(crate) after: Handler,
    pub(crate) unload: Handler,
}

#[derive(Clone, Copy)]
struct Entry {
    heap: *const (),
    number: usize,
    handlers: Handlers,
    /// Whether the current fork has locked the heap.
    locked: bool,
}

struct Table {
    /// How often `prepare` has run for the forks in progress, all of one thread, which holds the table's lock. There
    /// may be several: a signal handler forks during a fork, or the handlers were registered twice.
    depth: usize,
    /// Heaps registered so far.
    registered: usize,
    entries: [Option<Entry>; CAPACITY],
}

// SAFETY: the addresses are only passed to handlers, which any thread may call.
unsafe impl Send for Table {}

static TABLE: Lock<Table> = Lock::new(Table { depth: 0, registered: 0, entries: [None; CAPACITY] });

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
        let _blocked = Blocked::new();
        register_handlers();
        object::find_own_object();
    }
    begin
};

/// A heap's part of its registration. It moves with the heap, whose address then differs from that in it.
pub(crate) struct Registration {
    /// The heap's address when it was registered; `NOT_ATTEMPTED` before, `FAILED` if it could not be.
    at: AtomicUsize,
    /// The number of its entry in the table.
    number: AtomicUsize,
}

const NOT_ATTEMPTED: usize = 0;
const FAILED: usize = 1;

impl Registration {
    pub(crate) const fn not_attempted() -> Self {
        Self { at: AtomicUsize::new(NOT_ATTEMPTED), number: AtomicUsize::new(0) }
    }

    /// Whether the heap was registered at an address.
    #[inline]
    pub(crate) fn is_at(&self, address: usize) -> bool {
        self.at.load(Ordering::Relaxed) == address
    }

    #[inline]
    pub(crate) fn is_not_attempted(&self) -> bool {
        self.is_at(NOT_ATTEMPTED)
    }

    /// Registers a heap if it is a static.
    ///
    /// The result is stored with the table locked, so a fork comes entirely before or after.
    pub(crate) fn register(&self, heap: *const (), handlers: Handlers) {
        let _blocked = Blocked::new();
        let eligible = object::is_in_loaded_object(heap.addr()) && register_handlers();
        let mut table = TABLE.lock();
        let forking = table.depth > 0;
        table.registered = table.registered.wrapping_add(1);
        let entry = Entry { heap, number: table.registered, handlers, locked: false };
        let added = if eligible { table.insert(entry) } else { None };
        self.number.store(entry.number, Ordering::Relaxed);
        self.at.store(if added.is_some() { heap.addr() } else { FAILED }, Ordering::Relaxed);
        if forking && let Some(entry) = added {
            // SAFETY: the heap lies in a loaded object, and this thread, which holds the table, is the one that forks.
            entry.locked = unsafe { (entry.handlers.before)(entry.heap, false) } == Before::Locked;
        }
    }

    /// Removes the heap from the table, wherever it is now.
    pub(crate) fn unregister(&self) {
        let at = self.at.swap(NOT_ATTEMPTED, Ordering::Relaxed);
        if at == NOT_ATTEMPTED || at == FAILED {
            return;
        }
        let number = self.number.load(Ordering::Relaxed);
        let _blocked = Blocked::new();
        for entry in &mut TABLE.lock().entries {
            if entry.is_some_and(|entry| entry.number == number) {
                *entry = None;
            }
        }
    }
}

/// Called by the loader when it unloads the library that contains this crate, after all other destructors in it, and
/// when the process exits.
///
/// Nothing may be left behind that points into the library. The C library removes the fork handlers by itself.
#[used]
#[cfg_attr(not(miri), unsafe(link_section = ".fini_array.00101"))]
static AT_UNLOAD: extern "C" fn() = {
    extern "C" fn end() {
        if !object::is_in_program() {
            let _blocked = Blocked::new();
            home::delete_key();
            caches::delete_key();
            unload_all();
        }
    }
    end
};

/// Unloads every heap. All stays if another thread is in the table, as can be only while the process exits.
fn unload_all() {
    let Some(table) = TABLE.try_lock() else { return };
    for entry in table.entries.iter().flatten() {
        // SAFETY: the heap was registered with this handler, and lies in a loaded object.
        unsafe { (entry.handlers.unload)(entry.heap) };
    }
}

extern "C" fn prepare() {
    let _blocked = Blocked::new();
    preparing::begin();
    while !lock_all() {
        sleep_ns(RETRY_NS);
    }
    preparing::end();
}

/// Locks all heaps, or none and returns false: another thread holds a lock by a call that it has interrupted to fork.
///
/// A thread inside a call cannot give way. It leaves out what others do not release; in the child this is abandoned.
fn lock_all() -> bool {
    let mut table = TABLE.lock();
    if table.depth > 0 {
        table.depth = table.depth.saturating_add(1);
        return true;
    }
    drop(table);
    streams::lock();
    // SAFETY: `release` unlocks it on the same thread, in both processes.
    unsafe { object::LOADER.lock_for_fork(|_| false) };
    // SAFETY: `release` unlocks it on the same thread, in both processes.
    unsafe { TABLE.lock_for_fork(|_| false) };
    let mut table = TABLE.lock();
    table.depth = 1;
    let entries = || table.entries.iter().flatten();
    // SAFETY: the heap was registered with this handler, and lies in a loaded object.
    let inside = entries().any(|entry| unsafe { (entry.handlers.is_inside)(entry.heap) });
    // SAFETY: `release` unlocks it on the same thread, in both processes.
    unsafe { caches::lock_for_fork(inside) };
    for entry in table.entries.iter_mut().flatten() {
        // SAFETY: the heap was registered with this handler, and lies in a loaded object.
        let before = unsafe { (entry.handlers.before)(entry.heap, inside) };
        entry.locked = before == Before::Locked;
        if before == Before::GaveUp {
            drop(table);
            if release_all() {
                // SAFETY: this thread has just locked the list.
                unsafe { streams::unlock() };
            }
            return false;
        }
    }
    true
}

extern "C" fn release() {
    let _blocked = Blocked::new();
    if release_all() {
        // SAFETY: `lock_all` locked the list on this thread.
        unsafe { streams::unlock() };
    }
}

extern "C" fn release_in_child() {
    let _blocked = Blocked::new();
    home::forget_other_threads();
    preparing::forget_all();
    // SAFETY: a child begins with one thread.
    unsafe { caches::forget_other_threads() };
    let table = TABLE.lock();
    for entry in table.entries.iter().flatten().filter(|entry| entry.locked) {
        // SAFETY: `prepare` or `register` locked the heap on this thread, through the same entry.
        unsafe { (entry.handlers.in_child)(entry.heap) };
    }
    drop(table);
    if release_all() {
        // SAFETY: a child begins with one thread.
        unsafe { streams::reset() };
    }
}

/// Releases what `lock_all` locked, when this is the last of its calls. False if it is not.
fn release_all() -> bool {
    let mut table = TABLE.lock();
    match table.depth {
        0 => return false,
        1 => table.depth = 0,
        more => {
            table.depth = more.wrapping_sub(1);
            return false;
        }
    }
    for entry in table.entries.iter_mut().flatten() {
        if mem::take(&mut entry.locked) {
            // SAFETY: `prepare` or `register` locked the heap on this thread, through the same entry.
            unsafe { (entry.handlers.after)(entry.heap) };
        }
    }
    drop(table);
    // SAFETY: this thread took it in `prepare`, and holds no guard of it.
    unsafe { caches::unlock_after_fork() };
    // SAFETY: this thread took it in `prepare`, and has dropped its guard.
    unsafe { TABLE.unlock_after_fork() };
    // SAFETY: this thread took it in `prepare`, and holds no guard of it.
    unsafe { object::LOADER.unlock_after_fork() };
    true
}

#[cfg(test)]
#[path = "../../tests/unit/threads/fork_table.rs"]
mod tests;
