//! The segment map: where segments begin and end, beside the heap and not in it.
//!
//! Two bits a granule, in two bitmaps: `used` (the granule belongs to a segment in use) and `heads` (a segment in
//! use begins here). Free segments have no bits of their own: a free segment *is* a run of zeros in `used`, so that
//! freeing clears bits, and neighbours coalesce by themselves.
//!
//! ```text
//! granules   0   1   2   3   4   5   6   7   8   9  ...
//!          | A         | B     | free      | C | free (wilderness) ...
//! used       1   1   1   1   1   0   0   0   1   0  ...
//! heads      1   0   0   1   0   0   0   0   1   0  ...
//!                                                ^ top
//! ```
//!
//! What is large is not gone through word by word; its bounds stand in the words inside it instead:
//!
//! - a segment in use of [`HUGE`] granules or more has real bits in its first two chunks and in its last one only; the word of
//!   its third chunk in `used` holds its end;
//! - a free segment that covers [`TAGGED_CHUNKS`] whole chunks or more has zeros everywhere in `used`, as always; in
//!   `heads`, its first whole chunk holds its end, and its last whole chunk the number of the chunk it starts in, or of the one before
//!   if it starts right behind that.
//!
//! A word holds bounds ("is a tag") when [`TAG`] is set in `heads` and not in `used`: a head on a granule that is not
//! in use, which no real bits can say. So any segment is found, measured, taken and freed in a bounded number of
//! steps: at most `HUGE / 64` words.
//!
//! The map knows no policy, no free list, and not where `top` is: above it all bits are zero.
//!
//! - **M1** segments tile the region below top; **M2** no two neighbours are both free (a run of zeros is one
//!   segment, so this holds by construction); **M3** nothing free touches top.

mod ends;
mod long;
mod runs;

use crate::region::{CHUNK, Extent, Granule, LINE, Reservation, SPARE_CHUNKS, Table, WINDOW};
use runs::{longest_run, longest_run_about, runs};
use static_assertions::const_assert;

/// Granules from which on a segment in use keeps its end in a tag: 64 KiB. Below, so many words are gone through.
pub(crate) const HUGE: usize = 64 * CHUNK;
/// Whole chunks from which on a free segment keeps its bounds in tags.
const TAGGED_CHUNKS: usize = 3;
/// Marks a word of `heads` as a tag, where the same bit of `used` is not set.
const TAG: u64 = 1 << 63;
/// The largest segment that the short ways handle: all of it, and the granule behind it, is in one window.
pub(crate) const SHORT: usize = WINDOW - 1;
/// The length of a free run of which a window shows no end.
pub(crate) const MORE: usize = u64::BITS as usize;

const_assert!(SHORT < CHUNK);
// A huge segment in use has a third chunk that is wholly its own; a tagged free one has two whole chunks.
const_assert!(HUGE >= 4 * CHUNK && TAGGED_CHUNKS >= 2);

/// A word with its lowest `n` bits set, `n` below 64.
#[inline(always)]
const fn ones(n: usize) -> u64 {
    !(u64::MAX << (n % CHUNK))
}

/// A segment in use of at most [`SHORT`] granules, and what windows show on its two sides.
#[derive(Clone, Copy)]
pub(crate) struct Short {
    pub(crate) at: Granule,
    pub(crate) n: usize,
    /// So many ones as the segment has granules.
    mask: u64,
    /// The granules below `at`, the nearest one highest, ones in use. Zero if the window shows none in use.
    pub(crate) below: u64,
    /// The granules from `at` on that are in use behind the segment, `at` being the lowest bit. Zero if the window shows none.
    pub(crate) above: u64,
}

/// The two bitmaps.
#[derive(Debug)]
pub(crate) struct SegmentMap {
    used: Table<u64>,
    heads: Table<u64>,
}

impl SegmentMap {
    pub(crate) const NONE: Self = Self { used: Table::NONE, heads: Table::NONE };

    /// Bytes of the reservation that the bitmaps `used` and `heads` of so many chunks take.
    pub(crate) fn bytes(chunks: usize) -> [usize; 2] {
        let heads = Table::<u64>::bytes(chunks.saturating_add(SPARE_CHUNKS));
        [heads.saturating_add(LINE), heads]
    }

    /// The map of so many chunks: the bitmaps take these offsets of the reservation. A line stands before the first, in the
    /// page where it begins, so that there is something below granule 0 to look at.
    pub(crate) fn new(reservation: &Reservation, [used, heads]: [usize; 2], chunks: usize) -> Self {
        let table = |offset| Table::new(reservation, offset, chunks.saturating_add(SPARE_CHUNKS));
        Self { used: table(used.saturating_add(LINE)), heads: table(heads) }
    }

    /// Opens the map for so many chunks (R2). False when the system refuses.
    pub(crate) fn commit(&mut self, chunks: usize) -> bool {
        let entries = chunks.saturating_add(SPARE_CHUNKS);
        let done = self.used.commit(entries) && self.heads.commit(entries);
        if done {
            self.used.raise_sentinel();
        }
        done
    }

    /// Bytes of the map that are open.
    pub(crate) fn committed(&self) -> usize {
        self.used.committed().saturating_add(self.heads.committed())
    }

    // ---- looking ---------------------------------------------------------------------------------------------

    /// Granules that are free from `at` on; [`MORE`] if one window does not show all of them.
    #[inline(always)]
    pub(crate) fn free_from(&self, at: Granule) -> usize {
        self.used.window(at).trailing_zeros() as usize
    }

    /// The granules below `at`, the nearest one highest, ones in use. Zero if one window shows none in use.
    #[inline(always)]
    pub(crate) fn used_below(&self, at: Granule) -> u64 {
        self.used.window_below(at)
    }

    /// Whether a granule is free.
    #[inline(always)]
    pub(crate) fn is_free(&self, at: Granule) -> bool {
        !self.used.bit(at)
    }

    /// Whether a segment in use begins at `at`.
    #[inline(always)]
    pub(crate) fn is_head(&self, at: Granule) -> bool {
        self.used.bit(at) && self.heads.bit(at)
    }

    /// The segment of exactly `n` granules, at most [`SHORT`], that is in use at `at`; none where no such segment is.
    ///
    /// Taking 1 away turns the head bit off if it is on, and makes ones below the next head if it is off; so the
    /// lowest bit left, or the first free granule, is where the segment ends, and it is 0 where none begins.
    #[inline(always)]
    pub(crate) fn short_at(&self, at: Granule, n: usize) -> Option<Short> {
        let used = self.used.window(at);
        let boundaries = self.heads.window(at).wrapping_sub(1) | !used;
        if boundaries.trailing_zeros() as usize != n {
            return None;
        }
        let mask = boundaries.wrapping_sub(1) & !boundaries;
        Some(Short { at, n, mask, below: self.used.window_below(at), above: used ^ mask })
    }

    /// Where the free segment that begins at `start` ends. Where it does not end below `limit`, which is top: `limit`.
    pub(crate) fn hole_end(&self, start: Granule, limit: Granule) -> Granule {
        let mut chunk = first_whole(start);
        if chunk_start(chunk) != start {
            let taken = self.used.get(start.chunk()) & (u64::MAX << start.bit());
            if taken != 0 {
                return chunk_start(start.chunk()).up(taken.trailing_zeros() as usize);
            }
        }
        if self.is_tag(chunk) && self.used.get(chunk) == 0 {
            return Granule((self.heads.get(chunk) & !TAG) as usize);
        }
        while chunk_start(chunk) < limit {
            let taken = self.used.get(chunk);
            if taken != 0 {
                return chunk_start(chunk).up(taken.trailing_zeros() as usize);
            }
            chunk = chunk.wrapping_add(1);
        }
        limit
    }

    /// Whether the words from `at` to the end of the next chunk say free and nothing else.
    pub(crate) fn is_clear_from(&self, at: Granule) -> bool {
        let next = at.chunk().wrapping_add(1);
        let first = self.used.get(at.chunk()) & (u64::MAX << at.bit());
        first | self.used.get(next) | self.heads.get(next) == 0
    }

    /// Where the free segment that ends at `end` begins; `end` itself where the granule below it is in use.
    pub(crate) fn hole_start(&self, end: Granule) -> Granule {
        let mut chunk = end.chunk();
        let taken = self.used.get(chunk) & ones(end.bit());
        if taken != 0 {
            return chunk_start(chunk).up(CHUNK - taken.leading_zeros() as usize);
        }
        // The sentinel stands in front of chunk 0.
        let below = chunk.wrapping_sub(1);
        if chunk > 0 && self.is_tag(below) && self.used.get(below) == 0 {
            chunk = (self.heads.get(below) & !TAG) as usize;
            return chunk_start(chunk).up(CHUNK - self.used.get(chunk).leading_zeros() as usize);
        }
        while chunk > 0 {
            chunk = chunk.wrapping_sub(1);
            let taken = self.used.get(chunk);
            if taken != 0 {
                return chunk_start(chunk).up(CHUNK - taken.leading_zeros() as usize);
            }
        }
        Granule(0)
    }

    /// Where the free segment begins that `place` lies in, if that is in the same chunk or the one below.
    pub(crate) fn near_hole_start(&self, place: Granule) -> Granule {
        let chunk = place.chunk();
        let taken = self.used.get(chunk) & ones(place.bit());
        if taken != 0 {
            return chunk_start(chunk).up(CHUNK - taken.leading_zeros() as usize);
        }
        let free_below = if chunk == 0 { 0 } else { self.used.get(chunk - 1).leading_zeros() as usize };
        chunk_start(chunk).down(free_below)
    }

    /// Whether the short way may free what makes `start..end` free, where what is freed ends at `to`: there are no tags,
    /// or they stay as they are, because no chunk becomes whole and the segment starts in the same chunk as before.
    #[inline(always)]
    pub(crate) fn gives_short(&self, start: Granule, to: Granule, end: Granule) -> bool {
        !is_tagged(start, end) || (start.chunk() == to.chunk() && start.bit() != 0)
    }

    /// Whether the short way may take `n` granules from the front of a free segment that is longer than a window: it
    /// has no tags, or keeps them, because it starts in the same chunk as before.
    #[inline(always)]
    pub(crate) fn keeps_tags(&self, start: Granule, n: usize) -> bool {
        start.down(1).0 ^ start.up(n).down(1).0 < CHUNK || !self.is_tag(first_whole(start))
    }

    /// The lowest place in the chunk, at or above bit `from` and among the bits of `grid`, where a free segment, or a
    /// part of one, has `n` granules, at most 64. The run may end in the next chunk; the place may be the next chunk's
    /// first granule, which every grid has.
    ///
    /// Three shifts for most sizes, and else six: just as many as a size needs would be one more branch to mispredict. The
    /// shifts are arithmetic, which takes the chunk's last run for as long as needed; the next word tells whether it is.
    #[inline(always)]
    pub(crate) fn run_in_chunk(&self, chunk: usize, from: usize, n: usize, grid: u64) -> Option<Granule> {
        let free = !self.used.get(chunk) & (u64::MAX << (from % CHUNK));
        let behind = self.used.get(chunk.wrapping_add(1)).trailing_zeros() as usize;
        let start = (runs(free, n) & grid).trailing_zeros() as usize;
        (start.wrapping_add(n) <= behind.wrapping_add(CHUNK)).then(|| chunk_start(chunk).up(start))
    }

    /// The first free granule of the chunk; the first of the next chunk where none is free.
    #[inline(always)]
    pub(crate) fn first_hole_in_chunk(&self, chunk: usize) -> Granule {
        chunk_start(chunk).up(self.used.get(chunk).trailing_ones() as usize)
    }

    /// Where the free segment begins that the chunk ends with; none where it ends in use, or where that segment began
    /// in a lower chunk.
    #[inline(always)]
    pub(crate) fn last_hole_in_chunk(&self, chunk: usize) -> Option<Granule> {
        let inside = self.used.get(chunk).leading_zeros() as usize;
        let start = chunk_start(chunk).up(CHUNK - inside);
        (inside > 0 && (inside < CHUNK || self.used_below(start) >> 63 != 0)).then_some(start)
    }

    /// The length of the longest free segment below `top` that starts in the chunk; no less than what of a lower one
    /// lies in it.
    pub(crate) fn longest_hole_in_chunk(&self, chunk: usize, top: Granule) -> usize {
        let used = self.used.get(chunk);
        if chunk == top.chunk() {
            // What is free from top on is wilderness, and nothing free touches it.
            return longest_run(!used & ones(top.bit()));
        }
        let inside = longest_run(!used);
        let last = self.last_hole_in_chunk(chunk);
        last.map_or(inside, |start| inside.max(self.hole_end(start, top).above(start)))
    }

    /// No less than the length of the longest free segment that starts in the chunk, where none is longer than a chunk.
    #[inline(always)]
    pub(crate) fn longest_hole_about(&self, chunk: usize) -> usize {
        let used = self.used.get(chunk);
        let behind = self.used.get(chunk.wrapping_add(1)).trailing_zeros() as usize;
        longest_run_about(!used).wrapping_add(if used >> 63 == 0 { behind } else { 0 })
    }

    #[inline(always)]
    fn boundaries(&self, chunk: usize) -> u64 {
        self.heads.get(chunk) | !self.used.get(chunk)
    }

    #[inline(always)]
    fn is_tag(&self, chunk: usize) -> bool {
        self.heads.get(chunk) & !self.used.get(chunk) & TAG != 0
    }

    // ---- changing --------------------------------------------------------------------------------------------

    /// Puts a segment of `n` granules, at most [`SHORT`], in use at `at`, in a free segment that [keeps its tags](Self::keeps_tags).
    #[inline(always)]
    pub(crate) fn take_short(&mut self, at: Granule, n: usize) {
        self.used.set_window(at, ones(n));
        self.heads.set_bit(at);
    }

    /// Frees a segment where [that needs no tags](Self::gives_short).
    #[inline(always)]
    pub(crate) fn give_seen(&mut self, short: Short) {
        self.give_bits(short.at, short.mask);
    }

    /// Frees the segment of `n` granules, at most [`SHORT`], at `at`, where [that needs no tags](Self::gives_short).
    #[inline(always)]
    pub(crate) fn give_short(&mut self, at: Granule, n: usize) {
        self.give_bits(at, ones(n));
    }

    /// Frees the segment at `at` that has so many granules as `mask` has ones.
    #[inline(always)]
    fn give_bits(&mut self, at: Granule, mask: u64) {
        self.used.flip_window(at, mask);
        self.heads.flip_window(at, 1);
    }

    /// Puts a part of the free segment `hole` in use.
    #[inline(always)]
    pub(crate) fn take(&mut self, hole: Extent, part: Extent) {
        let tagged = is_tagged(hole.start, hole.end);
        if tagged {
            self.untag(hole.start, hole.end);
        }
        self.fill(part.start, part.end);
        self.heads.set_bit(part.start);
        if tagged {
            self.tag_hole(hole.start, part.start);
            self.tag_hole(part.end, hole.end);
        }
    }

    /// Frees a segment and joins it with the free segments around it: all of `hole` is free then.
    pub(crate) fn give(&mut self, hole: Extent, segment: Extent) {
        // A free segment without tags has had no part with tags.
        let tagged = is_tagged(hole.start, hole.end);
        if tagged {
            self.untag_hole(hole.start, segment.start);
            self.untag_hole(segment.end, hole.end);
        }
        self.clear(segment.start, segment.end);
        if tagged {
            self.tag(hole.start, hole.end);
        }
    }

    /// Frees a segment that ends at top: it and the free segment that begins at `start` below it join the wilderness.
    pub(crate) fn give_to_wilderness(&mut self, start: Granule, segment: Extent) {
        self.untag_hole(start, segment.start);
        self.clear(segment.start, segment.end);
    }

    /// Puts a part of the wilderness in use, so that its end is the new top.
    pub(crate) fn take_wilderness(&mut self, part: Extent) {
        self.fill(part.start, part.end);
        self.heads.set_bit(part.start);
    }

    /// Notes that a part of the wilderness is a free segment below top from now on.
    pub(crate) fn note_hole(&mut self, hole: Extent) {
        self.tag_hole(hole.start, hole.end);
    }

    /// Moves the end of the segment `head..end` to `to`, up or down, where the free segment `end..hole_end` is
    /// behind it (none if the two are equal), so that `to..hole_end` is free.
    pub(crate) fn move_end(&mut self, head: Granule, end: Granule, to: Granule, hole_end: Granule) {
        self.untag_hole(end, hole_end);
        self.move_end_at_top(head, end, to);
        self.tag_hole(to, hole_end);
    }

    /// Writes the bounds of a free segment into it, if it covers enough.
    fn tag_hole(&mut self, start: Granule, end: Granule) {
        if is_tagged(start, end) {
            self.tag(start, end);
        }
    }

    /// Removes what [`Self::tag_hole`] wrote.
    fn untag_hole(&mut self, start: Granule, end: Granule) {
        if is_tagged(start, end) {
            self.untag(start, end);
        }
    }

    /// Writes the bounds of a free segment, which covers enough, into its first and its last whole chunk.
    #[inline(always)]
    fn tag(&mut self, start: Granule, end: Granule) {
        self.heads.set(first_whole(start), end.0 as u64 | TAG);
        self.heads.set(last_whole(end), start.chunk() as u64 | TAG);
    }

    /// Removes what [`Self::tag`] wrote.
    #[inline(always)]
    fn untag(&mut self, start: Granule, end: Granule) {
        self.heads.set(first_whole(start), 0);
        self.heads.set(last_whole(end), 0);
    }
}

/// Whether a free segment keeps its bounds in tags.
#[inline(always)]
const fn is_tagged(start: Granule, end: Granule) -> bool {
    end.chunk() >= first_whole(start) + TAGGED_CHUNKS
}

/// A chunk's first granule.
#[inline(always)]
pub(crate) const fn chunk_start(chunk: usize) -> Granule {
    Granule(chunk.wrapping_mul(CHUNK))
}

/// The first chunk that begins at or above `start`.
const fn first_whole(start: Granule) -> usize {
    start.0.div_ceil(CHUNK)
}

/// The last chunk that ends at or below `end`.
const fn last_whole(end: Granule) -> usize {
    end.chunk().wrapping_sub(1)
}
