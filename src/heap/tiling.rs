//! The tiling: segment map, free list, counters and dirty marks. They say the same four times over, so they change
//! together, and only here.
//!
//! | verb | from | to |
//! |---|---|---|
//! | [`take`](Tiling::take) | a free segment | a segment in use, and what is left of the free one |
//! | [`extend`](Tiling::extend) | the wilderness | a segment in use at top |
//! | [`give`](Tiling::give) | a segment in use | a part of the free segment, or of the wilderness, around it |
//! | [`cut`](Tiling::cut), [`grow`](Tiling::grow) | a segment in use | the same, shorter or longer |
//!
//! The `_fast` form of a verb does what one 64-bit window of the map shows and puts work of the list off; it may decline,
//! and then nothing has changed.

use super::counters::Counters;
use crate::free_list::{Deferred, FreeList, Ground, Rest};
use crate::pages::Pages;
use crate::region::{CHUNK, Extent, Granule};
use crate::segment_map::{HUGE, MORE, SHORT, Short};

#[derive(Debug)]
// In this order, what every call needs shares the first cache lines.
#[repr(C)]
pub(crate) struct Tiling<L: FreeList> {
    pub(crate) ground: Ground,
    pub(crate) list: L,
    /// Region and tables are open for segments up to here.
    pub(crate) ready: Granule,
    pub(crate) counters: Counters,
    /// The highest that top has been since it last came down by the slow path: above it and above top, pages that are not
    /// marked are zero (P2).
    pub(crate) touched: Granule,
    pub(crate) pages: Pages,
}

/// What is left of a free segment, of which one window shows `seen` granules, when `n` of them are taken.
#[inline(always)]
const fn rest(n: usize, seen: usize) -> Rest {
    if seen == MORE { Rest::Long } else { Rest::Exact(seen.wrapping_sub(n)) }
}

impl<L: FreeList> Tiling<L> {
    // ---- taking ----------------------------------------------------------------------------------------------

    /// Takes the first `n` granules of the free segment at `start`, of which one window shows `seen`, where nothing but
    /// bits changes: neither tags nor the list.
    #[inline(always)]
    pub(crate) fn take_fast(&mut self, start: Granule, n: usize, seen: usize) -> bool {
        let silent = (seen != MORE || self.ground.map.keeps_tags(start, n))
            && self.list.is_unmoved(start, start.up(n), rest(n, seen));
        if silent {
            self.ground.map.take_short(start, n);
            self.counters.took(n < seen);
        }
        silent
    }

    /// Takes the first `n` granules of the free segment at `start`; the rest stays free.
    #[inline(always)]
    pub(crate) fn take(&mut self, start: Granule, n: usize) {
        if n <= SHORT {
            let seen = self.ground.map.free_from(start);
            if seen != MORE || self.ground.map.keeps_tags(start, n) {
                self.ground.map.take_short(start, n);
                self.counters.took(n < seen);
                self.list.took(&self.ground, start, Extent::of(start, n), rest(n, seen));
                return;
            }
        }
        self.take_slow(start, Extent::of(start, n));
    }

    /// Takes any part of the free segment at `start`; what is left in front and behind stays free.
    #[inline(never)]
    pub(crate) fn take_slow(&mut self, start: Granule, part: Extent) {
        let hole = Extent::new(start, self.ground.map.hole_end(start, self.ground.top));
        self.ground.map.take(hole, part);
        self.counters.took(part.end < hole.end);
        if part.start > start {
            self.counters.padded();
        }
        self.list.took(&self.ground, start, part, Rest::Exact(hole.end.above(part.end)));
        self.cover(part);
    }

    /// Takes `n` granules of the wilderness, at most [`SHORT`] and what is ready. Returns where they begin.
    #[inline(always)]
    pub(crate) fn extend_fast(&mut self, n: usize) -> Granule {
        let from = self.ground.top;
        self.ground.map.take_short(from, n);
        self.counters.extended();
        self.ground.top = from.up(n);
        from
    }

    /// Takes a part of the wilderness, which is ready. What lies between top and its start becomes a free segment.
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
        self.cover(part);
    }

    /// Tells the list of a segment that is so large that the map does not keep the words inside it.
    fn cover(&mut self, segment: Extent) {
        if segment.len() >= HUGE {
            self.list.covered(segment);
        }
    }

    // ---- giving ----------------------------------------------------------------------------------------------

    /// Frees a segment where one window shows its free neighbours, and says what the list has put off.
    #[inline(always)]
    pub(crate) fn give_fast(&mut self, short: Short) -> Option<Deferred> {
        let Short { at, n, below, above, .. } = short;
        let at_top = above == 0 && at.up(n) == self.ground.top;
        if below == 0 || (above == 0 && !at_top) {
            return None;
        }
        self.ground.map.give_seen(short);
        self.counters.freed(n);
        let below = below.leading_zeros() as usize;
        let start = at.down(below);
        if at_top {
            self.counters.gave(below != 0, true);
            return Some(self.lower_top(at, start));
        }
        let behind = above.trailing_zeros() as usize;
        self.counters.gave(below != 0, n < behind);
        Some(self.list.gave(&self.ground, Extent::new(start, at.up(behind)), Extent::of(at, n)))
    }

    /// Does what the list has put off.
    #[inline(always)]
    pub(crate) fn settle(&mut self, deferred: Deferred) {
        self.list.settle(deferred);
    }

    /// Frees a segment of at most [`SHORT`] granules beside a free segment that one window does not show whole. `below` and
    /// `above` are those of [`Short`].
    #[inline(always)]
    pub(crate) fn give_seen(&mut self, at: Granule, n: usize, below: u64, above: u64) {
        let end = if above != 0 {
            at.up(above.trailing_zeros() as usize)
        } else {
            self.ground.map.hole_end(at.up(n), self.ground.top)
        };
        self.join(Extent::new(self.start_below(at, below), end), at, n.min(SHORT));
    }

    /// Frees a segment and joins it with its free neighbours.
    #[inline(always)]
    pub(crate) fn give(&mut self, segment: Extent) {
        let start = self.start_below(segment.start, self.ground.map.used_below(segment.start));
        self.join(Extent::new(start, self.hole_end_behind(segment.end)), segment.start, segment.len());
    }

    /// Where what is free begins below `at`. `below` is the map's window.
    #[inline(always)]
    fn start_below(&self, at: Granule, below: u64) -> Granule {
        if below == 0 { self.ground.map.hole_start(at) } else { at.down(below.leading_zeros() as usize) }
    }

    /// Where the free segment below top that begins at `end` ends; `end` itself where there is none.
    #[inline(always)]
    fn hole_end_behind(&self, end: Granule) -> Granule {
        if self.ground.map.is_free(end) { self.ground.map.hole_end(end, self.ground.top) } else { end }
    }

    /// Frees the segment of `n` granules at `at`, with which all of `hole` becomes one free segment.
    #[inline(always)]
    fn join(&mut self, hole: Extent, at: Granule, n: usize) {
        self.counters.freed(n);
        let segment = Extent::of(at, n);
        if segment.end == self.ground.top {
            self.ground.map.give_to_wilderness(hole.start, segment);
            return self.joined_wilderness(at, hole.start);
        }
        if n <= SHORT && self.ground.map.gives_short(hole.start, segment.end, hole.end) {
            self.ground.map.give_short(at, n);
        } else {
            self.ground.map.give(hole, segment);
        }
        self.counters.gave(hole.start < at, segment.end < hole.end);
        self.appeared(hole, segment);
    }

    /// After a part of `hole` became free: tells the list, and marks its pages.
    #[inline(always)]
    fn appeared(&mut self, hole: Extent, part: Extent) {
        let deferred = self.list.gave(&self.ground, hole, part);
        self.settle(deferred);
        self.soil(part);
    }

    /// After what lies between `at` and top became free: it is wilderness now, with the free segment `start..at`.
    #[inline(always)]
    fn joined_wilderness(&mut self, at: Granule, start: Granule) {
        self.counters.gave(start < at, true);
        let deferred = self.lower_top(at, start);
        self.settle(deferred);
        self.soil_wilderness(at);
    }

    /// Lets the wilderness begin at `start`, where a free segment `start..at` was, if it is not empty.
    #[inline(always)]
    fn lower_top(&mut self, at: Granule, start: Granule) -> Deferred {
        self.counters.usage.top_fell(self.ground.top);
        self.touched = self.touched.max(self.ground.top);
        let from = core::mem::replace(&mut self.ground.top, start);
        self.list.top_fell(&self.ground, from, start, start < at)
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
        let hole_end = self.hole_end_behind(end);
        self.ground.map.move_end(at, end, to, hole_end);
        self.counters.gave(false, end < hole_end);
        self.appeared(Extent::new(to, hole_end), Extent::new(to, end));
    }

    /// Lets a segment in use grow up to `to`, into the free segment behind it; or at top into the wilderness, which is
    /// ready so far. False, and nothing has changed, where that free segment is too small.
    #[inline(always)]
    pub(crate) fn grow(&mut self, segment: Extent, to: Granule) -> bool {
        let Extent { start: at, end } = segment;
        if end == self.ground.top {
            self.ground.map.move_end_at_top(at, end, to);
            self.ground.top = to;
        } else {
            let hole_end = self.hole_end_behind(end);
            if hole_end < to {
                return false;
            }
            self.ground.map.move_end(at, end, to, hole_end);
            self.counters.grew_into_hole();
            self.counters.took(to < hole_end);
            self.list.took(&self.ground, end, Extent::new(end, to), Rest::Exact(hole_end.above(to)));
        }
        self.cover_more(segment, to);
        true
    }

    /// Tells the list of what a segment has grown by, if the map does not keep the words inside it.
    fn cover_more(&mut self, before: Extent, to: Granule) {
        if to.above(before.start) >= HUGE {
            // The last chunk of what was huge before has been kept until now.
            let from = if before.len() >= HUGE { before.end.down(CHUNK + 1) } else { before.start };
            self.list.covered(Extent::new(from, to));
        }
    }

    // ---- dirty marks -----------------------------------------------------------------------------------------

    /// Marks what was freed and is part of a hole now.
    #[inline(always)]
    fn soil(&mut self, part: Extent) {
        // If a hole began where the part ends, what the list wrote there lies inside of one now.
        self.pages.soil(Extent::new(part.start, part.end.up(L::LINKS).min(self.ground.top)));
    }

    /// After top came down by the slow path. Below `at`, where a hole joined the wilderness, pages are marked already.
    #[inline(always)]
    pub(crate) fn soil_wilderness(&mut self, at: Granule) {
        self.pages.soil(Extent::new(at, self.touched));
        if self.ground.top < at {
            // What the list wrote where that hole began.
            self.pages.soil(Extent::of(self.ground.top, L::LINKS));
        }
        self.touched = self.ground.top;
    }
}
