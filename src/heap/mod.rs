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
//! What happens most happens in a few instructions, inline: requests of up to 56 granules whose free segment, and
//! whose neighbours when they are freed, are seen whole in one 64-bit window of the map: the `*_at_once` functions.
//! [`Heap::place_after_look`] and [`Heap::give_back`] do the same for any size. They are one algorithm, and the tests
//! hold them against the same oracle.

mod aligned;
mod check;
mod counters;
mod grow;
mod misuse;
mod public;
mod resize;
mod walk;

pub use check::Corruption;
pub use public::MallocStatus;
pub(crate) use public::dirty_bytes;

use crate::fatal::fatal;
use crate::free_list::{Fit, FreeList, Indexed, Look, Rest, View};
use crate::region::{GRANULE, Granule, Region, Reservation, WINDOW, WINDOW_BELOW};
use crate::segment_map::{HUGE, SHORT, SegmentMap};
use crate::shadow::{self, WATCHED};
use core::alloc::Layout;
use counters::Counters;

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
pub struct Heap<L: FreeList = Indexed> {
    map: SegmentMap,
    list: L,
    /// Where segments end and the wilderness begins.
    top: Granule,
    /// Region and tables are open for segments up to here.
    ready: Granule,
    counters: Counters,
    region: Region,
    /// The highest that top has been before it last came down: above it and above top, memory is as the system gave it.
    touched: Granule,
    reservation: Reservation,
    /// The size in bytes that was asked for; what is mapped may be smaller. 0 asks for as much as is sensible.
    wanted: usize,
}

/// Where a request was placed, and what the search for it cost.
#[derive(Clone, Copy)]
pub(crate) struct Placement {
    /// None when nothing fits.
    pub(crate) start: Option<Granule>,
    pub(crate) stepped: usize,
    pub(crate) probes: usize,
}

impl Placement {
    #[inline(always)]
    pub(crate) fn hops(self) -> usize {
        self.stepped.wrapping_add(self.probes)
    }
}

/// Granules that a request of `size` bytes takes: at least one.
#[inline(always)]
pub(crate) const fn granules(size: usize) -> usize {
    // A Layout's size is at most isize::MAX, so the sum does not wrap.
    let n = size.wrapping_add(GRANULE - 1) / GRANULE;
    if n == 0 { 1 } else { n }
}

impl<L: FreeList> Heap<L> {
    /// A heap that maps its region of `wanted` bytes at first use.
    pub(crate) const fn unmapped(wanted: usize) -> Self {
        Self {
            map: SegmentMap::NONE,
            list: L::EMPTY,
            top: Granule(0),
            ready: Granule(0),
            counters: Counters::ZERO,
            region: Region::NONE,
            touched: Granule(0),
            reservation: Reservation::NONE,
            wanted,
        }
    }

    #[inline(always)]
    fn view(&self) -> View<'_> {
        View { map: &self.map, region: &self.region, top: self.top }
    }

    #[inline(always)]
    pub(crate) fn region(&self) -> &Region {
        &self.region
    }

    // ---- allocation ------------------------------------------------------------------------------------------

    /// Places a request: the lowest free segment that can hold it, else the wilderness, else nothing.
    #[inline]
    pub(crate) fn place(&mut self, size: usize, align: usize) -> Placement {
        match self.place_at_once(size, align) {
            Ok(start) => Placement { start: Some(start), stepped: 0, probes: 0 },
            Err(look) => self.place_after_look(size, align, look),
        }
    }

    /// Places a request where the first look settles it and one window shows it. Else nothing has changed, and the
    /// result is what the look said.
    #[inline(always)]
    pub(crate) fn place_at_once(&mut self, size: usize, align: usize) -> Result<Granule, Look> {
        let n = granules(size);
        if align > GRANULE || n > SHORT {
            return Err(Look::Search);
        }
        let start = match self.list.look(self.view(), n) {
            Look::Fits(start, seen) if seen < WINDOW || self.map.keeps_tags(start, n) => {
                self.take(start, n, seen);
                start
            }
            Look::Wilderness if n <= self.ready.above(self.top) => self.extend_at_once(n),
            look => return Err(look),
        };
        self.counters.placed(size, n, 0);
        Ok(start)
    }

    /// Places any request, after a first look.
    #[inline(never)]
    pub(crate) fn place_after_look(&mut self, size: usize, align: usize, look: Look) -> Placement {
        if align > GRANULE {
            return self.place_aligned(size, align);
        }
        let n = granules(size);
        let view = View { map: &self.map, region: &self.region, top: self.top };
        let fit = match look {
            Look::Fits(start, _) => Fit { start: Some(start), stepped: 0, probes: 0 },
            Look::Wilderness => Fit { start: None, stepped: 0, probes: 0 },
            Look::Search => self.list.search(view, n),
        };
        let start = match fit.start {
            Some(start) => {
                self.take_any(start, n);
                Some(start)
            }
            None => self.extend(n),
        };
        let placement = Placement { start, stepped: fit.stepped, probes: fit.probes };
        if start.is_none() {
            return self.fail(size, placement);
        }
        self.counters.placed(size, n, placement.hops());
        placement
    }

    /// Takes `n` granules from the front of the free segment at `start`.
    fn take_any(&mut self, start: Granule, n: usize) {
        let seen = self.map.free_from(start);
        if n <= SHORT && (seen < WINDOW || self.map.keeps_tags(start, n)) {
            self.take(start, n, seen);
        } else {
            self.take_long(start, start, start.up(n));
        }
    }

    /// A request that nothing fits has stepped over the wilderness too, if there is any.
    #[cold]
    fn fail(&mut self, size: usize, mut placement: Placement) -> Placement {
        // A request that comes before there is a region has not failed yet: it comes again.
        if self.region.base().is_null() {
            return placement;
        }
        let wilderness = self.top.bytes() < self.region.size();
        placement.stepped = placement.stepped.wrapping_add(usize::from(wilderness));
        self.counters.failed(size, placement.hops());
        placement
    }

    /// Takes the first `n` granules, at most [`SHORT`], of the free segment at `start`, of which one window shows
    /// `seen`; the rest stays free.
    #[inline(always)]
    fn take(&mut self, start: Granule, n: usize, seen: usize) {
        self.map.take_short(start, n);
        self.counters.took(seen != n);
        let rest = if seen < WINDOW { Rest::Exact(seen.wrapping_sub(n)) } else { Rest::Long };
        let view = View { map: &self.map, region: &self.region, top: self.top };
        self.list.took(view, start, start, start.up(n), rest);
    }

    /// Takes `from..to` of the free segment at `start`; what is left in front and behind stays free.
    #[inline(never)]
    fn take_long(&mut self, start: Granule, from: Granule, to: Granule) {
        let end = self.map.hole_end(start, self.top);
        self.map.take((start, end), from, to);
        self.counters.took(to < end);
        if from > start {
            self.counters.padded();
        }
        let view = View { map: &self.map, region: &self.region, top: self.top };
        self.list.took(view, start, from, to, Rest::Exact(end.above(to)));
        self.cover(from, to);
    }

    /// Takes `n` granules of the wilderness, at most [`SHORT`] and what is ready.
    #[inline(always)]
    fn extend_at_once(&mut self, n: usize) -> Granule {
        let from = self.top;
        self.map.take_short(from, n);
        self.counters.extended();
        self.top = from.up(n);
        from
    }

    /// Takes `n` granules of the wilderness, none if it has not that many or the system has no memory for them.
    fn extend(&mut self, n: usize) -> Option<Granule> {
        let from = self.top;
        if n > self.ready.above(from) && !self.make_ready(from, n) {
            return None;
        }
        if n <= SHORT {
            return Some(self.extend_at_once(n));
        }
        let to = from.up(n);
        self.map.take_wilderness(from, to);
        self.counters.extended();
        self.cover(from, to);
        self.top = to;
        Some(from)
    }

    /// Tells the list of a segment that is so large that the map does not keep the words inside it.
    fn cover(&mut self, from: Granule, to: Granule) {
        if to.above(from) >= HUGE {
            self.list.covered(from, to);
        }
    }

    // ---- freeing ---------------------------------------------------------------------------------------------

    /// The segment that a pointer and its layout name: its start, and its granules. None where that takes a longer look.
    #[inline(always)]
    pub(crate) fn segment_at_once(&self, payload: *const u8, layout: Layout) -> Option<(Granule, usize)> {
        let at = self.region.granule(payload);
        let n = granules(layout.size());
        let aligned = payload.addr() & layout.align().wrapping_sub(1) == 0;
        (n <= SHORT && at < self.top && aligned && self.map.holds_short(at, n)).then_some((at, n))
    }

    /// Frees the segment `at..at + n`, `n` at most [`SHORT`], where one window shows its free neighbours. False, and
    /// nothing has changed, else.
    #[inline(always)]
    pub(crate) fn give_back_at_once(&mut self, at: Granule, n: usize) -> bool {
        let to = at.up(n);
        let below = self.map.free_below(at);
        let behind = self.map.free_from(to);
        // A run of zeros that reaches the window's end may be longer, or the wilderness.
        if below >= WINDOW_BELOW || (behind >= WINDOW && to != self.top) {
            return false;
        }
        self.counters.freed(n);
        self.map.give_short(at, n);
        self.counters.gave(below != 0, behind != 0);
        let start = at.down(below);
        if to == self.top {
            self.lower_top(at, start);
        } else {
            let view = View { map: &self.map, region: &self.region, top: self.top };
            self.list.gave(view, (start, to.up(behind)), at, to);
        }
        true
    }

    /// Frees the segment `at..at + n` and joins it with its free neighbours.
    #[inline(never)]
    pub(crate) fn give_back(&mut self, at: Granule, n: usize) {
        self.counters.freed(n);
        let to = at.up(n);
        let below = self.map.free_below(at);
        let start = if below < WINDOW_BELOW { at.down(below) } else { self.map.hole_start(at) };
        if to == self.top {
            self.map.give_to_wilderness(start, at, to);
            self.counters.gave(start < at, true);
            return self.lower_top(at, start);
        }
        let behind = self.map.free_from(to);
        let end = if behind < WINDOW { to.up(behind) } else { self.map.hole_end(to, self.top) };
        if n <= SHORT && self.map.gives_short(start, to, end) {
            self.map.give_short(at, n);
        } else {
            self.map.give((start, end), at, to);
        }
        self.counters.gave(start < at, to < end);
        let view = View { map: &self.map, region: &self.region, top: self.top };
        self.list.gave(view, (start, end), at, to);
    }

    /// Lets the wilderness begin at `start`, where a free segment `start..at` was, if it is not empty.
    #[inline(always)]
    fn lower_top(&mut self, at: Granule, start: Granule) {
        self.counters.top_fell(self.top);
        self.touched = self.touched.max(self.top);
        let view = View { map: &self.map, region: &self.region, top: self.top };
        self.list.top_fell(view, self.top, start, start < at);
        self.top = start;
    }
}

impl<L: FreeList> Heap<L> {
    /// Lets nobody believe that payloads in use outlive the region.
    fn take_back_all(&self) {
        for run in self.runs().flatten().filter(|run| run.in_use) {
            let bytes = Granule(run.end.above(run.start)).bytes();
            shadow::back(self.region.pointer(run.start).as_ptr(), bytes);
        }
    }
}

impl<L: FreeList> Drop for Heap<L> {
    fn drop(&mut self) {
        if WATCHED {
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
