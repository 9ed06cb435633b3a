//! Allocating.

use super::held::Held;
use super::zero;
use crate::free_list::{Fit, FreeList};
use crate::heap::{Declined, Heap, segment};
use crate::recording::Call;
use crate::region::Granule;
use crate::watch::{Request, Watch};
use core::alloc::Layout;
use core::ptr::NonNull;

#[inline(always)]
pub(crate) fn alloc<L: FreeList, H: Held<L>, const ZEROED: bool>(mut held: H, layout: Layout) -> *mut u8 {
    if ZEROED && layout.size() >= zero::MIN_CLEARED_BY_PAGE {
        return alloc_zeroed(held, layout);
    }
    let request = request::<ZEROED>(layout);
    let placed = held.with(|heap, watch| {
        if !<H::Watch<'_> as Watch<L>>::FAST {
            return Err(Declined::Other);
        }
        let at = heap.place_fast(layout.size(), layout.align())?;
        watch.placed(heap, &request, Fit::NONE.at(at));
        Ok(at)
    });
    match placed {
        Ok(at) => hand_out(held, at, &request).as_ptr(),
        Err(Declined::At(at)) => alloc_at::<L, H, ZEROED>(held, layout, at),
        Err(Declined::Search) => alloc_search::<L, H, ZEROED>(held, layout),
        Err(Declined::Other) => alloc_slow::<L, H, ZEROED>(held, layout),
    }
}

/// Allocates at the place that the first look found.
#[inline(never)]
fn alloc_at<L: FreeList, H: Held<L>, const ZEROED: bool>(held: H, layout: Layout, at: Granule) -> *mut u8 {
    alloc_by::<L, H, ZEROED>(held, layout, |heap| heap.place_at(at, layout.size()))
}

/// Allocates after the first look missed. The whole search is inlined here: one call, one frame.
#[inline(never)]
fn alloc_search<L: FreeList, H: Held<L>, const ZEROED: bool>(held: H, layout: Layout) -> *mut u8 {
    alloc_by::<L, H, ZEROED>(held, layout, |heap| heap.place_by_search(layout.size()))
}

/// Allocates if there was no first look, or the wilderness has to be committed.
#[inline(never)]
fn alloc_slow<L: FreeList, H: Held<L>, const ZEROED: bool>(held: H, layout: Layout) -> *mut u8 {
    alloc_by::<L, H, ZEROED>(held, layout, |heap| heap.place_any(layout.size(), layout.align()))
}

#[inline(always)]
fn alloc_by<L: FreeList, H: Held<L>, const ZEROED: bool>(
    mut held: H,
    layout: Layout,
    place: impl Fn(&mut Heap<L>) -> Fit,
) -> *mut u8 {
    let request = request::<ZEROED>(layout);
    match place_by(&mut held, &request, place).start() {
        Some(at) => hand_out(held, at, &request).as_ptr(),
        None => held.alloc_elsewhere(request.call, layout),
    }
}

/// Allocates zeroed memory of any size.
#[inline(never)]
fn alloc_zeroed<L: FreeList, H: Held<L>>(mut held: H, layout: Layout) -> *mut u8 {
    let request = Request::new(Call::AllocZeroed, layout);
    match place(&mut held, &request).start() {
        Some(at) => hand_out(held, at, &request).as_ptr(),
        None => held.alloc_elsewhere(request.call, layout),
    }
}

#[inline(always)]
fn request<const ZEROED: bool>(layout: Layout) -> Request {
    Request::new(if ZEROED { Call::AllocZeroed } else { Call::Alloc }, layout)
}

/// Places any request and tells the watchers.
#[inline(always)]
pub(crate) fn place<L: FreeList, H: Held<L>>(held: &mut H, request: &Request) -> Fit {
    place_by(held, request, |heap| {
        if zero::is_cleared_by_page(request) {
            heap.place_zeroed(request.size, request.align)
        } else {
            heap.place(request.size, request.align)
        }
    })
}

/// Places a request by `place`, retries if a watcher makes room, and tells the watchers.
#[inline(always)]
fn place_by<L: FreeList, H: Held<L>>(
    held: &mut H,
    request: &Request,
    place: impl Fn(&mut Heap<L>) -> Fit,
) -> Fit {
    held.with(|heap, watch| {
        let mut fit = place(heap);
        if fit.start().is_none() && watch.make_room(heap) {
            fit = place(heap);
        }
        watch.placed(heap, request, fit);
        if fit.start().is_none() {
            watch.done(heap);
        }
        fit
    })
}

/// Releases the heap and returns the payload that was placed at `at`.
#[inline(always)]
pub(crate) fn hand_out<L: FreeList, H: Held<L>>(mut held: H, at: Granule, request: &Request) -> NonNull<u8> {
    held.with(|heap, watch| watch.done(heap));
    let mut held = held.wait_for_purge(segment(at, request.size));
    let payload = held.heap().region().pointer(at);
    if zero::is_cleared_by_page(request) {
        drop(zero::clear(held, at, request.size));
        return payload;
    }
    drop(held);
    if request.is_zeroed() {
        // SAFETY: the payload was just placed with `request.size` bytes, and belongs to this thread alone (M1).
        unsafe { payload.write_bytes(0, request.size) };
    }
    payload
}
