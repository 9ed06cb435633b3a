//! Memory checkers as a watcher: they learn of every payload that is handed out, comes back, or is resized in place.

use super::{Free, Named, Request, Resize, Watch};
use crate::checkers::{self, ACTIVE};
use crate::free_list::{Fit, FreeList};
use crate::heap::Heap;
use crate::region::{Extent, Granule};

/// AddressSanitizer and memcheck, if the features for them are on.
pub(crate) struct Checkers;

impl<L: FreeList> Watch<L> for Checkers {
    // Checkers keep notes by address, which would not move along.
    const MOVES_PAGES: bool = !ACTIVE;

    #[inline(always)]
    fn placed(&mut self, heap: &Heap<L>, request: &Request, fit: Fit) {
        if ACTIVE && let Some(at) = fit.start() {
            checkers::given(heap.region().pointer(at), request.size, request.is_zeroed());
        }
    }

    /// Told while the payload is nobody else's yet.
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

    /// Told before the tail is anybody else's.
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
