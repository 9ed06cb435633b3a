//! `Heaptrack`: tells the profiler heaptrack of each call, by its interface for allocators that are not `malloc`.
//!
//! heaptrack replaces `malloc`, so it sees nothing of a heap with memory of its own. Its library has functions that
//! such a heap may call. They exist only in a process that runs under it, and are looked up by name.

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{CStr, c_void};
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

type Malloc = unsafe extern "C" fn(*mut c_void, usize);
type Realloc = unsafe extern "C" fn(*mut c_void, usize, *mut c_void);
type Free = unsafe extern "C" fn(*mut c_void);

/// A wrapper around a heap whose calls the profiler [heaptrack] shows, each with its call stack.
///
/// Without heaptrack a call costs one load and a branch more.
///
/// ```
/// use smalloc::{Heaptrack, SmallocGlobal};
///
/// static HEAP: SmallocGlobal = SmallocGlobal::new();
///
/// #[global_allocator]
/// static TRACKED: Heaptrack<&SmallocGlobal> = Heaptrack::new(&HEAP);
///
/// let words = vec!["a"; 100];
/// assert!(HEAP.stats().used_bytes >= size_of_val(&words[..]));
/// ```
///
/// Build with debug information, and run `heaptrack ./program`. The interface is that of heaptrack 1.4, from its header
/// `heaptrack_api.h`. Attaching to a process that runs already, `heaptrack -p`, shows nothing.
///
/// [heaptrack]: https://github.com/KDE/heaptrack
#[derive(Debug)]
pub struct Heaptrack<A> {
    heap: A,
    /// The search for the profiler: one of the constants below.
    state: AtomicU8,
    /// Its functions, [`Malloc`], [`Realloc`] and [`Free`]: none is null while it is [`PRESENT`].
    malloc: AtomicPtr<c_void>,
    realloc: AtomicPtr<c_void>,
    free: AtomicPtr<c_void>,
}

/// No call yet.
const NEW: u8 = 0;
/// The first call has been made, so the functions can be looked up: that may allocate.
const CALLED: u8 = 1;
const ABSENT: u8 = 2;
const PRESENT: u8 = 3;

impl<A> Heaptrack<A> {
    /// Wraps a heap, or a reference to one.
    #[must_use]
    pub const fn new(heap: A) -> Self {
        let [malloc, realloc, free] = [const { AtomicPtr::new(ptr::null_mut()) }; 3];
        Self { heap, state: AtomicU8::new(NEW), malloc, realloc, free }
    }

    /// Whether the program runs under heaptrack.
    #[inline]
    fn is_present(&self) -> bool {
        match self.state.load(Ordering::Acquire) {
            ABSENT => false,
            PRESENT => true,
            state => self.look_up(state),
        }
    }

    /// Looks the functions up at the second call. Threads that do so at the same time find the same.
    #[cold]
    fn look_up(&self, state: u8) -> bool {
        if state == NEW {
            // If several threads come here, only one of them makes the first call.
            return self.state.compare_exchange(NEW, CALLED, Ordering::Relaxed, Ordering::Acquire)
                == Err(PRESENT);
        }
        let names = [c"heaptrack_malloc", c"heaptrack_realloc", c"heaptrack_free"];
        let functions = names.map(symbol);
        for (place, function) in [&self.malloc, &self.realloc, &self.free].into_iter().zip(functions) {
            place.store(function, Ordering::Relaxed);
        }
        let present = functions.iter().all(|function| !function.is_null());
        self.state.store(if present { PRESENT } else { ABSENT }, Ordering::Release);
        present
    }

    fn allocated(&self, payload: *mut u8, size: usize) {
        if !self.is_present() || payload.is_null() {
            return;
        }
        let function = self.malloc.load(Ordering::Relaxed);
        // SAFETY: `Option<fn>` has the layout of a nullable pointer, and the symbol of this name has this type.
        let function = unsafe { transmute::<*mut c_void, Option<Malloc>>(function) };
        if let Some(function) = function {
            // SAFETY: the function only notes the numbers, and does not use this heap.
            unsafe { function(payload.cast(), size) };
        }
    }

    fn freeing(&self, payload: *mut u8) {
        if !self.is_present() {
            return;
        }
        let function = self.free.load(Ordering::Relaxed);
        // SAFETY: `Option<fn>` has the layout of a nullable pointer, and the symbol of this name has this type.
        let function = unsafe { transmute::<*mut c_void, Option<Free>>(function) };
        if let Some(function) = function {
            // SAFETY: the function only notes the number, and does not use this heap.
            unsafe { function(payload.cast()) };
        }
    }

    fn resized(&self, old: *mut u8, size: usize, new: *mut u8) {
        if !self.is_present() || new.is_null() {
            return;
        }
        let function = self.realloc.load(Ordering::Relaxed);
        // SAFETY: `Option<fn>` has the layout of a nullable pointer, and the symbol of this name has this type.
        let function = unsafe { transmute::<*mut c_void, Option<Realloc>>(function) };
        if let Some(function) = function {
            // SAFETY: the function only notes the numbers, and does not use this heap.
            unsafe { function(old.cast(), size, new.cast()) };
        }
    }
}

/// The address of a symbol of the process; null if there is none.
fn symbol(name: &CStr) -> *mut c_void {
    // SAFETY: the name ends with a zero byte.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

// SAFETY: every call is passed on to the heap unchanged, which meets the contract.
unsafe impl<A: GlobalAlloc> GlobalAlloc for Heaptrack<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: guaranteed by the caller.
        let payload = unsafe { self.heap.alloc(layout) };
        self.allocated(payload, layout.size());
        payload
    }

    unsafe fn dealloc(&self, payload: *mut u8, layout: Layout) {
        // Before another thread can get the address.
        self.freeing(payload);
        // SAFETY: guaranteed by the caller.
        unsafe { self.heap.dealloc(payload, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: guaranteed by the caller.
        let payload = unsafe { self.heap.alloc_zeroed(layout) };
        self.allocated(payload, layout.size());
        payload
    }

    unsafe fn realloc(&self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: guaranteed by the caller.
        let new = unsafe { self.heap.realloc(payload, layout, new_size) };
        self.resized(payload, new_size, new);
        new
    }
}
