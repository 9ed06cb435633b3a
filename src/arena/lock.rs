//! An arena for several threads.

use super::HeapGuard;
use crate::free_list::{FreeList, Indexed};
use crate::heap::Heap;
use crate::region::InitError;
use crate::threads::lock::Backoff;
use core::fmt;
use core::sync::atomic::{AtomicU32, Ordering};
use spin::mutex::SpinMutex;

/// A [`Heap`] that several threads share, behind a spinlock: the counterpart of [`HeapCell`](crate::HeapCell), which is
/// for one thread.
///
/// With the feature `allocator-api2`, `allocator-api2-04` or `nightly`, `&HeapLock` is an `Allocator`. A thread that
/// finds the lock taken spins with exponential backoff and sleeps after some microseconds, so there may be many more
/// threads than cores.
///
/// A thread that holds the lock and locks again waits forever, so a signal handler must not use a heap that its thread
/// may be using. In a child of `fork` the lock stays taken if another thread held it, like a `Mutex`. A
/// [`SmallocGlobal`](crate::SmallocGlobal) in a static handles both.
///
/// ```
/// use core::alloc::Layout;
/// use smalloc::{HeapLock, Indexed};
/// use std::sync::Arc;
///
/// let heap = Arc::new(HeapLock::<Indexed>::with_region_size(1 << 20)?);
/// let threads: Vec<_> = (0..4)
///     .map(|_| {
///         let heap = Arc::clone(&heap);
///         std::thread::spawn(move || heap.lock().smalloc(Layout::new::<[u8; 100]>()).1.success)
///     })
///     .collect();
/// assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
/// assert_eq!(heap.lock().stats().live_segments, 4);
/// # Ok::<(), smalloc::InitError>(())
/// ```
pub struct HeapLock<L: FreeList = Indexed> {
    heap: SpinMutex<Heap<L>>,
    /// Sleeping threads: the more there are, the longer each sleeps.
    sleepers: AtomicU32,
}

impl<L: FreeList> HeapLock<L> {
    /// Wraps a heap.
    #[must_use]
    pub const fn new(heap: Heap<L>) -> Self {
        Self { heap: SpinMutex::new(heap), sleepers: AtomicU32::new(0) }
    }

    /// A heap with a region of `bytes` bytes, mapped by [`Heap::with_region_size`].
    ///
    /// # Errors
    /// The system refused even the smallest region.
    pub fn with_region_size(bytes: usize) -> Result<Self, InitError> {
        Heap::with_region_size(bytes).map(Self::new)
    }

    /// The heap, once no other thread has it. Dropping the guard releases it.
    pub fn lock(&self) -> HeapGuard<'_, L> {
        let mut backoff = Backoff::new();
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            while self.heap.is_locked() {
                backoff.pause(&self.sleepers);
            }
        }
    }

    /// The heap; `None` if it is locked. Never waits.
    pub fn try_lock(&self) -> Option<HeapGuard<'_, L>> {
        self.heap.try_lock().map(HeapGuard::of_lock)
    }

    /// Returns the heap.
    #[must_use]
    pub fn into_inner(self) -> Heap<L> {
        self.heap.into_inner()
    }
}

impl<L: FreeList> fmt::Debug for HeapLock<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sleepers = self.sleepers.load(Ordering::Relaxed);
        f.debug_struct("HeapLock")
            .field("list", &L::NAME)
            .field("sleepers", &sleepers)
            .finish_non_exhaustive()
    }
}

#[cfg(any(feature = "allocator-api2", feature = "allocator-api2-04", feature = "nightly"))]
impl<L: FreeList> super::Lend for HeapLock<L> {
    type List = L;

    fn with<R>(&self, work: impl FnOnce(&mut Heap<L>) -> R) -> R {
        work(self.lock().heap())
    }

    fn try_with<R>(&self, work: impl FnOnce(&mut Heap<L>) -> R) -> Option<R> {
        Some(self.with(work))
    }
}
