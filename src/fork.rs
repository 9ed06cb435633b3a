//! `fork` in a program with threads: every heap that is a static is locked before and unlocked after.
//!
//! Handlers for `fork` cannot be taken back and get no argument, so heaps are kept in a list, and only those are that
//! live as long as the process and never move: those in the memory of a loaded object. A heap in a local variable or
//! in a box is not covered, as a `Mutex` there is not.

use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// What is to be done to a heap before or after a fork.
type Handler = unsafe fn(&Gate);

/// A heap's entry in the list of those to lock around a fork.
#[derive(Debug)]
pub(crate) struct Gate {
    before: Handler,
    after: Handler,
    listed: AtomicBool,
    next: AtomicPtr<Gate>,
}

/// The heap that was covered last.
static LIST: AtomicPtr<Gate> = AtomicPtr::new(ptr::null_mut());
/// Whether the handlers are registered.
static REGISTERED: AtomicBool = AtomicBool::new(false);

impl Gate {
    pub(crate) const fn new(before: Handler, after: Handler) -> Self {
        Self { before, after, listed: AtomicBool::new(false), next: AtomicPtr::new(ptr::null_mut()) }
    }

    /// What the gate is a field of, `offset` bytes into it.
    ///
    /// # Safety
    /// The gate is that field of a `T`, which the reference may be extended to.
    pub(crate) unsafe fn owner<T>(&self, offset: usize) -> &T {
        // SAFETY: the caller's promise.
        unsafe { crate::region::owner_of_field(self, offset) }
    }
}

/// Registers the handlers at first, and adds the heap to the list if it is a static and not in it.
pub(crate) fn cover(gate: &Gate) {
    if gate.listed.swap(true, Ordering::Relaxed) || !in_loaded_object(ptr::from_ref(gate).addr()) {
        return;
    }
    if !REGISTERED.swap(true, Ordering::Relaxed) {
        // Handlers run last registered first before a fork: the earlier this is, the later the heap is locked.
        // SAFETY: the three functions live as long as the process.
        let _ = unsafe { libc::pthread_atfork(Some(prepare), Some(release), Some(release)) };
    }
    let this = ptr::from_ref(gate).cast_mut();
    let mut first = LIST.load(Ordering::Acquire);
    loop {
        gate.next.store(first, Ordering::Relaxed);
        match LIST.compare_exchange(first, this, Ordering::Release, Ordering::Acquire) {
            Ok(_) => return,
            Err(newer) => first = newer,
        }
    }
}

/// The gates that were listed when a fork began; those that came later are not locked, nor unlocked.
static LOCKED: AtomicPtr<Gate> = AtomicPtr::new(ptr::null_mut());

unsafe extern "C" fn prepare() {
    let first = LIST.load(Ordering::Acquire);
    // SAFETY: listed gates are statics.
    for_each(first, |gate| unsafe { (gate.before)(gate) });
    LOCKED.store(first, Ordering::Relaxed);
}

unsafe extern "C" fn release() {
    // SAFETY: listed gates are statics, and prepare has run on this thread.
    for_each(LOCKED.load(Ordering::Relaxed), |gate| unsafe { (gate.after)(gate) });
}

fn for_each(first: *const Gate, mut action: impl FnMut(&Gate)) {
    let mut at = first;
    // SAFETY: listed gates are statics, and the list only grows at its front.
    while let Some(gate) = unsafe { at.as_ref() } {
        action(gate);
        at = gate.next.load(Ordering::Relaxed);
    }
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
