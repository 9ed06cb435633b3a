//! An arena for several collections of one thread.

use super::HeapGuard;
use crate::free_list::{FreeList, Indexed};
use crate::heap::Heap;
use crate::inspect::Stats;
use crate::region::InitError;
#[cfg(any(feature = "allocator-api2", feature = "allocator-api2-04", feature = "nightly"))]
use crate::system::fatal::fatal;
use core::cell::RefCell;

/// A [`Heap`] for several collections of one thread: `&HeapCell` is an `Allocator`.
///
/// ```
/// # #[cfg(feature = "allocator-api2")] {
/// use allocator_api2::vec::Vec;
/// use smalloc::{Heap, HeapCell, Indexed};
///
/// let heap = HeapCell::new(Heap::<Indexed>::with_region_size(1 << 20)?);
/// let mut numbers = Vec::new_in(&heap);
/// numbers.extend(0..1000_u32);
/// let mut more = Vec::new_in(&heap);
/// more.push(1_u8);
/// assert_eq!(heap.borrow_mut().stats().live_segments, 2);
/// # }
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Debug)]
pub struct HeapCell<L: FreeList = Indexed>(RefCell<Heap<L>>);

impl<L: FreeList> HeapCell<L> {
    /// Wraps a heap.
    #[must_use]
    pub const fn new(heap: Heap<L>) -> Self {
        Self(RefCell::new(heap))
    }

    /// A heap with a region of `bytes` bytes, mapped by [`Heap::with_region_size`].
    ///
    /// # Errors
    /// The system refused even the smallest region.
    pub fn with_region_size(bytes: usize) -> Result<Self, InitError> {
        Heap::with_region_size(bytes).map(Self::new)
    }

    /// The heap, mutably borrowed. While it is, `&HeapCell` as an `Allocator` fails to allocate, and ends the process
    /// on a free or resize.
    ///
    /// # Panics
    /// If the heap is borrowed already.
    pub fn borrow_mut(&self) -> HeapGuard<'_, L> {
        HeapGuard::of_cell(self.0.borrow_mut())
    }

    /// The heap's statistics; `None` while it is borrowed. Never panics.
    ///
    /// ```
    /// # use smalloc::{HeapCell, Indexed};
    /// let heap = HeapCell::<Indexed>::with_region_size(1 << 20)?;
    /// assert_eq!(heap.try_stats().map(|stats| stats.used_bytes), Some(0));
    /// let borrowed = heap.borrow_mut();
    /// assert_eq!(heap.try_stats(), None);
    /// # drop(borrowed);
    /// # Ok::<(), smalloc::InitError>(())
    /// ```
    #[must_use]
    pub fn try_stats(&self) -> Option<Stats> {
        self.0.try_borrow().ok().map(|heap| heap.stats())
    }

    /// Returns the heap.
    #[must_use]
    pub fn into_inner(self) -> Heap<L> {
        self.0.into_inner()
    }
}

#[cfg(any(feature = "allocator-api2", feature = "allocator-api2-04", feature = "nightly"))]
impl<L: FreeList> super::Lend for HeapCell<L> {
    type List = L;

    fn with<R>(&self, work: impl FnOnce(&mut Heap<L>) -> R) -> R {
        match self.0.try_borrow_mut() {
            Ok(mut heap) => work(&mut heap),
            Err(_) => fatal(format_args!("recursive call: the heap is borrowed")),
        }
    }

    fn try_with<R>(&self, work: impl FnOnce(&mut Heap<L>) -> R) -> Option<R> {
        self.0.try_borrow_mut().ok().map(|mut heap| work(&mut heap))
    }
}
