//! `Cached`: a `SmallocGlobal` behind caches of its threads.
//!
//! This file has the hits and decides who serves a call. `threads/caches` has the caches, `global/caching.rs` fills and
//! empties them.

use crate::free_list::{FreeList, Indexed};
use crate::global::SmallocGlobal;
use crate::heap::granules;
use crate::region::GRANULE;
use crate::threads::caches::{Caches, MOST_GRANULES, Refusal};
use core::alloc::{GlobalAlloc, Layout};
use core::ops::Deref;
use core::ptr::NonNull;

/// A [`SmallocGlobal`] with a cache of free payloads for each thread in front, for programs whose threads allocate
/// much.
///
/// ```
/// use smalloc::Cached;
///
/// #[global_allocator]
/// static HEAP: Cached = Cached::new();
///
/// let words: Vec<String> = (0..1000).map(|n| n.to_string()).collect();
/// drop(words);
/// let stats = HEAP.stats();
/// assert!(stats.cache_hits > 500 && stats.cached_bytes > 0);
/// HEAP.trim();
/// assert_eq!(HEAP.stats().cached_bytes, 0);
/// ```
///
/// A call that the thread's cache serves, a *hit*, takes no lock and no atomic read-modify-write. The heap behind is
/// exactly first fit: a cache is filled by up to 16 placements under one lock, each of them first fit, and emptied by
/// frees under one lock. Which of these payloads a call gets depends on the thread's cache. For one thread, placement
/// is still a function of its calls.
///
/// # What is cached
///
/// Payloads of up to 896 bytes, by their exact size in granules of 16 bytes. Larger ones go past the caches. Requests
/// aligned to more than 16 bytes take a cached payload that happens to be aligned, otherwise the heap places them. With
/// several regions, a thread caches payloads of its home only.
///
/// A thread has one cache, of the first `Cached` that it uses; calls on another one reach its heap. At most 128 threads
/// of the process have a cache at the same time. The cache is a mapping of 8 KiB of its own. While several threads have
/// the same home, they also share a depot, through which batches of payloads pass from one cache to another.
///
/// # Bounds
///
/// A cache holds at most 128 KiB, or a quarter of the bytes in use divided by the number of caches, if that is more,
/// but at most 512 KiB. A depot holds at most 8 KiB and 30 payloads of each size. Sizes that the thread has not
/// refilled or spilled during 128 slow calls give half back. A thread that ends gives everything back, if the heap is a
/// `static`, and otherwise leaves it to the heap's other threads.
///
/// [`stats`](SmallocGlobal::stats) counts cached payloads as in use, and their bytes as
/// [`cached_bytes`](crate::Stats::cached_bytes). Hits are counted as [`cache_hits`](crate::Stats::cache_hits), and not
/// as `allocs` or in `hops`.
///
/// No request fails while a cache holds what would serve it: it empties the caches of all threads first, also of those
/// that sleep, and so does [`trim`](SmallocGlobal::trim). Both stop the other threads' use of their caches by the
/// system call `membarrier`. If the process may not call it, each thread empties its cache in its next call instead.
///
/// Caches are bypassed, in all threads, while calls are recorded ([`record_to`](SmallocGlobal::record_to)), measured
/// ([`measure_thread`](SmallocGlobal::measure_thread)) or counted by call site (`count_sites`); by a thread in
/// [`in_region`](SmallocGlobal::in_region) or [`prefer_region`](SmallocGlobal::prefer_region); and with the features
/// `hardened`, `asan` and `valgrind`.
///
/// # Misuse
///
/// A wrong layout, an interior, an unaligned and a foreign pointer end the process with the line of [`SmallocGlobal`].
/// A second free of a cached payload does so at once, in any thread, unless the program has overwritten the second
/// eight bytes of the freed payload; then the double free is found when both copies come back to the heap, or not. With
/// several regions, this holds for threads with the same home. If the size is too large by exactly a neighbour that
/// another thread takes or frees in the same instant, it may go unnoticed. Writes to a freed payload do not damage a
/// cache.
///
/// # Signal handlers and fork
///
/// A signal handler that interrupts a hit may allocate and free. One that interrupts a call that holds a lock ends the
/// process with one line, as with [`SmallocGlobal`]. A child of `fork` takes back what threads that it does not have
/// had cached, where `membarrier` is allowed; otherwise, or if the thread forked inside a call, these payloads stay in
/// use.
pub struct Cached<L: FreeList = Indexed, const REGIONS: usize = 1> {
    global: SmallocGlobal<L, REGIONS>,
}

impl<L: FreeList, const REGIONS: usize> Cached<L, REGIONS> {
    /// A heap as from [`SmallocGlobal::new`], with caches.
    #[must_use]
    pub const fn new() -> Self {
        Self { global: SmallocGlobal::new() }
    }

    /// A heap as from [`SmallocGlobal::with_region_size`], with caches.
    #[must_use]
    pub const fn with_region_size(bytes: usize) -> Self {
        Self { global: SmallocGlobal::with_region_size(bytes) }
    }

    /// Puts caches in front of a heap, which may have settings of its own.
    ///
    /// ```
    /// use smalloc::{Cached, SmallocGlobal};
    ///
    /// static HEAP: Cached = Cached::over(SmallocGlobal::with_region_size(64 << 20).with_limit(16 << 20));
    /// ```
    #[must_use]
    pub const fn over(heap: SmallocGlobal<L, REGIONS>) -> Self {
        Self { global: heap }
    }

    /// [`SmallocGlobal::sfree`], which also refuses a payload that is in a cache.
    ///
    /// # Safety
    /// Nothing uses the payload any more.
    pub unsafe fn sfree(&self, payload: NonNull<u8>) {
        self.global.refuse_cached(payload.as_ptr(), None);
        // SAFETY: guaranteed by the caller.
        unsafe { self.global.sfree(payload) };
    }

    /// [`SmallocGlobal::srealloc`], which also refuses a payload that is in a cache.
    ///
    /// # Safety
    /// As for [`SmallocGlobal::srealloc`].
    pub unsafe fn srealloc(&self, payload: NonNull<u8>, new_size: usize) -> Option<NonNull<u8>> {
        self.global.refuse_cached(payload.as_ptr(), None);
        // SAFETY: guaranteed by the caller.
        unsafe { self.global.srealloc(payload, new_size) }
    }

    /// Allocates if the thread's cache has no payload of this size.
    #[inline(never)]
    fn alloc_slow(&self, layout: Layout) -> *mut u8 {
        let n = granules(layout.size());
        if n <= MOST_GRANULES
            && let Some(cache) = self.global.cache()
        {
            let cached = if layout.align() > GRANULE {
                cache.pop_aligned(self.global.caches.gate(), n, layout.align())
            } else {
                self.global.refill(cache, n)
            };
            if let Some(payload) = cached {
                return payload;
            }
        }
        // SAFETY: the caller of `alloc` guarantees it.
        unsafe { self.global.alloc(layout) }
    }

    /// Frees if the thread's cache did not take the payload.
    #[inline(never)]
    fn dealloc_slow(&self, payload: *mut u8, layout: Layout) {
        let n = granules(layout.size());
        if n <= MOST_GRANULES {
            if let Some(cache) = self.global.cache() {
                if REGIONS > 1 && !self.global.is_in_region(payload, cache.region()) {
                    // SAFETY: the caller of `dealloc` guarantees it.
                    return unsafe { self.global.dealloc(payload, layout) };
                }
                let (gate, align) = (self.global.caches.gate(), layout.align());
                if cache.refusal(gate, payload, n, align) == Refusal::Unseen {
                    self.global.look_further(cache);
                }
                if cache.refusal(gate, payload, n, align) == Refusal::Full {
                    self.global.make_room(cache, n);
                }
                if cache.push(gate, payload, n, align) {
                    return;
                }
            }
            self.global.refuse_cached(payload, Some(layout));
        }
        // SAFETY: the caller of `dealloc` guarantees it.
        unsafe { self.global.dealloc(payload, layout) };
    }

    /// Reallocates a payload by allocating, copying and freeing, if caches can serve both sizes.
    ///
    /// # Safety
    /// As for `GlobalAlloc::realloc`.
    unsafe fn realloc_cached(&self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: guaranteed by the caller.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        // SAFETY: the size is not 0, as the caller guarantees.
        let moved = unsafe { self.alloc(new_layout) };
        if !moved.is_null() {
            // SAFETY: both payloads are in use and this thread's, so they do not overlap; each has this many bytes.
            unsafe { moved.copy_from_nonoverlapping(payload, layout.size().min(new_size)) };
            // SAFETY: guaranteed by the caller.
            unsafe { self.dealloc(payload, layout) };
        }
        moved
    }
}

/// The number of the stack for a size. That of size 0 is always empty, so it needs no test.
#[inline(always)]
const fn stack(size: usize) -> usize {
    size.wrapping_add(GRANULE - 1) / GRANULE
}

// SAFETY: a payload comes from the heap or from a cache. The heap's are valid for their layouts. A cached payload is a
// segment in use of exactly as many granules as the layout takes, aligned to a granule or checked for more, and in one
// cache only; a thread takes it out of its cache before it hands it out. No method unwinds, because nothing panics.
unsafe impl<L: FreeList, const REGIONS: usize> GlobalAlloc for Cached<L, REGIONS> {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= GRANULE
            && let Some(payload) = Caches::of_thread().pop(self.global.caches.gate(), stack(layout.size()))
        {
            return payload;
        }
        self.alloc_slow(layout)
    }

    #[inline]
    unsafe fn dealloc(&self, payload: *mut u8, layout: Layout) {
        let (gate, n) = (self.global.caches.gate(), stack(layout.size()));
        if !Caches::of_thread().push(gate, payload, n, layout.align()) {
            self.dealloc_slow(payload, layout);
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if granules(layout.size()) > MOST_GRANULES {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.global.alloc_zeroed(layout) };
        }
        // SAFETY: guaranteed by the caller.
        let payload = unsafe { self.alloc(layout) };
        if !payload.is_null() {
            // SAFETY: the payload has so many bytes, and belongs to this thread alone.
            unsafe { payload.write_bytes(0, layout.size()) };
        }
        payload
    }

    unsafe fn realloc(&self, payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let (n, new_n) = (granules(layout.size()), granules(new_size));
        if n <= MOST_GRANULES {
            let gate = self.global.caches.gate();
            if !Caches::of_thread().owns(gate, payload, n, layout.align()) {
                self.global.refuse_cached(payload, Some(layout));
            } else if n == new_n {
                return payload;
            } else if new_n <= MOST_GRANULES {
                // SAFETY: guaranteed by the caller.
                let moved = unsafe { self.realloc_cached(payload, layout, new_size) };
                if !moved.is_null() {
                    return moved;
                }
            }
        }
        // SAFETY: guaranteed by the caller.
        unsafe { self.global.realloc(payload, layout, new_size) }
    }
}

/// All other calls reach the heap, whose payloads and the caches' are the same.
impl<L: FreeList, const REGIONS: usize> Deref for Cached<L, REGIONS> {
    type Target = SmallocGlobal<L, REGIONS>;

    fn deref(&self) -> &Self::Target {
        &self.global
    }
}

impl<L: FreeList, const REGIONS: usize> core::fmt::Debug for Cached<L, REGIONS> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("Cached").field(&self.global).finish()
    }
}

impl<L: FreeList, const REGIONS: usize> Default for Cached<L, REGIONS> {
    fn default() -> Self {
        Self::new()
    }
}
