//! The heap's policy: search, split, coalesce, grow. Single-threaded; `SmallocGlobal` puts it behind a lock.
//!
//! ```text
//!  0                                                    top          ready            end
//!  | A | B |  hole  | C |hole| D |        hole       | E |  wilderness |   PROT_NONE  |
//! ```
//!
//! A request takes the lowest free segment that can hold it ([`Heap::place`]), what is left of that segment stays
//! free, and freeing joins both neighbours at once ([`Heap::give_back`]). The wilderness above `top` is the last free
//! segment; a free segment that touches it becomes part of it by lowering `top`.
//!
//! What happens most happens in a few instructions, inline: requests of a few granules that fit where a first look
//! points, and segments whose neighbours are seen whole in one 64-bit window of the map when they are freed: the
//! `*_at_once` functions. [`Heap::place_searching`] and [`Heap::give_back`] do the same for any size. They are one
//! algorithm, and the tests hold them against the same oracle.

mod aligned;
mod check;
mod counters;
mod grow;
mod lent;
mod misuse;
mod public;
mod purge;
mod resize;
mod statistics;
mod transfer;
mod usage;
mod walk;
mod zeroed;

pub(crate) use crate::segment_map::Short;
pub use check::Corruption;
pub(crate) use grow::map_side_by_side;
pub use public::MallocStatus;
pub(crate) use purge::Purge;
pub(crate) use transfer::LEAST_TRANSFER;
#[cfg(feature = "hardened")]
pub(crate) use usage::Peaks;

use crate::checkers::{self, ACTIVE};
pub(crate) use crate::free_list::Owed;
use crate::free_list::{Fit, FreeList, Ground, Indexed, LARGEST_LOOK, Look, Rest};
use crate::pages::Pages;
use crate::region::{GRANULE, Granule, Region, Reservation};
use crate::segment_map::{HUGE, MORE, SHORT, SegmentMap};
use crate::system::fatal::fatal;
use core::alloc::Layout;
use counters::Counters;
use purge::Thrift;
use usage::OlderPeaks;

/// A first-fit heap of its own: one region, one thread at a time.
///
/// It is what [`SmallocGlobal`](crate::SmallocGlobal) guards with a lock, for tests, replays, and programs that want an
/// arena. The region is reserved when the heap is made and unmapped when it is dropped.
///
/// ```
/// use core::alloc::Layout;
/// use smalloc::{Heap, Indexed};
///
/// let mut heap = Heap::<Indexed>::with_region_size(1 << 20)?;
/// let layout = Layout::from_size_align(100, 8).unwrap();
/// let (block, status) = heap.smalloc(layout);
/// assert_eq!(status.payload_offset, Some(0));
/// unsafe { heap.sfree(block.unwrap()) };
/// assert_eq!(heap.stats().free_segments, 1);
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Debug)]
// In this order, what every call needs shares the first cache lines.
#[repr(C)]
pub struct Heap<L: FreeList = Indexed> {
    ground: Ground,
    list: L,
    /// Region and tables are open for segments up to here.
    ready: Granule,
    counters: Counters,
    /// The highest that top has been since it last came down by the long way: above it and above top, pages that are not
    /// marked are zero (P2).
    touched: Granule,
    pages: Pages,
    thrift: Thrift,
    /// Top does not rise above this.
    limit: Granule,
    reservation: Reservation,
    older_peaks: OlderPeaks,
}

/// Why a request was not placed at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The first look was in vain: the search goes on from there.
    Looked,
    /// There was no first look, or what it found takes more than a few instructions.
    Other,
}

/// Granules that a request of `size` bytes takes: at least one.
#[inline(always)]
pub(crate) const fn granules(size: usize) -> usize {
    // A Layout's size is at most isize::MAX, so the sum does not wrap.
    let n = size.wrapping_add(GRANULE - 1) / GRANULE;
    if n == 0 { 1 } else { n }
}

/// Whether a payload lies where its layout wants it.
#[inline(always)]
pub(crate) fn is_aligned(payload: *const u8, layout: Layout) -> bool {
    payload.addr() & layout.align().wrapping_sub(1) == 0
}

/// Tells the compiler that the branch it stands in is seldom taken, and not worth joining with another.
#[cold]
#[inline]
const fn cold() {}

/// What is left of a free segment, of which one window shows `seen` granules, when `n` of them are taken.
#[inline(always)]
const fn rest(n: usize, seen: usize) -> Rest {
    if seen == MORE { Rest::Long } else { Rest::Exact(seen.wrapping_sub(n)) }
}

impl<L: FreeList> Heap<L> {
    /// A heap without a region.
    pub(crate) const UNMAPPED: Self = Self {
        ground: Ground { map: SegmentMap::NONE, region: Region::NONE, top: Granule(0) },
        list: L::EMPTY,
        ready: Granule(0),
        counters: Counters::ZERO,
        touched: Granule(0),
        pages: Pages::NONE,
        thrift: Thrift::NEW,
        limit: Granule(usize::MAX),
        reservation: Reservation::NONE,
        older_peaks: OlderPeaks::NONE,
    };

    /// The heap without what the feature `hardened` adds.
    #[cfg(not(feature = "hardened"))]
    pub(crate) fn bare(&mut self) -> &mut Self {
        self
    }

    #[inline(always)]
    pub(crate) fn region(&self) -> &Region {
        &self.ground.region
    }

    // ---- allocation ------------------------------------------------------------------------------------------

    /// Places a request: the lowest free segment that can hold it, else the wilderness, else nothing.
    #[inline(always)]
    pub(crate) fn place(&mut self, size: usize, align: usize) -> Fit {
        match self.place_at_once(size, align) {
            Ok(start) => Fit::NONE.at(start),
            Err(missed) => self.place_searching(size, align, missed),
        }
    }

    /// Places a request where the first look settles it and one window shows it. Else nothing has changed.
    #[inline(always)]
    pub(crate) fn place_at_once(&mut self, size: usize, align: usize) -> Result<Granule, Missed> {
        let n = granules(size);
        if align > GRANULE || n > LARGEST_LOOK {
            cold();
            return Err(Missed::Other);
        }
        let start = match self.list.look(&self.ground, n) {
            Look::Fits(start, seen) => {
                if !self.takes_silently(start, n, seen) {
                    return Err(Missed::Other);
                }
                self.ground.map.take_short(start, n);
                self.counters.took(n < seen);
                start
            }
            Look::Wilderness => {
                if n > self.ready.above(self.ground.top) {
                    return Err(Missed::Other);
                }
                self.extend_at_once(n)
            }
            Look::Search => return Err(Missed::Looked),
        };
        self.counters.placed(size, n, 0);
        Ok(start)
    }

    /// Whether nothing but bits changes when a request takes `n` granules of the free segment at `start`, of which one
    /// window shows `seen`: neither tags nor the list.
    #[inline(always)]
    fn takes_silently(&self, start: Granule, n: usize, seen: usize) -> bool {
        (seen != MORE || self.ground.map.keeps_tags(start, n))
            && self.list.is_unmoved(start, start.up(n), rest(n, seen))
    }

    /// Places any request that was not placed at once.
    #[inline(never)]
    pub(crate) fn place_searching(&mut self, size: usize, align: usize, missed: Missed) -> Fit {
        match missed {
            Missed::Looked => self.place_after_look(size),
            Missed::Other => self.place_any(size, align),
        }
    }

    /// Places any request, without a look before the search.
    #[inline(always)]
    pub(crate) fn place_any(&mut self, size: usize, align: usize) -> Fit {
        if align > GRANULE {
            return self.place_aligned(size, align);
        }
        let n = granules(size);
        let fit = self.list.search(&self.ground, n);
        self.place_found(size, n, fit)
    }

    /// Places a request for which the first look was in vain.
    #[inline(always)]
    pub(crate) fn place_after_look(&mut self, size: usize) -> Fit {
        // There is no look for more. Knowing this, the compiler drops what only larger requests need.
        let n = granules(size).min(LARGEST_LOOK);
        let fit = self.list.search_on(&self.ground, n);
        self.place_found(size, n, fit)
    }

    /// Places a request in the free segment that a search has found, else in the wilderness.
    #[inline(always)]
    fn place_found(&mut self, size: usize, n: usize, fit: Fit) -> Fit {
        let start = match fit.start() {
            Some(start) => {
                self.take_any(start, n);
                start
            }
            None => match self.extend(n) {
                Some(start) => start,
                None => return self.fail(size, fit),
            },
        };
        self.counters.placed(size, n, fit.hops());
        fit.at(start)
    }

    /// Takes `n` granules from the front of the free segment at `start`.
    #[inline(always)]
    fn take_any(&mut self, start: Granule, n: usize) {
        if n <= SHORT {
            let seen = self.ground.map.free_from(start);
            if seen != MORE || self.ground.map.keeps_tags(start, n) {
                return self.take(start, n, seen);
            }
        }
        self.take_long(start, start, start.up(n));
    }

    /// A request that nothing fits has stepped over the wilderness too, if there is any.
    #[cold]
    fn fail(&mut self, size: usize, mut fit: Fit) -> Fit {
        // A request that comes before there is a region has not failed yet: it comes again.
        if self.ground.region.base().is_null() {
            return fit;
        }
        if self.ground.top.bytes() < self.ground.region.size() {
            fit.step();
        }
        self.counters.failed(size, fit.hops());
        fit
    }

    /// Takes the first `n` granules, at most [`SHORT`], of the free segment at `start`, of which one window shows
    /// `seen`; the rest stays free.
    #[inline(always)]
    fn take(&mut self, start: Granule, n: usize, seen: usize) {
        self.ground.map.take_short(start, n);
        self.counters.took(n < seen);
        self.list.took(&self.ground, start, start, start.up(n), rest(n, seen));
    }

    /// Takes `from..to` of the free segment at `start`; what is left in front and behind stays free.
    #[inline(never)]
    fn take_long(&mut self, start: Granule, from: Granule, to: Granule) {
        let end = self.ground.map.hole_end(start, self.ground.top);
        self.ground.map.take((start, end), from, to);
        self.counters.took(to < end);
        if from > start {
            self.counters.padded();
        }
        self.list.took(&self.ground, start, from, to, Rest::Exact(end.above(to)));
        self.cover(from, to);
    }

    /// Takes `n` granules of the wilderness, at most [`SHORT`] and what is ready.
    #[inline(always)]
    fn extend_at_once(&mut self, n: usize) -> Granule {
        let from = self.ground.top;
        self.ground.map.take_short(from, n);
        self.counters.extended();
        self.ground.top = from.up(n);
        from
    }

    /// Takes `n` granules of the wilderness, none if it has not that many or the system has no memory for them.
    fn extend(&mut self, n: usize) -> Option<Granule> {
        let from = self.ground.top;
        if n > self.ready.above(from) && !self.make_ready(from, n) {
            return None;
        }
        if n <= SHORT {
            return Some(self.extend_at_once(n));
        }
        let to = from.up(n);
        self.ground.map.take_wilderness(from, to);
        self.counters.extended();
        self.cover(from, to);
        self.ground.top = to;
        Some(from)
    }

    /// Tells the list of a segment that is so large that the map does not keep the words inside it.
    fn cover(&mut self, from: Granule, to: Granule) {
        if to.above(from) >= HUGE {
            self.list.covered(from, to);
        }
    }

    // ---- freeing ---------------------------------------------------------------------------------------------

    /// The segment that a pointer and its layout name. None where that takes a longer look.
    #[inline(always)]
    pub(crate) fn segment_at_once(&self, payload: *const u8, layout: Layout) -> Option<Short> {
        let at = self.ground.region.granule(payload);
        if at < self.ground.top && is_aligned(payload, layout) {
            self.short_at(at, granules(layout.size()))
        } else {
            None
        }
    }

    /// The segment of `n` granules at `at`, if it is as short as that.
    #[inline(always)]
    pub(crate) fn short_at(&self, at: Granule, n: usize) -> Option<Short> {
        if n <= SHORT { self.ground.map.short_at(at, n) } else { None }
    }

    /// Frees a segment.
    #[inline(always)]
    pub(crate) fn give_back_short(&mut self, short: Short) {
        match self.give_back_at_once(short) {
            Some(owed) => self.settle(owed),
            None => self.give_back_seen(short.at, short.n, short.below, short.above),
        }
    }

    /// Frees a segment where one window shows its free neighbours, and says what the list is owed. None, and nothing has
    /// changed, else.
    #[inline(always)]
    pub(crate) fn give_back_at_once(&mut self, short: Short) -> Option<Owed> {
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
        Some(self.list.gave(&self.ground, (start, at.up(behind)), at, at.up(n)))
    }

    /// Does what the list put off.
    #[inline(always)]
    pub(crate) fn settle(&mut self, owed: Owed) {
        self.list.settle(owed);
    }

    /// Frees a segment of at most [`SHORT`] granules beside a free segment that one window does not show whole. `below` and
    /// `above` are those of [`Short`].
    #[inline(always)]
    pub(crate) fn give_back_seen(&mut self, at: Granule, n: usize, below: u64, above: u64) {
        let (start, to) = (self.start_below(at, below), at.up(n));
        let end = if above != 0 {
            at.up(above.trailing_zeros() as usize)
        } else {
            self.ground.map.hole_end(to, self.ground.top)
        };
        self.join(start, at, n.min(SHORT), end);
    }

    /// Frees the segment `at..at + n` and joins it with its free neighbours.
    #[inline(never)]
    pub(crate) fn give_back(&mut self, at: Granule, n: usize) {
        self.give_back_here(at, n);
    }

    /// The same in the caller's frame.
    #[inline(always)]
    pub(crate) fn give_back_here(&mut self, at: Granule, n: usize) {
        let start = self.start_below(at, self.ground.map.used_below(at));
        self.join(start, at, n, self.hole_end_behind(at.up(n)));
    }

    /// Where what is free begins below `at`. `below` is the map's window.
    #[inline(always)]
    fn start_below(&self, at: Granule, below: u64) -> Granule {
        if below == 0 { self.ground.map.hole_start(at) } else { at.down(below.leading_zeros() as usize) }
    }

    /// Frees the segment of `n` granules at `at`, with which `start..end` becomes one free segment.
    #[inline(always)]
    fn join(&mut self, start: Granule, at: Granule, n: usize, end: Granule) {
        self.counters.freed(n);
        let to = at.up(n);
        if to == self.ground.top {
            self.ground.map.give_to_wilderness(start, at, to);
            self.counters.gave(start < at, true);
            let owed = self.lower_top(at, start);
            self.settle(owed);
            return self.soil_wilderness(at);
        }
        if n <= SHORT && self.ground.map.gives_short(start, to, end) {
            self.ground.map.give_short(at, n);
        } else {
            self.ground.map.give((start, end), at, to);
        }
        self.counters.gave(start < at, to < end);
        let owed = self.list.gave(&self.ground, (start, end), at, to);
        self.settle(owed);
        self.soil(at, to);
    }

    /// Lets the wilderness begin at `start`, where a free segment `start..at` was, if it is not empty.
    #[inline(always)]
    fn lower_top(&mut self, at: Granule, start: Granule) -> Owed {
        self.counters.usage.top_fell(self.ground.top);
        self.touched = self.touched.max(self.ground.top);
        let from = core::mem::replace(&mut self.ground.top, start);
        self.list.top_fell(&self.ground, from, start, start < at)
    }
}

impl<L: FreeList> Heap<L> {
    /// Lets nobody believe that payloads in use outlive the region.
    fn take_back_all(&self) {
        for run in self.runs().flatten().filter(|run| run.in_use) {
            let bytes = Granule(run.end.above(run.start)).bytes();
            checkers::back(self.ground.region.pointer(run.start).as_ptr(), bytes);
        }
    }
}

impl<L: FreeList> Drop for Heap<L> {
    fn drop(&mut self) {
        if ACTIVE {
            self.take_back_all();
        }
        // SAFETY: the heap is the only one that refers to its reservation, and it is going.
        unsafe { self.reservation.release() };
    }
}

/// Ends the process: the bookkeeping contradicts itself.
#[cold]
fn broken(invariant: &str, what: &str, at: Granule) -> ! {
    fatal(format_args!("heap broken: {invariant}: {what} at offset {:#x}", at.bytes()))
}
