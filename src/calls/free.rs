//! Freeing.

use super::held::{Held, MovedFrom};
use crate::free_list::{Deferred, FreeList};
use crate::heap::Heap;
use crate::region::{Extent, Granule};
use crate::watch::{Free, Named, Watch};
use core::alloc::Layout;

/// Frees a payload, with or without its layout.
#[inline(always)]
pub(crate) fn free<L: FreeList, H: Held<L>>(mut held: H, payload: *mut u8, layout: Option<Layout>) {
    let short = held.with(|heap, watch| {
        if !<H::Watch<'_> as Watch<L>>::FAST {
            return None;
        }
        let (short, named) = match layout {
            Some(layout) => (heap.find_fast(payload, layout)?, Named::Layout(layout)),
            None => (heap.find_fast_by_pointer(payload)?, Named::Pointer),
        };
        // No result to check: watchers that keep segments do not allow the fast path.
        watch.freeing(heap, Extent::of(short.at, short.n), named);
        Some(short)
    });
    let Some(short) = short else { return free_slow(held, payload, layout) };
    match held.heap().tiling.give_fast(short) {
        Some(Deferred::Nothing) => held.leave_fast(),
        Some(Deferred::Raise { chunk, n, start }) => free_and_raise(held, chunk, n, start),
        Some(Deferred::Grow { hole, end }) => free_and_grow(held, hole, end),
        Some(Deferred::TopFell { from, to, at }) => free_at_top(held, from, to, at),
        None => free_seen(held, short.at, short.n, short.below, short.above),
    }
}

// One outlined function per kind of deferred work keeps its parts in registers.

#[inline(never)]
fn free_and_raise<L: FreeList, H: Held<L>>(mut held: H, chunk: usize, n: usize, start: Granule) {
    held.heap().tiling.settle(Deferred::Raise { chunk, n, start });
    held.leave_fast();
}

#[inline(never)]
fn free_and_grow<L: FreeList, H: Held<L>>(mut held: H, hole: Extent, end: Granule) {
    held.heap().tiling.settle(Deferred::Grow { hole, end });
    held.leave_fast();
}

#[inline(never)]
fn free_at_top<L: FreeList, H: Held<L>>(mut held: H, from: Granule, to: Granule, at: Granule) {
    held.heap().tiling.settle(Deferred::TopFell { from, to, at });
    held.leave();
}

/// Frees a segment with a free neighbour that reaches out of the one window.
#[inline(never)]
fn free_seen<L: FreeList, H: Held<L>>(mut held: H, at: Granule, n: usize, below: u64, above: u64) {
    held.heap().tiling.give_seen(at, n, below, above);
    held.leave();
}

/// Frees if there was no fast path, or it declined.
#[inline(never)]
fn free_slow<L: FreeList, H: Held<L>>(mut held: H, payload: *mut u8, layout: Option<Layout>) {
    held.with(|heap, watch| {
        watch.check_pointer(heap, payload, layout);
        let (segment, named) = match layout {
            Some(layout) => (heap.find_slow(payload, layout), Named::Layout(layout)),
            None => (heap.find_payload(payload, None), Named::Pointer),
        };
        if watch.freeing(heap, segment, named) == Free::Now {
            heap.tiling.give(segment);
        }
    });
    held.leave();
}

/// Frees one of several payloads and keeps the heap.
pub(crate) fn free_one<L: FreeList, H: Held<L>>(held: &mut H, payload: *mut u8, layout: Option<Layout>) {
    held.with(|heap, watch| {
        watch.check_pointer(heap, payload, layout);
        let (segment, named) = match layout {
            Some(layout) => (heap.find(payload, layout), Named::Layout(layout)),
            None => (heap.find_payload(payload, None), Named::Pointer),
        };
        if watch.freeing(heap, segment, named) == Free::Now {
            heap.give_back(segment, false);
        }
        watch.done(heap);
    });
}

/// Frees the segment that a `realloc` moved out of, and runs `finish` before others can have the heap.
#[inline(always)]
pub(crate) fn free_moved<L: FreeList, H: Held<L>>(
    mut held: H,
    moved: MovedFrom,
    finish: impl FnOnce(&mut Heap<L>),
) {
    held.with(|heap, watch| {
        if watch.freeing(heap, moved.segment, Named::MovedFrom(moved.layout)) == Free::Now {
            heap.give_back(moved.segment, true);
        }
        finish(heap);
    });
    held.leave();
}
