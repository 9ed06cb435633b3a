//! InCallback the program for room: what it wants to be told when a request finds no place.

use crate::system::fatal::fatal;
use crate::threads::lock::thread_token;
use core::alloc::Layout;
use core::mem::transmute;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Is told of a request for which there is no room, and says whether it has freed something, so that the request is
/// worth another try. It must not panic.
pub type LowMemory = fn(Layout) -> bool;

/// Threads that may be inside at the same time; what further ones want fails at once.
const MOST_INSIDE: usize = 16;

/// The callback, and the threads that are inside it.
pub(crate) struct LowMemoryCallback {
    /// A `LowMemory`, or null.
    function: AtomicPtr<()>,
    /// The tokens of threads that are inside, or are trying again; 0 where there is none.
    inside: [AtomicUsize; MOST_INSIDE],
}

impl LowMemoryCallback {
    pub(crate) const fn new() -> Self {
        Self {
            function: AtomicPtr::new(ptr::null_mut()),
            inside: [const { AtomicUsize::new(0) }; MOST_INSIDE],
        }
    }

    pub(crate) fn set(&self, function: Option<LowMemory>) {
        // SAFETY: an optional function is a pointer that may be null.
        let pointer = unsafe { transmute::<Option<LowMemory>, *mut ()>(function) };
        self.function.store(pointer, Ordering::Release);
    }

    /// Whether there is anybody to ask.
    pub(crate) fn is_set(&self) -> bool {
        !self.function.load(Ordering::Relaxed).is_null()
    }

    /// Asks for room for a request. None where nobody is to be asked, the answer is no, or this thread is inside
    /// already. Else there may be room now; this thread asks no further until the result is dropped.
    #[cold]
    pub(crate) fn ask(&self, layout: Layout) -> Option<InCallback<'_>> {
        // SAFETY: the pointer was made from an optional function of this type.
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
        let unwinding = Unwinding;
        let freed = function(layout);
        core::mem::forget(unwinding);
        freed.then_some(inside)
    }
}

/// Is dropped when a panic would leave the function that was asked, and with it the allocator, which must not be.
struct Unwinding;

impl Drop for Unwinding {
    fn drop(&mut self) {
        fatal(format_args!("the function for low memory has panicked"));
    }
}

/// A thread is inside as long as this lives.
pub(crate) struct InCallback<'a>(&'a AtomicUsize);

impl Drop for InCallback<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}
