//! The tiling: segment map, free list, counters and dirty marks. All four describe the same segments, so they change
//! together, and only in this file.
//!
//! | verb | from | to |
//! |---|---|---|
//! | [`take`](Tiling::take) | a free segment | a segment in use, and the free rest |
//! | [`extend`](Tiling::extend) | the wilderness | a segment in use at top |
//! | [`give`](Tiling::give) | a segment in use | a part of the free segment, or of the wilderness, around it |
//! | [`cut`](Tiling::cut), [`grow`](Tiling::grow) | a segment in use | the same, shorter or longer |
//!
//! The `_fast` form of a verb handles only segments that one 64-bit window of the map shows whole, and defers work of
//! the list. It may decline; then nothing has changed.

use super::counters::Counters;
#[cfg(doc)]
use crate::free_list::Look;
use crate::free_list::{Deferred, FreeList, Ground};
use crate::pages::Pages;
use crate::region::{CHUNK, Extent, Granule};
use crate::segment_map::{HUGE, NO_END, SHORT, Short};
use core::num::NonZero;

#[derive(Debug)]
// Fields that every call needs come first, to share cache lines.
#[repr(C)]
pub(crate) struct Tiling<L: FreeList> {
    pub(crate) ground: Ground,
    pub(crate) list: L,
    /// Region and tables are committed for segments up to here.
    pub(crate) ready: Granule,
    pub(crate) counters: Counters,
    /// The highest top since the slow path last lowered it. Wilderness below may be dirty though unmarked (P2).
    pub(crate) touched: Granule,
    pub(crate) pages: Pages,
}

impl<L: FreeList> Tiling<L> {
    // ---- taking ----------------------------------------------------------------------------------------------

    /// Takes `n` granules of a chunk from its granule `bit` on, of which it has `seen` free ones: see [`Look::Fits`].
    /// Declines if more than the bits of the chunk has to change.
    #[inline(always)]
    pub(crate) fn take_fast(&mut self, chunk: usize, bit: usize, n: usize, seen: usize) -> bool {
        // A chunk that is free as a whole may be a tag.
        let fast = (seen != NO_END || bit != 0) && self.list.takes_front(chunk, seen);
        if fast {
            self.ground.map.take_in_chunk(chunk, bit, n);
            self.counters.took(n < seen);
        }
        fast
    }

    /// Takes the first `n` granules of the free segment at `start`; the rest stays free.
    #[inline(always)]
    pub(crate) fn take(&mut self, start: Granule, n: usize) {
        let (chunk, bit) = (start.chunk(), start.bit());
        let seen = self.ground.map.free_in_chunk(chunk, bit);
        if n <= seen && bit.wrapping_add(n) < CHUNK && self.take_fast(chunk, bit, n, seen) {
            return;
        }
        if n <= SHORT {
            self.take_across_slow(start, n);
        } else {
            self.take_slow(start, Extent::of(start, n));
        }
    }

    #[inline(never)]
    fn take_across_slow(&mut self, start: Granule, n: usize) {
        self.take_across(start, n);
    }

    /// Takes the first `n` granules of the free segment at `start`, at most [`SHORT`], in whatever chunk the rest
    /// starts.
    #[inline(always)]
    pub(crate) fn take_across(&mut self, start: Granule, n: usize) {
        let part = Extent::of(start, n);
        if !self.ground.map.keeps_tags(start, n) {
            return self.take_slow(start, part);
        }
        let hole = Extent::new(start, self.ground.hole_end(start));
        self.ground.map.take_short(start, n);
        self.counters.took(part.end < hole.end);
        self.list.took(&self.ground, hole, part);
    }

    /// Takes any part of the free segment at `start`; the rests in front and behind stay free.
    #[inline(never)]
    pub(crate) fn take_slow(&mut self, start: Granule, part: Extent) {
        let hole = Extent::new(start, self.ground.hole_end(start));
        self.ground.map.take(hole, part);
        self.counters.took(part.end < hole.end);
        if part.start > start {
            self.counters.padded();
        }
        self.report_huge(part);
        self.list.took(&self.ground, hole, part);
    }

    /// Takes `n` granules of the wilderness, at most [`SHORT`], which are committed. Returns their start.
    #[inline(always)]
    pub(crate) fn extend_fast(&mut self, n: usize) -> Granule {
        let from = self.ground.top;
        self.ground.map.take_short(from, n);
        self.counters.extended();
        self.ground.top = from.up(n);
        from
    }

    /// Takes a committed part of the wilderness. Padding between top and the part becomes a free segment.
    pub(crate) fn extend(&mut self, part: Extent) {
        let padding = Extent::new(self.ground.top, part.start);
        self.ground.map.take_wilderness(part);
        self.counters.extended();
        self.ground.top = part.end;
        if !padding.is_empty() {
            self.ground.map.note_hole(padding);
            self.counters.padded();
            self.appeared(padding, padding);
        }
        self.report_huge(part);
    }

    /// Tells the list of a huge segment: the map's words inside it are not valid, so no search may look there.
    fn report_huge(&mut self, segment: Extent) {
        if segment.len() >= HUGE {
            self.list.covered(&self.ground, segment);
        }
    }

    // ---- giving ----------------------------------------------------------------------------------------------

    /// Frees a segment whose free neighbours one window shows. Returns the work that the list has deferred.
    #[inline(always)]
    pub(crate) fn give_fast(&mut self, short: Short) -> Option<Deferred> {
        let Short { at, n, below, above, .. } = short;
        let below = NonZero::new(below)?.leading_zeros() as usize;
        let start = at.down(below);
        if above == 0 {
            if at.up(n) != self.ground.top {
                return None;
            }
            self.ground.map.give_found(short);
            self.counters.freed(n);
            self.counters.gave(below != 0, true);
            return Some(self.lower_top(at, start));
        }
        self.ground.map.give_found(short);
        self.counters.freed(n);
        let behind = above.trailing_zeros() as usize;
        self.counters.gave(below != 0, n < behind);
        Some(self.list.gave(&self.ground, Extent::new(start, at.up(behind)), Extent::of(at, n)))
    }

    #[inline(always)]
    pub(crate) fn settle(&mut self, deferred: Deferred) {
        self.list.settle(&self.ground, deferred);
    }

    /// Frees a segment of at most [`SHORT`] granules next to a free segment that one window does not show whole.
    /// `below` and `above` are those of [`Short`].
    #[inline(always)]
    pub(crate) fn give_seen(&mut self, at: Granule, n: usize, below: u64, above: u64) {
        let end = if above != 0 {
            at.up(above.trailing_zeros() as usize)
        } else {
            self.ground.map.hole_end(at.up(n), self.ground.top)
        };
        self.join(Extent::new(self.start_below(at, below), end), at, n.min(SHORT));
    }

    /// Frees a segment and coalesces it with its free neighbours.
    #[inline(always)]
    pub(crate) fn give(&mut self, segment: Extent) {
        let start = self.start_below(segment.start, self.ground.map.used_below(segment.start));
        self.join(Extent::new(start, self.ground.hole_end(segment.end)), segment.start, segment.len());
    }

    /// The start of the free segment that ends at `at`, or `at` itself. `below` is the map's window.
    #[inline(always)]
    fn start_below(&self, at: Granule, below: u64) -> Granule {
        if below == 0 { self.ground.map.hole_start(at) } else { at.down(below.leading_zeros() as usize) }
    }

    /// Frees the segment of `n` granules at `at`, which makes all of `hole` one free segment.
    #[inline(always)]
    fn join(&mut self, hole: Extent, at: Granule, n: usize) {
        self.counters.freed(n);
        let segment = Extent::of(at, n);
        if segment.end == self.ground.top {
            self.ground.map.give_to_wilderness(hole.start, segment);
            return self.joined_wilderness(at, hole.start);
        }
        if n <= SHORT && self.ground.map.can_give_short(hole.start, segment.end, hole.end) {
            self.ground.map.give_short(at, n);
        } else {
            self.ground.map.give(hole, segment);
        }
        self.counters.gave(hole.start < at, segment.end < hole.end);
        self.appeared(hole, segment);
    }

    /// Tells the list that `part` has become free within `hole`, and marks its pages.
    #[inline(always)]
    fn appeared(&mut self, hole: Extent, part: Extent) {
        let deferred = self.list.gave(&self.ground, hole, part);
        self.settle(deferred);
        self.mark_freed(part);
    }

    /// Handles a free of `at..top`: it becomes wilderness, together with the free segment `start..at`.
    #[inline(always)]
    fn joined_wilderness(&mut self, at: Granule, start: Granule) {
        self.counters.gave(start < at, true);
        let deferred = self.lower_top(at, start);
        self.settle(deferred);
        self.mark_wilderness(at);
    }

    /// Lowers top to `start`, the start of the free segment `start..at`, which may be empty.
    #[inline(always)]
    fn lower_top(&mut self, at: Granule, start: Granule) -> Deferred {
        self.counters.usage.top_fell(self.ground.top);
        self.touched = self.touched.max(self.ground.top);
        let from = core::mem::replace(&mut self.ground.top, start);
        self.list.top_fell(&self.ground, from, start, at)
    }

    // ---- resizing --------------------------------------------------------------------------------------------

    /// Frees the tail of a segment in use, from `to` on.
    #[inline(always)]
    pub(crate) fn cut(&mut self, segment: Extent, to: Granule) {
        let Extent { start: at, end } = segment;
        self.counters.cut(end.above(to));
        if end == self.ground.top {
            self.ground.map.move_end_at_top(at, end, to);
            return self.joined_wilderness(to, to);
        }
        let hole_end = self.ground.hole_end(end);
        self.ground.map.move_end(at, end, to, hole_end);
        self.counters.gave(false, end < hole_end);
        self.appeared(Extent::new(to, hole_end), Extent::new(to, end));
    }

    /// Moves the end of a segment up to `to`, into the free segment behind it, or at top into the committed wilderness.
    /// False, and nothing has changed, if that free segment is too small.
    #[inline(always)]
    pub(crate) fn grow(&mut self, segment: Extent, to: Granule) -> bool {
        let Extent { start: at, end } = segment;
        if end == self.ground.top {
            self.ground.map.move_end_at_top(at, end, to);
            self.ground.top = to;
        } else {
            let hole_end = self.ground.hole_end(end);
            if hole_end < to {
                return false;
            }
            self.ground.map.move_end(at, end, to, hole_end);
            self.counters.grew_into_hole();
            self.counters.took(to < hole_end);
            self.report_growth(segment, to);
            self.list.took(&self.ground, Extent::new(end, hole_end), Extent::new(end, to));
            return true;
        }
        self.report_growth(segment, to);
        true
    }

    /// Tells the list by how much a segment has grown if it is huge now.
    fn report_growth(&mut self, before: Extent, to: Granule) {
        if to.above(before.start) >= HUGE {
            // The words of the last chunk of a huge segment were valid until now.
            let from = if before.len() >= HUGE { before.end.down(CHUNK + 1) } else { before.start };
            self.list.covered(&self.ground, Extent::new(from, to));
        }
    }

    // ---- dirty marks -----------------------------------------------------------------------------------------

    /// Marks a freed part of a hole.
    #[inline(always)]
    fn mark_freed(&mut self, part: Extent) {
        // If a hole began at the part's end, the list's links there are now inside the larger hole.
        self.pages.mark_dirty(Extent::new(part.start, part.end.up(L::LINKS).min(self.ground.top)));
    }

    /// Marks the dirty part of the wilderness after the slow path has lowered top. Pages below `at`, where a hole
    /// joined the wilderness, are marked already.
    #[inline(always)]
    pub(crate) fn mark_wilderness(&mut self, at: Granule) {
        self.pages.mark_dirty(Extent::new(at, self.touched));
        if self.ground.top < at {
            // The list's links at the start of that hole.
            self.pages.mark_dirty(Extent::of(self.ground.top, L::LINKS));
        }
        self.touched = self.ground.top;
    }
}
