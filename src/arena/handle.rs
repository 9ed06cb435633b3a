//! Handles with which several owners share an arena.

use super::{HeapCell, HeapLock, Lend};
use crate::free_list::{FreeList, Indexed};
use crate::heap::Heap;
use crate::region::InitError;
use alloc::rc::Rc;
use alloc::sync::Arc;
use core::ops::Deref;

/// A [`HeapCell`] with a reference count, so that a struct can hold a heap together with collections in it. The handle
/// itself is an `Allocator`, and each collection keeps a clone.
///
/// The region is unmapped when the last clone is dropped. The counts are in the program's global heap, two words and
/// the `HeapCell`.
///
/// ```
/// # #[cfg(feature = "allocator-api2")] {
/// use allocator_api2::vec::Vec;
/// use smalloc::HeapRc;
///
/// struct Tenant {
///     heap: HeapRc,
///     numbers: Vec<u32, HeapRc>,
/// }
///
/// let heap = HeapRc::with_region_size(1 << 20)?;
/// let mut tenant = Tenant { numbers: Vec::new_in(heap.clone()), heap };
/// tenant.numbers.extend(0..100);
/// assert_eq!(tenant.heap.try_stats().map(|stats| stats.live_segments), Some(1));
/// # }
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Debug)]
pub struct HeapRc<L: FreeList = Indexed>(Rc<HeapCell<L>>);

/// A [`HeapLock`] with an atomic reference count, so that a struct can hold a heap together with collections in it and
/// move between threads. The handle itself is an `Allocator`, and each collection keeps a clone.
///
/// The region is unmapped when the last clone is dropped. The counts are in the program's global heap, two words and
/// the `HeapLock`.
///
/// ```
/// # #[cfg(feature = "allocator-api2")] {
/// use allocator_api2::vec::Vec;
/// use smalloc::HeapArc;
///
/// struct Tenant {
///     heap: HeapArc,
///     names: Vec<&'static str, HeapArc>,
/// }
///
/// let heap = HeapArc::with_region_size(1 << 20)?;
/// heap.lock().set_limit(64 << 10);
/// let mut tenant = Tenant { names: Vec::new_in(heap.clone()), heap };
/// let tenant = std::thread::spawn(move || {
///     tenant.names.push("a");
///     tenant
/// });
/// let tenant = tenant.join().unwrap();
/// assert_eq!(tenant.heap.lock().stats().live_segments, 1);
/// # }
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Debug)]
pub struct HeapArc<L: FreeList = Indexed>(Arc<HeapLock<L>>);

macro_rules! handle {
    ($handle:ident, $count:ident, $arena:ident) => {
        impl<L: FreeList> $handle<L> {
            /// Wraps a heap.
            ///
            /// Ends the process, like `Box::new`, if the program's global heap has no memory for the counts.
            #[must_use]
            pub fn new(heap: Heap<L>) -> Self {
                Self($count::new($arena::new(heap)))
            }
        }

        // Only for the default list, so that it need not be written.
        impl $handle {
            /// A heap with a region of `bytes` bytes, mapped by [`Heap::with_region_size`]. For another list than
            /// [`Indexed`], use [`new`](Self::new).
            ///
            /// # Errors
            /// The system refused even the smallest region.
            pub fn with_region_size(bytes: usize) -> Result<Self, InitError> {
                Heap::with_region_size(bytes).map(Self::new)
            }
        }

        impl<L: FreeList> Clone for $handle<L> {
            fn clone(&self) -> Self {
                Self($count::clone(&self.0))
            }
        }

        impl<L: FreeList> Deref for $handle<L> {
            type Target = $arena<L>;

            fn deref(&self) -> &$arena<L> {
                &self.0
            }
        }

        impl<L: FreeList> Lend for $handle<L> {
            type List = L;

            fn with<R>(&self, work: impl FnOnce(&mut Heap<L>) -> R) -> R {
                self.0.with(work)
            }

            fn try_with<R>(&self, work: impl FnOnce(&mut Heap<L>) -> R) -> Option<R> {
                self.0.try_with(work)
            }
        }
    };
}

handle!(HeapRc, Rc, HeapCell);
handle!(HeapArc, Arc, HeapLock);
