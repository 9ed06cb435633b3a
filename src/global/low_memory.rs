//! The low-memory callback, by which the program may make room for a request that does not fit.

use crate::system::fatal::fatal;
use crate::threads::lock::thread_token;
use core::alloc::Layout;
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Called with a request that does not fit. Returns true if it freed memory, to retry; it is then called again if the
/// request still does not fit. It must not panic.
pub type LowMemory = fn(Layout) -> bool;

/// The size of the table of threads in the callback. The requests of further threads fail at once.
const MAX_INSIDE: usize = 16;
/// Set in a thread's token while it retries. Tokens are multiples of 4.
const RETRYING: usize = 1;

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

    pub(crate) const fn calling(function: LowMemory) -> Self {
        // SAFETY: `Option<fn>` has the layout of a nullable pointer.
        let pointer = unsafe { transmute::<Option<LowMemory>, *mut ()>(Some(function)) };
        Self { function: AtomicPtr::new(pointer), ..Self::new() }
    }

    pub(crate) fn set(&self, function: Option<LowMemory>) {
        // SAFETY: `Option<fn>` has the layout of a nullable pointer.
        let pointer = unsafe { transmute::<Option<LowMemory>, *mut ()>(function) };
        self.function.store(pointer, Ordering::Release);
    }

    pub(crate) fn is_set(&self) -> bool {
        !self.function.load(Ordering::Relaxed).is_null()
    }

    /// Enters the callback on this thread. `None` if there is no callback, this thread is in it already, or too many
    /// are.
    #[cold]
    pub(crate) fn enter(&self) -> Option<InCallback<'_>> {
        if !self.is_set() {
            return None;
        }
        let me = thread_token();
        if self.inside.iter().any(|token| token.load(Ordering::Relaxed) & !RETRYING == me) {
            return None;
        }
        let is_taken = |token: &&AtomicUsize| {
            token.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        };
        let inside = self.inside.iter().find(is_taken)?;
        Some(InCallback { callback: self, inside, me })
    }

    /// Whether this thread retries a request after the callback, so that a failure is not final.
    pub(crate) fn is_retrying(&self) -> bool {
        let me = thread_token() | RETRYING;
        self.inside.iter().any(|token| token.load(Ordering::Relaxed) == me)
    }
}

/// This thread may call the callback. Until the value is dropped, its further requests that do not fit fail at once.
pub(crate) struct InCallback<'a> {
    callback: &'a LowMemoryCallback,
    inside: &'a AtomicUsize,
    me: usize,
}

impl InCallback<'_> {
    /// Calls the callback; returns whether it freed memory.
    pub(crate) fn call(&self, layout: Layout) -> bool {
        // SAFETY: `set` made the pointer from an `Option<LowMemory>`.
        let function = unsafe {
            transmute::<*mut (), Option<LowMemory>>(self.callback.function.load(Ordering::Acquire))
        };
        let Some(function) = function else { return false };
        let abort_on_unwind = AbortOnUnwind;
        let freed = function(layout);
        core::mem::forget(abort_on_unwind);
        freed
    }

    /// Runs `work`, which tries the request again.
    pub(crate) fn retry<R>(&self, work: impl FnOnce() -> R) -> R {
        self.inside.store(self.me | RETRYING, Ordering::Relaxed);
        let result = work();
        self.inside.store(self.me, Ordering::Relaxed);
        result
    }
}

impl Drop for InCallback<'_> {
    fn drop(&mut self) {
        self.inside.store(0, Ordering::Relaxed);
    }
}

/// Dropped only if the callback panics. The panic must not unwind through the allocator.
struct AbortOnUnwind;

impl Drop for AbortOnUnwind {
    fn drop(&mut self) {
        fatal(format_args!("the low-memory callback panicked"));
    }
}
