//! Resizing: in place if possible, otherwise by moving within the heap, otherwise to another heap.

use super::alloc::place;
use super::free::free_moved;
use super::held::{Held, MovedFrom};
use super::zero;
use crate::free_list::FreeList;
use crate::heap::{LEAST_TRANSFER, segment};
use crate::region::{Extent, GRANULE, Granule};
use crate::watch::{Request, Resize, Watch};
use core::alloc::Layout;

/// The most bytes that are copied while the heap is held. To release it and take it again takes as long.
const MAX_HELD_COPY: usize = 1 << 10;

/// Resizes a payload to `new_size` bytes. Returns null and changes nothing if nothing fits.
///
/// Without a layout, all bytes of its segment count as the payload, and it may lose an alignment of more than a
/// granule.
///
/// # Safety
/// As for `GlobalAlloc::realloc`.
#[inline(always)]
pub(crate) unsafe fn realloc<L: FreeList, H: Held<L>>(
    mut held: H,
    payload: *mut u8,
    layout: Option<Layout>,
    new_size: usize,
) -> *mut u8 {
    let (old, layout, resized) = held.with(|heap, watch| {
        watch.check_pointer(heap, payload, layout);
        let (old, layout) = match layout {
            Some(layout) => (heap.find(payload, layout), layout),
            None => {
                let old = heap.find_payload(payload, None);
                (old, layout_of(old))
            }
        };
        let resize = Resize { segment: old, layout, new_size, zeroed: false };
        watch.resizing(heap, &resize);
        let resized = heap.resize(old, new_size);
        if resized {
            watch.resized(heap, &resize);
        }
        (old, layout, resized)
    });
    if resized {
        held.wait_for_purge(segment(old.start, new_size)).leave();
        return payload;
    }
    let request = Request::moving(layout, new_size, old.start);
    let to = if held.may_move() { place(&mut held, &request).start() } else { None };
    let Some(to) = to else {
        // SAFETY: guaranteed by the caller.
        return unsafe { held.realloc_elsewhere(payload, layout, new_size) };
    };
    let mut held = held.wait_for_purge(segment(to, new_size));
    let moved = MovedFrom { segment: old, layout };
    if layout.size() >= LEAST_TRANSFER {
        return move_pages(held, moved, to);
    }
    let target = held.heap().region().pointer(to).as_ptr();
    // SAFETY: both segments are in use and this thread's, so they do not overlap (M1), and the new one is larger.
    let copy = || unsafe { target.copy_from_nonoverlapping(payload, layout.size()) };
    if layout.size() <= MAX_HELD_COPY {
        copy();
        free_moved(held, moved, |_| {});
    } else {
        held.move_out(moved, copy, |_, ()| {});
    }
    target
}

/// The layout of a payload that fills its segment.
fn layout_of(segment: Extent) -> Layout {
    // SAFETY: a granule is a power of two, and a segment is smaller than a region, far below `isize::MAX`.
    unsafe { Layout::from_size_align_unchecked(segment.bytes(), GRANULE) }
}

/// Moves a large payload within the heap, by moving its pages where possible.
#[cold]
#[inline(never)]
fn move_pages<L: FreeList, H: Held<L>>(mut held: H, moved: MovedFrom, to: Granule) -> *mut u8 {
    let may_move = <H::Watch<'_> as Watch<L>>::MOVES_PAGES;
    let heap = held.heap();
    let target = heap.region().pointer(to).as_ptr();
    let transfer = heap.begin_transfer(moved.segment.start, to, moved.layout.size(), may_move);
    // SAFETY: both segments are in use and this thread's, and none of their pages is being purged (X1).
    let carry_out = || unsafe { transfer.carry_out() };
    held.move_out(moved, carry_out, |heap, done| heap.end_transfer(&transfer, done));
    target
}

/// Resizes a payload in place and zeroes the bytes added; returns false and changes nothing if that is impossible.
pub(crate) fn resize_zeroed<L: FreeList, H: Held<L>>(
    mut held: H,
    payload: *mut u8,
    layout: Layout,
    new_size: usize,
) -> bool {
    let grown = held.with(|heap, watch| {
        watch.check_pointer(heap, payload, Some(layout));
        let old = heap.find(payload, layout);
        let resize = Resize { segment: old, layout, new_size, zeroed: true };
        watch.resizing(heap, &resize);
        let before = heap.used_before();
        heap.resize(old, new_size).then(|| {
            watch.resized(heap, &resize);
            (old, heap.soil_grown(before, old, layout.size(), new_size))
        })
    });
    let Some((old, rest)) = grown else { return false };
    let held = held.wait_for_purge(segment(old.start, new_size));
    // SAFETY: these bytes belong to the payload and were not part of it before.
    unsafe { rest.cast::<u8>().write_bytes(0, rest.len()) };
    zero::clear(held, old.end, new_size.saturating_sub(old.bytes())).leave();
    true
}

/// Moves a payload by allocating, copying and freeing. Returns null and changes nothing if `alloc` returns null.
///
/// # Safety
/// The payload is in use, belongs to this thread and has this layout; `new_size`, rounded up to its alignment, does not
/// exceed `isize::MAX`. `alloc` returns null or a payload of the layout that it is given.
pub(crate) unsafe fn move_by<C>(
    mut heap: C,
    payload: *mut u8,
    layout: Layout,
    new_size: usize,
    alloc: impl FnOnce(&mut C, Layout) -> *mut u8,
    free: impl FnOnce(&mut C, *mut u8, Layout),
) -> *mut u8 {
    // SAFETY: guaranteed by the caller.
    let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
    let moved = alloc(&mut heap, new_layout);
    if !moved.is_null() {
        // SAFETY: both payloads are in use and this thread's, so they do not overlap; each has this many bytes.
        unsafe { moved.copy_from_nonoverlapping(payload, layout.size().min(new_size)) };
        free(&mut heap, payload, layout);
    }
    moved
}
