//! What a program did wrong, found out once it is certain that it did: writes one line and aborts.

use super::{Heap, broken, granules};
use crate::fatal::fatal;
use crate::free_list::FreeList;
use crate::region::{GRANULE, Granule};
use crate::segment_map::HUGE;
use core::alloc::Layout;
use core::fmt;

impl<L: FreeList> Heap<L> {
    /// The segment that a pointer and its layout name: its start, and its granules. Ends the process if they name none.
    #[inline]
    pub(crate) fn segment_of(&self, payload: *const u8, layout: Layout) -> (Granule, usize) {
        match self.segment_at_once(payload, layout) {
            Some(short) => (short.at, short.n),
            None => self.segment_of_any(payload, layout),
        }
    }

    /// The same for what is not found [at once](Self::segment_at_once), in the caller's frame.
    #[inline(always)]
    pub(crate) fn segment_of_long(&self, payload: *const u8, layout: Layout) -> (Granule, usize) {
        let (at, n) = (self.ground.region.granule(payload), granules(layout.size()));
        let aligned = payload.addr() & layout.align().wrapping_sub(1) == 0;
        let inside = at < self.ground.top && n < HUGE.min(self.ground.top.above(at).wrapping_add(1));
        if aligned && inside && self.ground.map.is_segment(at, at.up(n)) {
            return (at, n);
        }
        self.segment_of_any(payload, layout)
    }

    /// The same for any segment, and for what names none.
    #[inline(never)]
    fn segment_of_any(&self, payload: *const u8, layout: Layout) -> (Granule, usize) {
        let (at, n) = self.segment_at(payload, Some(layout));
        if n != granules(layout.size()) {
            fatal(format_args!(
                "wrong layout: {payload:p} has a segment of {} bytes, the layout of {} bytes (align {}) takes {}",
                n.wrapping_mul(GRANULE),
                layout.size(),
                layout.align(),
                granules(layout.size()).wrapping_mul(GRANULE)
            ));
        }
        if payload.addr() & layout.align().wrapping_sub(1) != 0 {
            fatal(format_args!("wrong layout: {payload:p} is not aligned to {}", layout.align()));
        }
        (at, n)
    }

    /// The segment in use that begins at a pointer: its start, and its granules. Ends the process if none does.
    pub(crate) fn segment_at(&self, payload: *const u8, layout: Option<Layout>) -> (Granule, usize) {
        let at = self.ground.region.granule(payload);
        if at < self.ground.top && self.ground.map.is_head(at) {
            return (at, self.ground.map.used_end(at).above(at));
        }
        self.no_segment(payload, layout)
    }

    /// No segment in use begins at the pointer: says why.
    #[cold]
    fn no_segment(&self, payload: *const u8, layout: Option<Layout>) -> ! {
        let base = self.ground.region.base();
        let offset = payload.addr().wrapping_sub(base.addr());
        let known = self.highest_top().bytes();
        let of = Of(layout);
        if base.is_null() || offset >= known {
            fatal(format_args!(
                "foreign pointer: {payload:p} is not in the region {base:p} to {:#x}{of}",
                base.addr().wrapping_add(known)
            ));
        }
        if !offset.is_multiple_of(GRANULE) {
            fatal(format_args!("unaligned pointer: {payload:p} is not a multiple of {GRANULE}{of}"));
        }
        let at = Granule(offset / GRANULE);
        for run in self.runs() {
            match run {
                Ok(run) if run.end <= at => {}
                Ok(run) if run.in_use => fatal(format_args!(
                    "interior pointer: {payload:p} is inside a segment of {} bytes, {} bytes from its start{of}",
                    run.end.above(run.start).wrapping_mul(GRANULE),
                    at.above(run.start).wrapping_mul(GRANULE)
                )),
                Ok(_) => break,
                Err(bad) => broken(bad.invariant, bad.what, bad.at),
            }
        }
        self.double_free(payload, layout)
    }

    /// What the pointer and its layout name has been freed before.
    #[cold]
    pub(crate) fn double_free(&self, payload: *const u8, layout: Option<Layout>) -> ! {
        fatal(format_args!("double free: {payload:p} is in a free segment{}", Of(layout)))
    }
}

/// The layout that came with a pointer, if one did, as it stands at the end of a message.
struct Of(Option<Layout>);

impl fmt::Display for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(layout) => write!(f, " (layout of {} bytes)", layout.size()),
            None => Ok(()),
        }
    }
}
