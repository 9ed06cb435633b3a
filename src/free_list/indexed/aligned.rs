//! Requests that are aligned to more than a granule.
//!
//! A free segment may be large enough without an aligned place that is. A search looks at chunk after chunk whose bound
//! promises enough, which is short if many segments have such a place. If few have, the alignment gets an index: a tree
//! of [`Lengths`] that counts, of each free segment, the granules from its first aligned place on. It is made when
//! looks in vain become frequent, is exact from then on, and goes away when no such request has come for long.
//!
//! While there is an index it has to be told of every change, so the fast paths decline.

use super::bounds::{Bounds, bound_of};
use super::lengths::{GROUP, Lengths};
use crate::free_list::{Broken, Fit, Ground};
use crate::region::{CHUNK, Extent, GRANULE, Granule, Region, Reservation};
use crate::segment_map::chunk_start;
use core::ops::Range;

/// The smallest alignment with an index, in bytes; the others are the next powers of two.
const SMALLEST: usize = 2 * GRANULE;
/// Alignments that have an index. The last is 64 KiB; a search for a larger one looks at the segments that it promises.
const ALIGNMENTS: usize = 12;
/// In a region of fewer chunks, no search is long without an index.
const FEWEST_CHUNKS: usize = 300;
/// Looks in vain of a search that are no reason to make an index.
const FREE_LOOKS: u32 = 3;
/// An index is made when searches have taken so many more.
const ENOUGH_LOOKS: u32 = 1024;
/// The most that one search adds to them: a single long one says little about the next.
const LOOKS_OF_ONE: usize = 128;
/// Changes without such a request after which an index goes away.
const LONG_UNUSED: u32 = 100_000;

/// An alignment with an index, by its number from the smallest.
#[derive(Clone, Copy)]
pub(super) struct Alignment(usize);

impl Alignment {
    /// The largest of them that `align` bytes, more than a granule, are a multiple of.
    #[inline(always)]
    pub(super) fn of(align: usize) -> Self {
        let number = align.trailing_zeros().wrapping_sub(SMALLEST.trailing_zeros()) as usize;
        Self(number.min(ALIGNMENTS - 1))
    }

    const fn bytes(self) -> usize {
        SMALLEST << self.0
    }

    /// The granules that a free segment has from its first aligned place on.
    fn length(self, region: &Region, hole: Extent) -> usize {
        let place = region.align_up(hole.start, self.bytes());
        place.filter(|&place| place < hole.end).map_or(0, |place| hole.end.above(place))
    }
}

/// The indexes of all alignments.
#[derive(Debug)]
pub(super) struct Aligned {
    lengths: Lengths<ALIGNMENTS>,
    /// Bit `k` says whether alignment `k` has an index.
    active: u32,
    /// Looks in vain, more or less, that have not led to one yet.
    looks: [u32; ALIGNMENTS],
    /// When such a request came last, while there was one.
    used: [u32; ALIGNMENTS],
    /// Changes while there was an index.
    now: u32,
    /// Chunks that are open.
    chunks: usize,
    /// Whether the memory belongs to somebody else.
    lent: bool,
    /// Whether there is room for indexes.
    possible: bool,
}

impl Aligned {
    pub(super) const EMPTY: Self = Self {
        lengths: Lengths::EMPTY,
        active: 0,
        looks: [0; ALIGNMENTS],
        used: [0; ALIGNMENTS],
        now: 0,
        chunks: 0,
        lent: false,
        possible: false,
    };

    /// Bytes of the reservation that the indexes take for so many chunks.
    pub(super) fn bytes(chunks: usize) -> usize {
        match chunks {
            0..FEWEST_CHUNKS => 0,
            _ => Lengths::<ALIGNMENTS>::bytes(chunks).into_iter().fold(0, usize::saturating_add),
        }
    }

    /// Takes its part of the reservation, for so many chunks.
    pub(super) fn attach(&mut self, reservation: &Reservation, offset: usize, chunks: usize) {
        let [near, _] = Lengths::<ALIGNMENTS>::bytes(chunks);
        let possible = chunks >= FEWEST_CHUNKS;
        *self = Self { lent: reservation.is_lent(), possible, ..Self::EMPTY };
        if !possible {
            return;
        }
        self.lengths.attach(reservation, [offset, offset.saturating_add(near)], chunks);
    }

    /// Opens what is needed for so many chunks (R2). False when the system refuses.
    pub(super) fn commit(&mut self, chunks: usize) -> bool {
        self.chunks = self.chunks.max(chunks);
        !self.is_active() || self.lengths.commit(chunks)
    }

    /// Bytes of the indexes that are open.
    pub(super) fn committed(&self) -> usize {
        self.lengths.committed()
    }

    /// Whether there is an index.
    #[inline(always)]
    pub(super) fn is_active(&self) -> bool {
        self.active != 0
    }

    /// Whether an alignment has one.
    #[inline(always)]
    pub(super) fn has(&self, alignment: Alignment) -> bool {
        self.active >> alignment.0 & 1 != 0
    }

    /// The alignments that have one.
    fn all(&self) -> impl Iterator<Item = Alignment> + use<> {
        let active = self.active;
        (0..ALIGNMENTS).filter(move |number| active >> number & 1 != 0).map(Alignment)
    }

    // ---- keeping them exact ----------------------------------------------------------------------------------

    /// The free segment `old` is gone or shorter than it was, and `new` has appeared or grown.
    #[cold]
    pub(super) fn changed(&mut self, ground: &Ground, bounds: &Bounds, old: Extent, new: Extent) {
        for alignment in self.all() {
            let group = old.start.chunk() / GROUP;
            let n = alignment.length(&ground.region, old);
            if n > 0 && self.lengths.is_exact(alignment.0, group, n) {
                // No other segment there is longer.
                self.lengths.set(alignment.0, group, longest(ground, bounds, alignment, group, n));
            }
            let n = alignment.length(&ground.region, new);
            self.lengths.raise(alignment.0, new.start.chunk() / GROUP, n);
        }
    }

    /// No free segment begins in these chunks, which lie inside a huge segment.
    #[cold]
    pub(super) fn measure(&mut self, ground: &Ground, bounds: &Bounds, inside: Range<usize>) {
        for alignment in self.all() {
            for group in inside.start / GROUP..inside.end.div_ceil(GROUP) {
                if !self.lengths.is_exact(alignment.0, group, 0) {
                    self.lengths.set(
                        alignment.0,
                        group,
                        longest(ground, bounds, alignment, group, usize::MAX),
                    );
                }
            }
        }
    }

    /// Top has come down from `from`: no free segment starts above it any more, and the one that touched it is gone.
    pub(super) fn top_fell(&mut self, ground: &Ground, bounds: &Bounds, from: Granule) {
        let (first, last) = (ground.top.chunk() / GROUP, from.chunk() / GROUP);
        for alignment in self.all() {
            self.lengths.clear(alignment.0, first.wrapping_add(1)..last.wrapping_add(1));
            self.lengths.set(alignment.0, first, longest(ground, bounds, alignment, first, usize::MAX));
        }
    }

    /// Counts a change. True where an index goes away for it.
    pub(super) fn count_free(&mut self) -> bool {
        self.now = self.now.wrapping_add(1);
        if !self.now.is_multiple_of(LONG_UNUSED / 8) {
            return false;
        }
        let before = self.active;
        for alignment in self.all() {
            let used = self.used.get(alignment.0).copied().unwrap_or(0);
            if self.now.wrapping_sub(used) >= LONG_UNUSED {
                self.active &= !(1 << alignment.0);
            }
        }
        if !self.is_active() && !self.lent {
            self.lengths.discard();
        }
        self.active != before
    }

    // ---- making one ------------------------------------------------------------------------------------------

    /// After a search without an index: whether it is time for one.
    pub(super) fn is_wanted(&mut self, alignment: Alignment, in_vain: usize) -> bool {
        let Some(looks) = self.looks.get_mut(alignment.0) else { return false };
        *looks = looks.saturating_add(in_vain.min(LOOKS_OF_ONE) as u32).saturating_sub(FREE_LOOKS);
        *looks >= ENOUGH_LOOKS
    }

    /// Makes the index of an alignment. False when the system has no memory for it.
    #[cold]
    pub(super) fn make(&mut self, ground: &Ground, bounds: &Bounds, alignment: Alignment) -> bool {
        if !self.possible || !self.lengths.commit(self.chunks) {
            return false;
        }
        let groups = ground.top.chunk() / GROUP;
        self.lengths.set_all(alignment.0, |group| {
            if group <= groups { longest(ground, bounds, alignment, group, usize::MAX) } else { 0 }
        });
        self.active |= 1 << alignment.0;
        self.note_use(alignment);
        true
    }

    pub(super) fn note_use(&mut self, alignment: Alignment) {
        if let Some(used) = self.used.get_mut(alignment.0) {
            *used = self.now;
        }
        if let Some(looks) = self.looks.get_mut(alignment.0) {
            *looks = 0;
        }
    }

    // ---- searching -------------------------------------------------------------------------------------------

    /// The lowest free segment with `n` granules from an aligned place on, and that place, by the alignment's index.
    pub(super) fn search(
        &self,
        ground: &Ground,
        bounds: &Bounds,
        n: usize,
        align: usize,
        fit: &mut Fit,
    ) -> Option<Place> {
        let tree = Alignment::of(align).0;
        let mut group = self.lengths.first(tree, n, fit)?;
        loop {
            for chunk in chunks(group).filter(|&chunk| bounds.get(chunk) >= bound_of(n)) {
                if let Some(place) = place_in_chunk(ground, chunk, n, align) {
                    return Some(place);
                }
                fit.step();
            }
            // The index knows of no larger alignment.
            group = self.lengths.next(tree, group.wrapping_add(1), n, fit)?;
        }
    }

    /// Whether an index is what it should be.
    pub(super) fn check(&self, ground: &Ground, bounds: &Bounds) -> Result<(), Broken> {
        let at = ground.top;
        for alignment in self.all() {
            if !self.lengths.are_maxima(alignment.0) {
                return Err(Broken {
                    invariant: "I2",
                    at,
                    what: "a parent is not the highest of its children",
                });
            }
            for group in 0..=ground.top.chunk() / GROUP {
                if !self.lengths.is_exact(
                    alignment.0,
                    group,
                    longest(ground, bounds, alignment, group, usize::MAX),
                ) {
                    let at = chunk_start(group * GROUP);
                    return Err(Broken {
                        invariant: "I7",
                        at,
                        what: "the index of an alignment is not exact",
                    });
                }
            }
        }
        Ok(())
    }
}

/// A place for an aligned request, and the start of the free segment that contains it.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) hole: Granule,
    pub(super) at: Granule,
}

/// The chunks of a group.
fn chunks(group: usize) -> Range<usize> {
    group.wrapping_mul(GROUP)..group.wrapping_add(1).wrapping_mul(GROUP)
}

/// The most granules that a free segment which begins in the group has from its first aligned place on, or `enough` of
/// them.
fn longest(ground: &Ground, bounds: &Bounds, alignment: Alignment, group: usize, enough: usize) -> usize {
    let mut longest = 0;
    for chunk in chunks(group) {
        // No segment that starts in the chunk is longer than its bound. If that is 0, the map may say nothing.
        if usize::from(bounds.get(chunk)) <= longest.min(CHUNK - 1) {
            continue;
        }
        for hole in ground.map.holes_in_chunk(chunk, ground.top) {
            if hole.len() > longest {
                longest = alignment.length(&ground.region, hole).max(longest);
                if longest >= enough {
                    return longest;
                }
            }
        }
    }
    longest
}

/// The lowest of the free segments that begin in the chunk which has `n` granules from an aligned place on.
#[inline(always)]
pub(super) fn place_in_chunk(ground: &Ground, chunk: usize, n: usize, align: usize) -> Option<Place> {
    let mut holes = ground.map.holes_in_chunk(chunk, ground.top);
    holes.find_map(|hole| Some(Place { hole: hole.start, at: ground.place_in(hole, n, align)? }))
}
