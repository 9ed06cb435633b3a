//! The low-memory callback, by which the program may make room for a request that does not fit.

use crate::system::fatal::fatal;
use crate::threads::lock::thread_token;
use core::alloc::Layout;
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Called with a request that does not fit. Returns true if it freed memory, to retry. It must not panic.
pub type LowMemory = fn(Layout) -> bool;

/// Threads in the callback at the same time, a bound for the table; the requests of further threads fail at once.
const MAX_INSIDE: usize = 16;

pub(crate) struct LowMemoryCallback {
    /// A `LowMemory`, or null.
    function: AtomicPtr<()>,
    /// Tokens of threads in the callback or retrying, 0 in free entries.
    inside: [AtomicUsize; MAX_INSIDE],
}

impl LowMemoryCallback {
    pub(crate) const fn new() -> Self {
        Self {
            function: AtomicPtr::new(ptr::null_mut()),
            inside: [const { AtomicUsize::new(0) }; MAX_INSIDE],
        }
    }

    pub(crate) fn set(&self, function: Option<LowMemory>) {
        // SAFETY: `Option<fn>` has the layout of a nullable pointer.
        let pointer = unsafe { transmute::<Option<LowMemory>, *mut ()>(function) };
        self.function.store(pointer, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        !self.function.load(Ordering::Relaxed).is_null()
    }

    /// Calls the callback. `None` if there is none, it freed nothing, this thread is in it already, or too many threads
    /// are. Otherwise the caller retries, and the callback is not called again on this thread until the result is
    /// dropped.
    #[cold]
    pub(crate) fn call(&self, layout: Layout) -> Option<InCallback<'_>> {
        // SAFETY: `set` made the pointer from an `Option<LowMemory>`.
        let function =
            unsafe { transmute::<*mut (), Option<LowMemory>>(self.function.load(Ordering::Acquire)) };
        let function = function?;
        let me = thread_token();
        if self.inside.iter().any(|token| token.load(Ordering::Relaxed) == me) {
            return None;
        }
        let is_taken = |token: &&AtomicUsize| {
            token.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let inside = InCallback(self.inside.iter().find(is_taken)?);
        let abort_on_unwind = AbortOnUnwind;
        let freed = function(layout);
        core::mem::forget(abort_on_unwind);
        freed.then_some(inside)
    }
}

/// Dropped only if the callback panics. The panic must not unwind through the allocator.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        fatal(format_args!("the function for low memory has panicked"));
    }
}

/// This thread is in the callback until this is dropped.
pub(crate) struct InCallback<'a>(&'a AtomicUsize);

impl Drop for InCallback<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
