//! The trait `Allocator`, for collections that take their heap as a parameter.
//!
//! There are two of this name: that of the crate `allocator-api2`, for which there is the feature `allocator-api2`, and
//! the standard library's own, for which there is `nightly`. Both do the same here.

use crate::arena::{HeapCell, HeapLock, Lend};
use crate::free_list::FreeList;
use crate::global::SmallocGlobal;
use crate::heap::{Heap, is_aligned};
use crate::system::errno;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr::{self, NonNull};

/// What an `Allocator` is made of here. Sizes may be 0.
trait Blocks {
    fn take(&self, layout: Layout, zeroed: bool) -> *mut u8;

    /// # Safety
    /// The block is live and has this layout.
    unsafe fn give(&self, block: NonNull<u8>, layout: Layout);

    /// Null, and nothing has changed, where there is no room.
    ///
    /// # Safety
    /// The block is live and has this layout; the new size, rounded up to its alignment, does not exceed `isize::MAX`.
    unsafe fn resize(&self, block: NonNull<u8>, layout: Layout, new_size: usize, zeroed: bool) -> *mut u8;
}

impl<A: Lend> Blocks for A {
    fn take(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        let take = |heap: &mut Heap<A::List>| {
            errno::unchanged(|| if zeroed { heap.alloc_zeroed(layout) } else { heap.alloc(layout) })
        };
        self.try_with(take).unwrap_or(ptr::null_mut())
    }

    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        self.with(|heap| unsafe { heap.dealloc(block.as_ptr(), layout) });
    }

    unsafe fn resize(&self, block: NonNull<u8>, layout: Layout, new_size: usize, zeroed: bool) -> *mut u8 {
        self.with(|heap| {
            if zeroed {
                // SAFETY: the caller's promise.
                unsafe { heap.realloc_zeroed(block.as_ptr(), layout, new_size) }
            } else {
                // SAFETY: the caller's promise.
                unsafe { heap.realloc(block.as_ptr(), layout, new_size) }
            }
        })
    }
}

impl<L: FreeList, const REGIONS: usize> Blocks for SmallocGlobal<L, REGIONS> {
    fn take(&self, layout: Layout, zeroed: bool) -> *mut u8 {
        if zeroed {
            // SAFETY: this allocator gives a granule for an empty layout.
            unsafe { self.alloc_zeroed(layout) }
        } else {
            // SAFETY: as above.
            unsafe { self.alloc(layout) }
        }
    }

    unsafe fn give(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.dealloc(block.as_ptr(), layout) };
    }

    unsafe fn resize(&self, block: NonNull<u8>, layout: Layout, new_size: usize, zeroed: bool) -> *mut u8 {
        if zeroed {
            // SAFETY: the caller's promise.
            unsafe { self.realloc_zeroed(block.as_ptr(), layout, new_size) }
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.realloc(block.as_ptr(), layout, new_size) }
        }
    }
}

fn block(start: *mut u8, size: usize) -> Option<NonNull<[u8]>> {
    NonNull::new(start).map(|start| NonNull::slice_from_raw_parts(start, size))
}

/// Resizes, in place if that can be. Where the block's address does not suit a larger alignment, it moves.
///
/// # Safety
/// The block is live and has the old layout.
unsafe fn resize(
    blocks: &impl Blocks,
    old: NonNull<u8>,
    old_layout: Layout,
    new_layout: Layout,
    zeroed: bool,
) -> Option<NonNull<[u8]>> {
    let size = new_layout.size();
    if is_aligned(old.as_ptr(), new_layout) {
        let layout = Layout::from_size_align(old_layout.size(), new_layout.align()).ok()?;
        // SAFETY: the block has that many bytes, and its address suits the alignment; the new size is a layout's.
        return block(unsafe { blocks.resize(old, layout, size, zeroed) }, size);
    }
    let moved = block(blocks.take(new_layout, zeroed), size)?;
    let count = old_layout.size().min(size);
    // SAFETY: both blocks are live, so they do not overlap, and have that many bytes.
    unsafe { moved.cast::<u8>().copy_from_nonoverlapping(old, count) };
    // SAFETY: the caller's promise.
    unsafe { blocks.give(old, old_layout) };
    Some(moved)
}

macro_rules! allocator {
    ($heap:ident $(<$regions:ident>)?, $($api:ident)::+) => {
        // SAFETY: blocks stay valid as long as the heap, which is borrowed; copies of the reference are the same heap.
        unsafe impl<L: FreeList $(, const $regions: usize)?> $($api)::+::Allocator for &$heap<L $(, $regions)?> {
            fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, $($api)::+::AllocError> {
                block(self.take(layout, false), layout.size()).ok_or($($api)::+::AllocError)
            }

            fn allocate_zeroed(&self, layout: Layout) -> Result<NonNull<[u8]>, $($api)::+::AllocError> {
                block(self.take(layout, true), layout.size()).ok_or($($api)::+::AllocError)
            }

            unsafe fn deallocate(&self, old: NonNull<u8>, layout: Layout) {
                // SAFETY: the caller's promise.
                unsafe { self.give(old, layout) };
            }

            unsafe fn grow(
                &self,
                old: NonNull<u8>,
                old_layout: Layout,
                new_layout: Layout,
            ) -> Result<NonNull<[u8]>, $($api)::+::AllocError> {
                // SAFETY: the caller's promise.
                unsafe { resize(*self, old, old_layout, new_layout, false) }.ok_or($($api)::+::AllocError)
            }

            unsafe fn grow_zeroed(
                &self,
                old: NonNull<u8>,
                old_layout: Layout,
                new_layout: Layout,
            ) -> Result<NonNull<[u8]>, $($api)::+::AllocError> {
                // SAFETY: the caller's promise.
                unsafe { resize(*self, old, old_layout, new_layout, true) }.ok_or($($api)::+::AllocError)
            }

            unsafe fn shrink(
                &self,
                old: NonNull<u8>,
                old_layout: Layout,
                new_layout: Layout,
            ) -> Result<NonNull<[u8]>, $($api)::+::AllocError> {
                // SAFETY: the caller's promise.
                unsafe { resize(*self, old, old_layout, new_layout, false) }.ok_or($($api)::+::AllocError)
            }
        }
    };
}

#[cfg(feature = "allocator-api2")]
allocator!(HeapCell, allocator_api2::alloc);
#[cfg(feature = "allocator-api2")]
allocator!(HeapLock, allocator_api2::alloc);
#[cfg(feature = "allocator-api2")]
allocator!(SmallocGlobal<REGIONS>, allocator_api2::alloc);
#[cfg(feature = "nightly")]
allocator!(HeapCell, core::alloc);
#[cfg(feature = "nightly")]
allocator!(HeapLock, core::alloc);
#[cfg(feature = "nightly")]
allocator!(SmallocGlobal<REGIONS>, core::alloc);
