//! The one seam for everything that watches calls: memory checkers, the feature `hardened`, recordings, the live page.
//!
//! A watcher implements [`Watch`], whose methods do nothing unless it says otherwise. Watchers are composed by type: `(A, B)`
//! tells A, then B. The calls of `calls` are generic over the watcher, so where nobody watches nothing is left of the seam.
//! Every method is called with the heap held, so a watcher must not allocate, panic, or wait for another heap.

mod checkers;
#[cfg(feature = "hardened")]
mod hardened;

pub(crate) use checkers::Checkers;
#[cfg(feature = "hardened")]
pub(crate) use hardened::Hardened;

use crate::free_list::{Fit, FreeList};
use crate::heap::Heap;
use crate::recording::Call;
use crate::region::{Extent, Granule};
use core::alloc::Layout;
use core::cell::Cell;

/// What the feature `hardened` keeps for each heap: nothing, without it.
#[cfg(not(feature = "hardened"))]
pub(crate) struct Hardened;

#[cfg(not(feature = "hardened"))]
impl Hardened {
    pub(crate) const NEW: Self = Self;
}

#[cfg(not(feature = "hardened"))]
impl<L: FreeList> Watch<L> for &mut Hardened {}

/// A request for memory.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) call: Call,
    pub(crate) size: usize,
    pub(crate) align: usize,
    /// Where a `realloc` moves from.
    pub(crate) from: Option<Granule>,
}

impl Request {
    #[inline(always)]
    pub(crate) fn new(call: Call, layout: Layout) -> Self {
        Self { call, size: layout.size(), align: layout.align(), from: None }
    }

    /// A `realloc` that could not be done in place.
    #[inline(always)]
    pub(crate) fn moving(layout: Layout, new_size: usize, from: Granule) -> Self {
        Self { call: Call::Realloc, size: new_size, align: layout.align(), from: Some(from) }
    }

    #[inline(always)]
    pub(crate) fn is_zeroed(&self) -> bool {
        matches!(self.call, Call::AllocZeroed)
    }
}

/// How a call named the segment that it frees.
#[derive(Clone, Copy)]
pub(crate) enum Named {
    /// By its pointer alone.
    Pointer,
    /// With its layout.
    Layout(Layout),
    /// A `realloc` has moved the payload away.
    MovedFrom(Layout),
}

/// A change of size in place.
pub(crate) struct Resize {
    /// Before the change.
    pub(crate) segment: Extent,
    pub(crate) layout: Layout,
    pub(crate) new_size: usize,
    /// The bytes that it grows by are to be zero.
    pub(crate) zeroed: bool,
}

/// When a segment becomes free.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Free {
    Now,
    /// The watcher keeps it, and gives it to the heap some time.
    #[cfg_attr(not(feature = "hardened"), expect(dead_code, reason = "no other watcher keeps segments"))]
    Later,
}

/// Whoever watches the calls on a heap.
pub(crate) trait Watch<L: FreeList> {
    /// Calls may take the fast path, which tells [`freeing`](Self::freeing) and [`placed`](Self::placed) only.
    const FAST: bool = true;
    /// Large payloads may be moved with their pages.
    const MOVES_PAGES: bool = true;
    /// Free pages may be purged.
    const PURGES: bool = true;

    /// A pointer was passed in, and nothing has been made of it yet.
    #[inline(always)]
    fn named(&mut self, heap: &Heap<L>, payload: *const u8, layout: Option<Layout>) {
        let _ = (heap, payload, layout);
    }

    /// A request was placed, or was refused.
    #[inline(always)]
    fn placed(&mut self, heap: &Heap<L>, request: &Request, fit: Fit) {
        let _ = (heap, request, fit);
    }

    /// Nothing fits a request. True where the watcher has freed something, so that it is worth another try.
    #[inline(always)]
    fn starved(&mut self, heap: &mut Heap<L>) -> bool {
        let _ = heap;
        false
    }

    /// A segment is about to be freed.
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

    /// A segment was resized in place.
    #[inline(always)]
    fn resized(&mut self, heap: &Heap<L>, resize: &Resize) {
        let _ = (heap, resize);
    }

    /// The call is over, and the heap is about to be let go.
    #[inline(always)]
    fn done(&mut self, heap: &Heap<L>) {
        let _ = heap;
    }
}

/// Nobody watches.
impl<L: FreeList> Watch<L> for () {}

/// Both watch, the first one first.
impl<L: FreeList, A: Watch<L>, B: Watch<L>> Watch<L> for (A, B) {
    const FAST: bool = A::FAST && B::FAST;
    const MOVES_PAGES: bool = A::MOVES_PAGES && B::MOVES_PAGES;
    const PURGES: bool = A::PURGES && B::PURGES;

    #[inline(always)]
    fn named(&mut self, heap: &Heap<L>, payload: *const u8, layout: Option<Layout>) {
        self.0.named(heap, payload, layout);
        self.1.named(heap, payload, layout);
    }

    #[inline(always)]
    fn placed(&mut self, heap: &Heap<L>, request: &Request, fit: Fit) {
        self.0.placed(heap, request, fit);
        self.1.placed(heap, request, fit);
    }

    #[inline(always)]
    fn starved(&mut self, heap: &mut Heap<L>) -> bool {
        // Both, whatever the first one says.
        self.0.starved(heap) | self.1.starved(heap)
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

/// The outcome of a call, for callers that want its status.
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
