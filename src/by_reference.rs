//! `GlobalAlloc` for a reference to a heap, so that an allocator of another crate can be wrapped around a heap that the
//! program still reaches by its name.

use crate::cached::Cached;
use crate::free_list::FreeList;
use crate::global::SmallocGlobal;
use core::alloc::{GlobalAlloc, Layout};

macro_rules! by_reference {
    ($(#[$doc:meta])* $heap:ident) => {
        $(#[$doc])*
        // SAFETY: a reference to a heap is as good as the heap: every call is passed on unchanged.
        unsafe impl<L: FreeList, const REGIONS: usize> GlobalAlloc for &$heap<L, REGIONS> {
            #[inline]
            unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
                // SAFETY: guaranteed by the caller.
                unsafe { (**self).alloc(layout) }
            }

            #[inline]
            unsafe fn dealloc(&self, payload: *mut u8, layout: Layout) {
                // SAFETY: guaranteed by the caller.
                unsafe { (**self).dealloc(payload, layout) }
            }

            #[inline]
            unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
                // SAFETY: guaranteed by the caller.
                unsafe { (**self).alloc_zeroed(layout) }
            }

            #[inline]
            unsafe fn realloc(&self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
                // SAFETY: guaranteed by the caller.
                unsafe { (**self).realloc(payload, layout, new_size) }
            }
        }
    };
}

by_reference! {
    /// A wrapper's inner allocator may be `&HEAP`: `HEAP` itself stays there to be inspected and set.
    ///
    /// ```
    /// use smalloc::SmallocGlobal;
    /// use std::alloc::{GlobalAlloc, Layout};
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// /// Counts requests.
    /// struct Counted<A>(A, AtomicUsize);
    ///
    /// // SAFETY: the inner allocator does it all.
    /// unsafe impl<A: GlobalAlloc> GlobalAlloc for Counted<A> {
    ///     unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
    ///         self.1.fetch_add(1, Ordering::Relaxed);
    ///         // SAFETY: guaranteed by the caller.
    ///         unsafe { self.0.alloc(layout) }
    ///     }
    ///     unsafe fn dealloc(&self, payload: *mut u8, layout: Layout) {
    ///         // SAFETY: guaranteed by the caller.
    ///         unsafe { self.0.dealloc(payload, layout) }
    ///     }
    /// }
    ///
    /// static HEAP: SmallocGlobal = SmallocGlobal::new();
    ///
    /// #[global_allocator]
    /// static COUNTED: Counted<&SmallocGlobal> = Counted(&HEAP, AtomicUsize::new(0));
    ///
    /// let word = String::from("word");
    /// assert!(COUNTED.1.load(Ordering::Relaxed) > 0);
    /// assert!(HEAP.stats().used_bytes >= word.len());
    /// ```
    SmallocGlobal
}

by_reference! {
    /// As for `&SmallocGlobal`.
    Cached
}
