//! The free segments that begin in a chunk.

use super::runs::longest_run;
use super::{SegmentMap, chunk_start, low_bits};
use crate::region::{CHUNK, Extent, Granule};

/// The free segments below top that begin in a chunk, in ascending order.
#[derive(Clone)]
pub(crate) struct Holes<'a> {
    map: &'a SegmentMap,
    /// The chunk's free granules, without those of segments that have been returned or that begin in a lower chunk.
    free: u64,
    chunk: usize,
    top: Granule,
}

impl SegmentMap {
    /// The free segments below `top` that begin in the chunk.
    #[inline(always)]
    pub(crate) fn holes_in_chunk(&self, chunk: usize, top: Granule) -> Holes<'_> {
        let mut free = !self.used.get(chunk);
        if self.used_below(chunk_start(chunk)) >> 63 == 0 {
            // Adding 1 turns the ones that the word begins with to zeros.
            free &= free.wrapping_add(1);
        }
        if chunk == top.chunk() {
            // No free segment touches top.
            free &= low_bits(top.bit());
        }
        Holes { map: self, free, chunk, top }
    }

    /// The length of the longest free segment below `top` that starts in the chunk; 0 if none does.
    #[inline(always)]
    pub(crate) fn longest_hole_in_chunk(&self, chunk: usize, top: Granule) -> usize {
        let free = self.holes_in_chunk(chunk, top).free;
        let inside = longest_run(free);
        // The last one may reach into the next chunk.
        match free.leading_ones() as usize {
            0 => inside,
            last => inside.max(self.length_across(chunk, last, top)),
        }
    }

    /// The length of the longest free segment that starts in the chunk of `at` and ends below `at`; 0 if there is none.
    #[inline(always)]
    pub(crate) fn longest_hole_below(&self, at: Granule) -> usize {
        longest_run(self.holes_in_chunk(at.chunk(), at).free)
    }

    /// The length of the free segment that has the last `inside` granules of the chunk.
    #[inline(always)]
    fn length_across(&self, chunk: usize, inside: usize, top: Granule) -> usize {
        let next = chunk.wrapping_add(1);
        // Only the first chunk that the segment covers whole is a tag.
        let first_whole = next.wrapping_sub(inside / CHUNK);
        self.hole_end_from(first_whole, top).above(chunk_start(next)).wrapping_add(inside)
    }

    /// The free segment of a chunk's length or more that starts in the chunk, if one does.
    #[inline]
    pub(crate) fn long_hole_in_chunk(&self, chunk: usize, top: Granule) -> Option<Extent> {
        // The chunk ends with it.
        let inside = self.holes_in_chunk(chunk, top).free.leading_ones() as usize;
        let start = chunk_start(chunk.wrapping_add(1)).down(inside);
        let n = if inside > 0 { self.length_across(chunk, inside, top) } else { 0 };
        (n >= CHUNK).then_some(Extent::of(start, n))
    }
}

impl Iterator for Holes<'_> {
    type Item = Extent;

    #[inline(always)]
    fn next(&mut self) -> Option<Extent> {
        if self.free == 0 {
            return None;
        }
        let first = self.free.trailing_zeros() as usize;
        let start = chunk_start(self.chunk).up(first);
        let end =
            chunk_start(self.chunk).up(first.wrapping_add((self.free >> first).trailing_ones() as usize));
        // Adding the lowest one turns the ones that it begins a run of to zeros.
        self.free &= self.free.wrapping_add(1 << first);
        let is_whole = end.bit() != 0;
        Some(Extent::new(start, if is_whole { end } else { self.map.hole_end(start, self.top) }))
    }
}
