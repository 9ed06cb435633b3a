//! The watcher that tells memory checkers of payloads handed out, freed and resized in place.

use super::{Free, Named, Request, Resize, Watch};
use crate::checkers::{self, ACTIVE};
use crate::free_list::{Fit, FreeList};
use crate::heap::Heap;
use crate::region::{Extent, Granule};

pub(crate) struct Checkers;

impl<L: FreeList> Watch<L> for Checkers {
    // Checkers keep state by address, which does not move with a page.
    const MOVES_PAGES: bool = !ACTIVE;

    #[inline(always)]
    fn placed(&mut self, heap: &Heap<L>, request: &Request, fit: Fit) {
        if ACTIVE && let Some(at) = fit.start() {
            checkers::given(heap.region().pointer(at), request.size, request.is_zeroed());
        }
    }

    /// Runs before another thread can get the payload.
    #[inline(always)]
    fn freeing(&mut self, heap: &mut Heap<L>, segment: Extent, named: Named) -> Free {
        if ACTIVE {
            let size = match named {
                Named::Pointer => segment.bytes(),
                Named::Layout(layout) | Named::MovedFrom(layout) => layout.size(),
            };
            checkers::back(heap.region().pointer(segment.start), size);
        }
        Free::Now
    }

    /// Runs before another thread can get the released tail.
    #[inline(always)]
    fn resized(&mut self, heap: &Heap<L>, resize: &Resize) {
        if ACTIVE {
            let payload = heap.region().pointer(resize.segment.start);
            checkers::resized(payload, resize.layout.size(), resize.new_size);
            let grown = resize.new_size.saturating_sub(resize.segment.bytes());
            if resize.zeroed && grown > 0 {
                let end: Granule = resize.segment.end;
                checkers::zeroed(heap.region().bytes(end.bytes(), grown));
            }
        }
    }
}
