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
//!
//! A heap that is used first while a fork is under way, in a handler of others that runs between the two of these, is
//! locked for the rest of it.

use crate::home;
use crate::lock::Lock;
use core::ptr;
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
    registered: bool,
    /// Whether a fork is under way: if so, the thread that holds the table's lock is the one that forks.
    forking: bool,
    entries: [Option<Entry>; CAPACITY],
}

// SAFETY: the addresses are used only through handlers that any thread may call.
unsafe impl Send for Table {}

static TABLE: Lock<Table> = Lock::new(Table { registered: false, forking: false, entries: [None; CAPACITY] });

impl Table {
    /// Registers the handlers, unless they are. False when the system refuses.
    ///
    /// Handlers run last registered first before a fork: the earlier these are, the later the heaps are locked, and the
    /// handlers of others that run before may allocate.
    fn register(&mut self) -> bool {
        if !self.registered {
            // SAFETY: the three functions live as long as the process.
            self.registered =
                unsafe { libc::pthread_atfork(Some(prepare), Some(release), Some(release_in_child)) } == 0;
        }
        self.registered
    }

    /// Enters a heap. None if there is no room.
    fn enter(&mut self, new: Entry) -> Option<&mut Entry> {
        let is_free = |entry: &&mut Option<Entry>| entry.is_none_or(|entry| entry.heap == new.heap);
        self.entries.iter_mut().find(is_free).map(|entry| entry.insert(new))
    }
}

/// What the loader calls before `main`, or when it loads the library that this is a part of.
#[used]
#[cfg_attr(not(miri), unsafe(link_section = ".init_array"))]
static BEFORE_MAIN: extern "C" fn() = {
    extern "C" fn register() {
        TABLE.lock().register();
    }
    register
};

/// Says where a heap is covered that nobody has tried to cover.
pub(crate) const UNTRIED: usize = 0;
/// Says where a heap is covered that is not.
const NOWHERE: usize = 1;

/// Covers a heap if it is a static, and says in `covered_at` where.
///
/// All with the table locked, so that a fork comes before or after: also the call of the loader, whose own lock a child
/// may find taken for ever.
pub(crate) fn cover(
    heap: *const (),
    [before, after, after_in_child]: [Handler; 3],
    covered_at: &AtomicUsize,
) {
    let mut table = TABLE.lock();
    let entry = Entry { heap, before, after, after_in_child, locked: false };
    let forking = table.forking;
    let can_be = in_loaded_object(heap.addr()) && table.register();
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

unsafe extern "C" fn prepare() {
    // SAFETY: release is called by the same thread in both processes.
    unsafe { TABLE.lock_for_fork() };
    let mut table = TABLE.lock();
    table.forking = true;
    for entry in table.entries.iter_mut().flatten() {
        // SAFETY: the heap was given to cover with this handler, and lies in a loaded object.
        entry.locked = unsafe { (entry.before)(entry.heap) };
    }
}

unsafe extern "C" fn release() {
    // SAFETY: prepare has run on this thread.
    unsafe { release_all(|entry| entry.after) };
}

unsafe extern "C" fn release_in_child() {
    home::forget_other_threads();
    // SAFETY: this is the thread on which prepare has run.
    unsafe { release_all(|entry| entry.after_in_child) };
}

/// Releases what `prepare` has locked, each heap by one of its handlers.
///
/// # Safety
/// `prepare` has run on this thread.
unsafe fn release_all(after: fn(&Entry) -> Handler) {
    let mut table = TABLE.lock();
    table.forking = false;
    for entry in table.entries.iter_mut().flatten() {
        if entry.locked {
            // SAFETY: as in prepare, which has locked it on this thread.
            unsafe { after(entry)(entry.heap) };
            entry.locked = false;
        }
    }
    drop(table);
    // SAFETY: prepare has taken it on this thread.
    unsafe { TABLE.unlock_after_fork() };
}

/// Whether an address lies in the program or in a library that is loaded.
fn in_loaded_object(address: usize) -> bool {
    struct Search {
        address: usize,
        found: bool,
    }
    unsafe extern "C" fn look(
        object: *mut libc::dl_phdr_info,
        _size: usize,
        search: *mut libc::c_void,
    ) -> i32 {
        // SAFETY: the loader passes a valid object.
        let object = unsafe { &*object };
        // SAFETY: the loader passes on what it was given, which is a search that nothing else refers to.
        let search = unsafe { &mut *search.cast::<Search>() };
        if object.dlpi_phdr.is_null() {
            return 0;
        }
        // SAFETY: an object has that many program headers.
        let headers = unsafe { core::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()) };
        let base = object.dlpi_addr as usize;
        search.found |= headers.iter().any(|header| {
            let start = base.wrapping_add(header.p_vaddr as usize);
            header.p_type == libc::PT_LOAD && search.address.wrapping_sub(start) < header.p_memsz as usize
        });
        search.found.into()
    }
    let mut search = Search { address, found: false };
    // SAFETY: the callback matches, and the search outlives the call.
    let _ = unsafe { libc::dl_iterate_phdr(Some(look), ptr::from_mut(&mut search).cast()) };
    search.found
}
