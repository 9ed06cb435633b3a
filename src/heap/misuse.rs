//! What a program did wrong, found out once it is certain that it did: writes one line and aborts.

use super::{Heap, broken, granules, is_aligned};
use crate::free_list::FreeList;
use crate::region::{GRANULE, Granule};
use crate::segment_map::HUGE;
use crate::system::fatal::fatal;
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
        // Below top, and not huge, so that its end does not wrap.
        let inside = at < self.ground.top && n < HUGE && at.up(n) <= self.ground.top;
        if inside && is_aligned(payload, layout) && self.ground.map.is_segment(at, at.up(n)) {
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
        if !is_aligned(payload, layout) {
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
        if known == 0 {
            fatal(format_args!("foreign pointer: {payload:p} was not allocated, as nothing was{of}"));
        }
        if offset >= known {
            fatal(format_args!(
                "foreign pointer: {payload:p} is not in what was allocated so far, {base:p} to {:#x}{of}",
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

#[cfg(test)]
mod tests {
    use crate::Heap;
    use crate::region::{CHUNK, GRANULE, Granule};
    use crate::segment_map::HUGE;
    use core::alloc::Layout;
    use std::vec::Vec;

    /// Of all pairs of places where something begins or ends, or beside them, those are segments in use that the walk over
    /// the heap knows.
    #[test]
    fn what_is_no_segment_in_use_is_not_taken_for_one() {
        let mut heap = Heap::<crate::Indexed>::with_region_size(8 << 20).unwrap();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut below = |n: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % n as u64) as usize
        };
        let sizes =
            [1, 3, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 7, HUGE - 1, HUGE, HUGE + CHUNK];
        let mut blocks: Vec<_> = (0..120)
            .map(|_| {
                let n = sizes[below(sizes.len())] + below(2);
                heap.smalloc(Layout::from_size_align(n * GRANULE, 1).unwrap()).0.unwrap()
            })
            .collect();
        for _ in 0..50 {
            // SAFETY: the block is in use, and is no longer known afterwards.
            unsafe { heap.sfree(blocks.swap_remove(below(blocks.len()))) };
        }
        assert_eq!(heap.check(), Ok(()));
        let in_use: Vec<_> =
            heap.runs().flatten().filter(|run| run.in_use).map(|run| (run.start, run.end)).collect();
        let ends = heap.runs().flatten().flat_map(|run| [run.start.0, run.end.0]);
        let mut places: Vec<_> = ends.flat_map(|at| at.saturating_sub(1)..=at + 1).map(Granule).collect();
        // Where a huge segment keeps its end.
        let huge = in_use.iter().filter(|(at, to)| to.above(*at) >= HUGE);
        places.extend(huge.flat_map(|(at, _)| (0..CHUNK).map(|bit| Granule((at.chunk() + 2) * CHUNK + bit))));
        places.retain(|&at| at <= heap.ground.top);
        places.sort_unstable();
        places.dedup();
        let mut found = 0;
        for (index, &at) in places.iter().enumerate() {
            for &to in places.iter().skip(index + 1).take_while(|to| to.above(at) < HUGE) {
                let is_one = heap.ground.map.is_segment(at, to);
                assert_eq!(is_one, in_use.contains(&(at, to)), "{at:?} to {to:?}");
                found += usize::from(is_one);
            }
        }
        assert_eq!(found, in_use.iter().filter(|(at, to)| to.above(*at) < HUGE).count());
    }
}
