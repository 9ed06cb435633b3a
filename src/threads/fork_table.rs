//! `fork` in a program with threads: every heap that is a static is locked before and unlocked after.
//!
//! Handlers for `fork` cannot be taken back and get no argument, so heaps are kept in a table. Only those are in it
//! that lie in the memory of a loaded object, as statics do: that memory stays readable. A heap in a local variable or
//! in a box is not covered, as a `Mutex` there is not.
//!
//! The table is locked like a heap for as long as a fork takes, and a heap that is dropped leaves it. A heap that was
//! moved out of its static no longer says that it is listed there, and is passed over.
//!
//! The handlers are registered before `main`, when there are no other threads yet: the child of a thread that forks while
//! another one uses the first heap has a table that can be locked. Where a heap is used even earlier, it registers them.
//! To register them may allocate, and so is done without a lock. A heap that is used first for that takes it as done. Other
//! threads do not, and register them as well, so that no heap is in use before they are: what is registered twice does its
//! work once.
//!
//! A heap that is used first while a fork is under way, in a handler of others that runs between the two of these, is
//! locked for the rest of it.

use super::home;
use super::lock::{Lock, thread_token};
use super::object;
use core::mem;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Heaps that the table has room for; further ones are not covered.
const CAPACITY: usize = 32;

/// What is done to a heap at an address before or after a fork; false if there is none.
///
/// # Safety
/// The address is that of a heap that was given to [`cover`] with this handler, in memory that can still be read.
pub(crate) type Handler = unsafe fn(*const ()) -> bool;

/// A heap that is covered.
#[derive(Clone, Copy)]
struct Entry {
    heap: *const (),
    before: Handler,
    after: Handler,
    after_in_child: Handler,
    /// Whether the fork that is under way has locked it.
    locked: bool,
}

struct Table {
    /// Whether a fork is under way: if so, the thread that holds the table's lock is the one that forks, and has run
    /// `prepare`.
    forking: bool,
    entries: [Option<Entry>; CAPACITY],
}

// SAFETY: the addresses are used only through handlers that any thread may call.
unsafe impl Send for Table {}

static TABLE: Lock<Table> = Lock::new(Table { forking: false, entries: [None; CAPACITY] });

impl Table {
    /// Enters a heap, in the place where it is if it is there already. None if there is no room.
    fn enter(&mut self, new: Entry) -> Option<&mut Entry> {
        let is_it = |entry: &Option<Entry>| entry.is_some_and(|entry| entry.heap == new.heap);
        let free = || self.entries.iter().position(Option::is_none);
        let place = self.entries.iter().position(is_it).or_else(free)?;
        self.entries.get_mut(place).map(|entry| entry.insert(new))
    }
}

/// Whether the handlers are registered: `NOT_YET`, `DONE`, or the token of the thread that is about it.
static REGISTERED: AtomicUsize = AtomicUsize::new(NOT_YET);
const NOT_YET: usize = 0;
/// No thread has this token.
const DONE: usize = 1;

/// Registers the handlers, unless they are or this thread is about it. False when the system refuses: a heap that was
/// entered meanwhile is covered by the next attempt.
///
/// Handlers run last registered first before a fork: the earlier these are, the later the heaps are locked, and the
/// handlers of others that run before may allocate.
fn register() -> bool {
    let (by, me) = (REGISTERED.load(Ordering::Acquire), thread_token());
    if by == DONE || by == me {
        return true;
    }
    REGISTERED.store(me, Ordering::Relaxed);
    // SAFETY: the three functions live as long as the process.
    let refused = unsafe { libc::pthread_atfork(Some(prepare), Some(release), Some(release_in_child)) };
    REGISTERED.store(if refused == 0 { DONE } else { NOT_YET }, Ordering::Release);
    refused == 0
}

/// What the loader calls before `main`, or when it loads the library that this is a part of.
#[used]
#[cfg_attr(not(miri), unsafe(link_section = ".init_array"))]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn begin() {
        register();
        object::find_own();
    }
    begin
};

/// Says where a heap is covered that nobody has tried to cover.
pub(crate) const UNTRIED: usize = 0;
/// Says where a heap is covered that is not.
const NOWHERE: usize = 1;

/// Covers a heap if it is a static, and says in `covered_at` where.
///
/// That is said with the table locked, so that a fork comes before or after.
pub(crate) fn cover(
    heap: *const (),
    [before, after, after_in_child]: [Handler; 3],
    covered_at: &AtomicUsize,
) {
    let can_be = object::any_has(heap.addr()) && register();
    let entry = Entry { heap, before, after, after_in_child, locked: false };
    let mut table = TABLE.lock();
    let forking = table.forking;
    let entered = if can_be { table.enter(entry) } else { None };
    covered_at.store(if entered.is_some() { heap.addr() } else { NOWHERE }, Ordering::Relaxed);
    if forking && let Some(entry) = entered {
        // SAFETY: the heap lies in a loaded object, and this thread, which holds the table, is the one that forks.
        entry.locked = unsafe { (entry.before)(entry.heap) };
    }
}

/// Takes a heap out of the table.
pub(crate) fn uncover(heap: *const ()) {
    for entry in &mut TABLE.lock().entries {
        if entry.is_some_and(|entry| entry.heap == heap) {
            *entry = None;
        }
    }
}

extern "C" fn prepare() {
    if TABLE.lock().forking {
        // It has run: the handlers are registered twice.
        return;
    }
    // SAFETY: release is called by the same thread in both processes.
    unsafe { object::ASKING.lock_for_fork() };
    // SAFETY: as above.
    unsafe { TABLE.lock_for_fork() };
    let mut table = TABLE.lock();
    table.forking = true;
    for entry in table.entries.iter_mut().flatten() {
        // SAFETY: the heap was given to cover with this handler, and lies in a loaded object.
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

/// Releases what `prepare` has locked, each heap by one of its handlers.
fn release_all(after: fn(&Entry) -> Handler) {
    let mut table = TABLE.lock();
    if !mem::take(&mut table.forking) {
        return;
    }
    for entry in table.entries.iter_mut().flatten() {
        if mem::take(&mut entry.locked) {
            // SAFETY: as in prepare, which has locked it on this thread, or cover has since.
            unsafe { after(entry)(entry.heap) };
        }
    }
    drop(table);
    // SAFETY: this thread was forking, and so has taken it in prepare; it holds no guard.
    unsafe { TABLE.unlock_after_fork() };
    // SAFETY: as above.
    unsafe { object::ASKING.unlock_after_fork() };
}
