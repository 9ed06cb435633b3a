//! The trait `Allocator`, for collections that take their allocator as a parameter.
//!
//! It exists three times: in the crate `allocator-api2`, version 0.2 (feature `allocator-api2`) and 0.4 (feature
//! `allocator-api2-04`), and in the standard library (feature `nightly`). All implementations are generated here from
//! the same code.

use crate::arena::{HeapArc, HeapCell, HeapLock, HeapRc, Lend};
use crate::free_list::FreeList;
use crate::global::SmallocGlobal;
use crate::heap::{Heap, is_aligned};
use crate::system::errno;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

/// The operations of an `Allocator`. Sizes may be 0.
trait BlockSource {
    fn alloc_block(&self, layout: Layout, zeroed: bool) -> *mut u8;

    /// # Safety
    /// The block is live and has this layout.
    unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout);

    /// Null, and nothing has changed, if there is no room.
    ///
    /// # Safety
    /// The block is live and has this layout; the new size, rounded up to its alignment, does not exceed `isize::MAX`.
    unsafe fn resize_block(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
        zeroed: bool,
    ) -> *mut u8;

    /// Resizes a block, in place if possible; moves it if its address lacks the new alignment. `None` if nothing fits.
    ///
    /// # Safety
    /// The block is live and has the old layout.
    unsafe fn change_layout(
        &self,
        old: NonNull<u8>,
        old_layout: Layout,
        new_layout: Layout,
        zeroed: bool,
    ) -> Option<NonNull<[u8]>> {
        let size = new_layout.size();
        if is_aligned(old.as_ptr(), new_layout) {
            let layout = Layout::from_size_align(old_layout.size(), new_layout.align()).ok()?;
            // SAFETY: the block has that many bytes, its address has the alignment, and the new size is a layout's.
            return block(unsafe { self.resize_block(old, layout, size, zeroed) }, size);
        }
        let moved = block(self.alloc_block(new_layout, zeroed), size)?;
        let count = old_layout.size().min(size);
        // SAFETY: both blocks are live, so they do not overlap, and each has at least `count` bytes.
        unsafe { moved.cast::<u8>().copy_from_nonoverlapping(old, count) };
        // SAFETY: guaranteed by the caller.
        unsafe { self.free_block(old, old_layout) };
        Some(moved)
    }
}

impl<A: Lend> BlockSource for A {
    fn alloc_block(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        let alloc = |heap: &mut Heap<A::List>| {
            errno::unchanged(|| if zeroed { heap.alloc_zeroed(layout) } else { heap.alloc(layout) })
        };
        self.try_with(alloc).unwrap_or(ptr::null_mut())
    }

    unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: guaranteed by the caller.
        self.with(|heap| unsafe { heap.dealloc(block.as_ptr(), layout) });
    }

    unsafe fn resize_block(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
        zeroed: bool,
    ) -> *mut u8 {
        self.with(|heap| {
            if zeroed {
                // SAFETY: guaranteed by the caller.
                unsafe { heap.realloc_zeroed(block.as_ptr(), layout, new_size) }
            } else {
                // SAFETY: guaranteed by the caller.
                unsafe { heap.realloc(block.as_ptr(), layout, new_size) }
            }
        })
    }
}

impl<L: FreeList, const REGIONS: usize> BlockSource for SmallocGlobal<L, REGIONS> {
    fn alloc_block(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        if zeroed {
            // SAFETY: this allocator accepts empty layouts and takes a granule for them.
            unsafe { self.alloc_zeroed(layout) }
        } else {
            // SAFETY: this allocator accepts empty layouts and takes a granule for them.
            unsafe { self.alloc(layout) }
        }
    }

    unsafe fn free_block(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.dealloc(block.as_ptr(), layout) };
    }

    unsafe fn resize_block(
        &self,
        block: NonNull<u8>,
        layout: Layout,
        new_size: usize,
        zeroed: bool,
    ) -> *mut u8 {
        if zeroed {
            // SAFETY: guaranteed by the caller.
            unsafe { self.realloc_zeroed(block.as_ptr(), layout, new_size) }
        } else {
            // SAFETY: guaranteed by the caller.
            unsafe { self.realloc(block.as_ptr(), layout, new_size) }
        }
    }
}

fn block(start: *mut u8, size: usize) -> Option<NonNull<[u8]>> {
    NonNull::new(start).map(|start| NonNull::slice_from_raw_parts(start, size))
}

macro_rules! allocator {
    ($heap:ty $(, const $regions:ident)?; $($api:ident)::+) => {
        // SAFETY: blocks stay valid while the heap is borrowed or has a handle. Copies of the reference and clones of
        // the handle are the same heap.
        unsafe impl<L: FreeList $(, const $regions: usize)?> $($api)::+::Allocator for $heap {
            fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, $($api)::+::AllocError> {
                block(self.alloc_block(layout, false), layout.size()).ok_or($($api)::+::AllocError)
            }

            fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, $($api)::+::AllocError> {
                block(self.alloc_block(layout, true), layout.size()).ok_or($($api)::+::AllocError)
            }

            unsafe fn deallocate(&self, old: NonNull<u8>, layout: Layout) {
                // SAFETY: guaranteed by the caller.
                unsafe { self.free_block(old, layout) };
            }

            unsafe fn grow(
                &self,
                old: NonNull<u8>,
                old_layout: Layout,
                new_layout: Layout,
            ) -> Result<NonNull<[u8]>, $($api)::+::AllocError> {
                // SAFETY: guaranteed by the caller.
                unsafe { self.change_layout(old, old_layout, new_layout, false) }.ok_or($($api)::+::AllocError)
            }

            unsafe fn grow_zeroed(
                &self,
                old: NonNull<u8>,
                old_layout: Layout,
                new_layout: Layout,
            ) -> Result<NonNull<[u8]>, $($api)::+::AllocError> {
                // SAFETY: guaranteed by the caller.
                unsafe { self.change_layout(old, old_layout, new_layout, true) }.ok_or($($api)::+::AllocError)
            }

            unsafe fn shrink(
                &self,
                old: NonNull<u8>,
                old_layout: Layout,
                new_layout: Layout,
            ) -> Result<NonNull<[u8]>, $($api)::+::AllocError> {
                // SAFETY: guaranteed by the caller.
                unsafe { self.change_layout(old, old_layout, new_layout, false) }.ok_or($($api)::+::AllocError)
            }
        }
    };
}

macro_rules! allocators {
    ($feature:literal, $($api:ident)::+) => {
        #[cfg(feature = $feature)]
        allocator!(&HeapCell<L>; $($api)::+);
        #[cfg(feature = $feature)]
        allocator!(&HeapLock<L>; $($api)::+);
        #[cfg(feature = $feature)]
        allocator!(HeapRc<L>; $($api)::+);
        #[cfg(feature = $feature)]
        allocator!(HeapArc<L>; $($api)::+);
        #[cfg(feature = $feature)]
        allocator!(&SmallocGlobal<L, REGIONS>, const REGIONS; $($api)::+);
    };
}

allocators!("allocator-api2", allocator_api2::alloc);
allocators!("allocator-api2-04", allocator_api2_04::alloc);
allocators!("nightly", core::alloc);
