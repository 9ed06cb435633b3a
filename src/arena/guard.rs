//! Access to the heap of an arena that is shared.

use crate::free_list::{FreeList, Indexed};
use crate::heap::{Heap, MallocStatus};
use core::alloc::Layout;
use core::cell::RefMut;
use core::fmt;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use core::time::Duration;
use spin::mutex::SpinMutexGuard;
use static_assertions::assert_not_impl_any;

/// Access to the [`Heap`] of a [`HeapCell`](crate::HeapCell) or a [`HeapLock`](crate::HeapLock) until it is dropped.
///
/// It has all calls of the heap, but gives no `&mut Heap`. Safe code could exchange that heap for another one, and
/// collections that the cell or lock serves would lose their memory:
///
/// ```compile_fail
/// use smalloc::{Heap, HeapCell, Indexed};
///
/// let cell = HeapCell::<Indexed>::with_region_size(1 << 20)?;
/// *cell.borrow_mut() = Heap::with_region_size(1 << 20)?;
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[must_use = "dropping the guard releases the heap"]
pub struct HeapGuard<'a, L: FreeList = Indexed>(Access<'a, L>);

enum Access<'a, L: FreeList> {
    Cell(RefMut<'a, Heap<L>>),
    Lock(SpinMutexGuard<'a, Heap<L>>),
}

assert_not_impl_any!(HeapGuard<'static>: DerefMut, AsMut<Heap>);

impl<'a, L: FreeList> HeapGuard<'a, L> {
    pub(super) fn of_cell(heap: RefMut<'a, Heap<L>>) -> Self {
        Self(Access::Cell(heap))
    }

    pub(super) fn of_lock(heap: SpinMutexGuard<'a, Heap<L>>) -> Self {
        Self(Access::Lock(heap))
    }

    pub(super) fn heap(&mut self) -> &mut Heap<L> {
        match &mut self.0 {
            Access::Cell(heap) => heap,
            Access::Lock(heap) => heap,
        }
    }
}

/// Calls of the heap that change it.
macro_rules! forward {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        impl<L: FreeList> HeapGuard<'_, L> {
            $(
                #[doc = concat!("Calls [`Heap::", stringify!($name), "`].")]
                pub fn $name(&mut self $(, $argument: $type)*) $(-> $result)? {
                    self.heap().$name($($argument),*)
                }
            )*
        }
    };
}

macro_rules! forward_unsafe {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        impl<L: FreeList> HeapGuard<'_, L> {
            $(
                #[doc = concat!("Calls [`Heap::", stringify!($name), "`].")]
                ///
                /// # Safety
                #[doc = concat!("As for [`Heap::", stringify!($name), "`].")]
                pub unsafe fn $name(&mut self $(, $argument: $type)*) $(-> $result)? {
                    // SAFETY: guaranteed by the caller.
                    unsafe { self.heap().$name($($argument),*) }
                }
            )*
        }
    };
}

forward! {
    smalloc(layout: Layout) -> (Option<NonNull<u8>>, MallocStatus);
    alloc(layout: Layout) -> *mut u8;
    alloc_zeroed(layout: Layout) -> *mut u8;
    trim() -> usize;
    set_limit(bytes: usize) -> usize;
    decay(time: Duration);
    huge_pages(wanted: bool) -> bool;
    make_ready(bytes: usize) -> bool;
    make_resident(bytes: usize) -> bool;
    reset_peaks();
}

forward_unsafe! {
    sfree(payload: NonNull<u8>);
    dealloc(payload: *mut u8, layout: Layout);
    realloc(payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8;
    realloc_with_status(payload: NonNull<u8>, layout: Layout, new_size: usize) -> (Option<NonNull<u8>>, MallocStatus);
    srealloc(payload: NonNull<u8>, new_size: usize) -> Option<NonNull<u8>>;
    realloc_zeroed(payload: *mut u8, layout: Layout, new_size: usize) -> *mut u8;
}

impl<L: FreeList> Deref for HeapGuard<'_, L> {
    type Target = Heap<L>;

    fn deref(&self) -> &Heap<L> {
        match &self.0 {
            Access::Cell(heap) => heap,
            Access::Lock(heap) => heap,
        }
    }
}

impl<L: FreeList> fmt::Debug for HeapGuard<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeapGuard").field("list", &L::NAME).finish_non_exhaustive()
    }
}
