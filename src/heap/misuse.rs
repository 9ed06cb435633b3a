//! Misuse by the program, reported once it is certain: one line, then `abort`.

use super::{Heap, broken, granules};
use crate::free_list::FreeList;
use crate::region::{Extent, GRANULE, Granule};
use crate::system::fatal::fatal;
use core::alloc::Layout;
use core::fmt;

impl<L: FreeList> Heap<L> {
    /// Reports a layout that does not match the segment at the pointer.
    #[cold]
    pub(super) fn wrong_layout(&self, payload: *const u8, layout: Layout, segment: Extent) -> ! {
        if segment.len() != granules(layout.size()) {
            fatal(format_args!(
                "wrong layout: {payload:p} has a segment of {} bytes, the layout of {} bytes (align {}) takes {}",
                segment.bytes(),
                layout.size(),
                layout.align(),
                Granule(granules(layout.size())).bytes()
            ));
        }
        fatal(format_args!("wrong layout: {payload:p} is not aligned to {}", layout.align()))
    }

    /// Reports a pointer at which no segment in use begins, and why.
    #[cold]
    pub(super) fn no_segment(&self, payload: *const u8, layout: Option<Layout>) -> ! {
        let base = self.region().base();
        let offset = payload.addr().wrapping_sub(base.addr());
        let known = self.highest_top().bytes();
        let with = WithLayout(layout);
        if known == 0 {
            fatal(format_args!(
                "foreign pointer: {payload:p} is not from this heap, which has allocated nothing yet{with}"
            ));
        }
        if offset >= known {
            fatal(format_args!(
                "foreign pointer: {payload:p} is outside of the allocated range, {base:p} to {:#x}{with}",
                base.addr().wrapping_add(known)
            ));
        }
        if !offset.is_multiple_of(GRANULE) {
            fatal(format_args!("unaligned pointer: {payload:p} is not a multiple of {GRANULE}{with}"));
        }
        let at = Granule(offset / GRANULE);
        for run in self.runs() {
            match run {
                Ok(run) if run.extent.end <= at => {}
                Ok(run) if run.in_use => fatal(format_args!(
                    "interior pointer: {payload:p} is inside a segment of {} bytes, {} bytes from its start{with}",
                    run.extent.bytes(),
                    Extent::new(run.extent.start, at).bytes()
                )),
                Ok(_) => break,
                Err(bad) => broken(bad.invariant, bad.what, bad.at),
            }
        }
        self.double_free(payload, layout)
    }

    /// Reports a payload that has been freed before.
    #[cold]
    pub(crate) fn double_free(&self, payload: *const u8, layout: Option<Layout>) -> ! {
        fatal(format_args!("double free: {payload:p} is in a free segment{}", WithLayout(layout)))
    }
}

/// The layout that came with a pointer, if any, for the end of a message.
struct WithLayout(Option<Layout>);

impl fmt::Display for WithLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(layout) => write!(f, " (layout of {} bytes)", layout.size()),
            None => Ok(()),
        }
    }
}
