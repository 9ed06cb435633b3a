//! Watchers of calls: memory checkers, the feature `hardened`, recordings, the live page.
//!
//! A watcher implements [`Watch`], whose methods do nothing by default. Watchers are composed by type: `(A, B)` calls
//! A, then B. Calls are generic over the watcher, so a call without watchers pays nothing. Every method runs with the
//! heap held, so a watcher must not allocate, panic, or wait for another heap.

mod checkers;
#[cfg(feature = "hardened")]
mod hardened;

pub(crate) use checkers::Checkers;
#[cfg(feature = "hardened")]
pub(crate) use hardened::Hardened;

#[cfg(not(feature = "hardened"))]
use crate::free_list::Broken;
use crate::free_list::{Fit, FreeList};
use crate::heap::Heap;
use crate::recording::Call;
use crate::region::{Extent, Granule};
use core::alloc::Layout;
use core::cell::Cell;

/// State of the feature `hardened` for a heap; empty without the feature.
#[cfg(not(feature = "hardened"))]
pub(crate) struct Hardened;

#[cfg(not(feature = "hardened"))]
impl Hardened {
    pub(crate) const NEW: Self = Self;

    /// Whether a payload is in quarantine: free for the program, in use for the heap.
    #[inline(always)]
    pub(crate) fn holds<L: FreeList>(&self, heap: &Heap<L>, payload: *const u8) -> bool {
        let _ = (heap, payload);
        false
    }

    /// Looks for writes after a free in all memory that is filled.
    pub(crate) fn check<L: FreeList>(&self, heap: &Heap<L>) -> Result<(), Broken> {
        let _ = heap;
        Ok(())
    }
}

#[cfg(not(feature = "hardened"))]
impl<L: FreeList> Watch<L> for &mut Hardened {}

#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) call: Call,
    pub(crate) size: usize,
    pub(crate) align: usize,
    /// Start of the segment that a `realloc` moves out of.
    pub(crate) from: Option<Granule>,
}

impl Request {
    #[inline(always)]
    pub(crate) fn new(call: Call, layout: Layout) -> Self {
        Self { call, size: layout.size(), align: layout.align(), from: None }
    }

    /// A `realloc` that did not fit in place.
    #[inline(always)]
    pub(crate) fn moving(layout: Layout, new_size: usize, from: Granule) -> Self {
        Self { call: Call::Realloc, size: new_size, align: layout.align(), from: Some(from) }
    }

    #[inline(always)]
    pub(crate) fn is_zeroed(&self) -> bool {
        matches!(self.call, Call::AllocZeroed)
    }
}

/// The way in which a call identified the segment that it frees.
#[derive(Clone, Copy)]
pub(crate) enum Named {
    /// By its pointer.
    Pointer,
    /// By pointer and layout.
    Layout(Layout),
    /// By a `realloc` that moved the payload out of it.
    MovedFrom(Layout),
}

/// A change of size in place.
pub(crate) struct Resize {
    /// The segment before the change.
    pub(crate) segment: Extent,
    pub(crate) layout: Layout,
    pub(crate) new_size: usize,
    /// Whether the bytes added must be zero.
    pub(crate) zeroed: bool,
}

/// The time at which a freed segment becomes free in the heap.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Free {
    Now,
    /// The watcher keeps it and gives it back later.
    #[cfg_attr(not(feature = "hardened"), expect(dead_code, reason = "no other watcher keeps segments"))]
    Later,
}

/// A watcher of the calls on a heap.
pub(crate) trait Watch<L: FreeList> {
    /// Whether calls may take the fast path, which only calls [`freeing`](Self::freeing) and [`placed`](Self::placed).
    const FAST: bool = true;
    const MOVES_PAGES: bool = true;
    /// Whether free pages may be purged.
    const PURGES: bool = true;

    /// A call passed a pointer that has not been looked up yet.
    #[inline(always)]
    fn check_pointer(&mut self, heap: &Heap<L>, payload: *const u8, layout: Option<Layout>) {
        let _ = (heap, payload, layout);
    }

    /// A request was placed or refused.
    #[inline(always)]
    fn placed(&mut self, heap: &Heap<L>, request: &Request, fit: Fit) {
        let _ = (heap, request, fit);
    }

    /// Nothing fits a request. Returns whether the watcher has freed memory, so that a retry may succeed.
    #[inline(always)]
    fn make_room(&mut self, heap: &mut Heap<L>) -> bool {
        let _ = heap;
        false
    }

    #[inline(always)]
    fn freeing(&mut self, heap: &mut Heap<L>, segment: Extent, named: Named) -> Free {
        let _ = (heap, segment, named);
        Free::Now
    }

    /// A segment is about to be resized in place, if it can be.
    #[inline(always)]
    fn resizing(&mut self, heap: &Heap<L>, resize: &Resize) {
        let _ = (heap, resize);
    }

    #[inline(always)]
    fn resized(&mut self, heap: &Heap<L>, resize: &Resize) {
        let _ = (heap, resize);
    }

    /// The call is done, and the heap is about to be released.
    #[inline(always)]
    fn done(&mut self, heap: &Heap<L>) {
        let _ = heap;
    }
}

impl<L: FreeList> Watch<L> for () {}

/// Both watchers, in order.
impl<L: FreeList, A: Watch<L>, B: Watch<L>> Watch<L> for (A, B) {
    const FAST: bool = A::FAST && B::FAST;
    const MOVES_PAGES: bool = A::MOVES_PAGES && B::MOVES_PAGES;
    const PURGES: bool = A::PURGES && B::PURGES;

    #[inline(always)]
    fn check_pointer(&mut self, heap: &Heap<L>, payload: *const u8, layout: Option<Layout>) {
        self.0.check_pointer(heap, payload, layout);
        self.1.check_pointer(heap, payload, layout);
    }

    #[inline(always)]
    fn placed(&mut self, heap: &Heap<L>, request: &Request, fit: Fit) {
        self.0.placed(heap, request, fit);
        self.1.placed(heap, request, fit);
    }

    #[inline(always)]
    fn make_room(&mut self, heap: &mut Heap<L>) -> bool {
        // No short circuit: both make room.
        self.0.make_room(heap) | self.1.make_room(heap)
    }

    #[inline(always)]
    fn freeing(&mut self, heap: &mut Heap<L>, segment: Extent, named: Named) -> Free {
        match self.0.freeing(heap, segment, named) {
            Free::Now => self.1.freeing(heap, segment, named),
            Free::Later => {
                self.1.freeing(heap, segment, named);
                Free::Later
            }
        }
    }

    #[inline(always)]
    fn resizing(&mut self, heap: &Heap<L>, resize: &Resize) {
        self.0.resizing(heap, resize);
        self.1.resizing(heap, resize);
    }

    #[inline(always)]
    fn resized(&mut self, heap: &Heap<L>, resize: &Resize) {
        self.0.resized(heap, resize);
        self.1.resized(heap, resize);
    }

    #[inline(always)]
    fn done(&mut self, heap: &Heap<L>) {
        self.0.done(heap);
        self.1.done(heap);
    }
}

/// Stores the outcome of a call, for callers that want its status.
impl<L: FreeList> Watch<L> for &Cell<Fit> {
    #[inline(always)]
    fn placed(&mut self, _heap: &Heap<L>, _request: &Request, fit: Fit) {
        self.set(fit);
    }

    #[inline(always)]
    fn resized(&mut self, _heap: &Heap<L>, resize: &Resize) {
        self.set(Fit::NONE.at(resize.segment.start));
    }
}
