//! Freeing.

use super::held::{Held, MovedFrom};
use crate::free_list::{Deferred, FreeList};
use crate::heap::Heap;
use crate::region::{Extent, Granule};
use crate::watch::{Free, Named, Watch};
use core::alloc::Layout;

/// Frees the payload that a pointer and its layout name.
#[inline(always)]
pub(crate) fn free<L: FreeList, H: Held<L>>(mut held: H, payload: *mut u8, layout: Layout) {
    let short = held.with(|heap, watch| {
        let fast = <H::Watch<'_> as Watch<L>>::FAST;
        let short = if fast { heap.find_fast(payload, layout) } else { None }?;
        // No watcher that allows the fast path keeps segments.
        watch.freeing(heap, Extent::of(short.at, short.n), Named::Layout(layout));
        Some(short)
    });
    let Some(short) = short else { return free_slow(held, payload, Some(layout)) };
    match held.heap().tiling.give_fast(short) {
        Some(Deferred::Nothing) => held.release(),
        Some(Deferred::Raise { chunk, code }) => free_and_raise(held, chunk, code),
        Some(Deferred::Clear { from, to }) => free_and_clear(held, from, to),
        None => free_seen(held, short.at, short.n, short.below, short.above),
    }
}

// Each kind of rest has a call of its own, so that the compiler keeps its parts in registers, and puts nothing together that
// is taken apart again.

#[inline(never)]
fn free_and_raise<L: FreeList, H: Held<L>>(mut held: H, chunk: usize, code: u8) {
    held.heap().tiling.settle(Deferred::Raise { chunk, code });
    held.release();
}

#[inline(never)]
fn free_and_clear<L: FreeList, H: Held<L>>(mut held: H, from: usize, to: usize) {
    held.heap().tiling.settle(Deferred::Clear { from, to });
    held.leave();
}

/// Frees a segment of which one window does not show a free neighbour whole.
#[inline(never)]
fn free_seen<L: FreeList, H: Held<L>>(mut held: H, at: Granule, n: usize, below: u64, above: u64) {
    held.heap().tiling.give_seen(at, n, below, above);
    held.leave();
}

/// Frees the payload that a pointer names, with a layout or without.
#[inline(never)]
pub(crate) fn free_slow<L: FreeList, H: Held<L>>(mut held: H, payload: *mut u8, layout: Option<Layout>) {
    held.with(|heap, watch| {
        watch.named(heap, payload, layout);
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

/// Frees one payload of several, and keeps the heap.
pub(crate) fn free_one<L: FreeList, H: Held<L>>(held: &mut H, payload: *mut u8, layout: Option<Layout>) {
    held.with(|heap, watch| {
        watch.named(heap, payload, layout);
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

/// Frees what a `realloc` has moved from, and `finish`es before anybody else has the heap.
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
