//! The segment map: where every segment begins and ends, recorded beside the heap instead of in headers.
//!
//! Two bitmaps hold two bits for each granule. `used` is set on every granule of a segment in use, `heads` on the first
//! granule of that segment. A free segment has no bits of its own: it is a run of zeros in `used`. Freeing clears bits,
//! and that alone coalesces the segment with its free neighbours.
//!
//! ```text
//! granules   0   1   2   3   4   5   6   7   8   9  ...
//!          | A         | B     | free      | C | free (wilderness) ...
//! used       1   1   1   1   1   0   0   0   1   0  ...
//! heads      1   0   0   1   0   0   0   0   1   0  ...
//!                                                ^ top
//! ```
//!
//! A small segment is measured with one load and a few instructions. A scan over 1 MiB would read 1,024 words, so large
//! segments keep their bounds in words that lie wholly inside them, called tags:
//!
//! - A segment in use of [`HUGE`] granules or more has its bits set only in its first two chunks and its last one. The
//!   word of its third chunk in `used` holds its end. The words between are not written.
//! - A free segment that covers [`TAGGED_CHUNKS`] whole chunks or more has zeros in `used`, like any other. In `heads`,
//!   its first whole chunk holds its end, and its last whole chunk the number of the chunk it starts in; or of the
//!   chunk below, if it starts at a chunk's first granule.
//!
//! A word is a tag if [`TAG`] is set in `heads` and not in `used`: a head on a free granule, which ordinary bits never
//! show. So finding, measuring, taking and freeing a segment of any size touches at most `HUGE / CHUNK` words.
//!
//! The map has no policy and no free list, and does not know `top`: all bits above top are zero. Invariants:
//!
//! - **M1** segments tile the region below top;
//! - **M2** no two neighbours are both free: a run of zeros is one segment, so this holds by construction;
//! - **M3** no free segment touches top: it would be part of the wilderness.

mod ends;
mod holes;
mod long;
mod runs;

use crate::region::{CHUNK, Extent, Granule, LINE, Reservation, SPARE_CHUNKS, Table, WINDOW};
use runs::{longest_run_about, runs};
use static_assertions::const_assert;

/// The least size, in granules, of a segment in use that keeps its end in a tag: 64 KiB. The bits of smaller segments
/// are written word by word, at most 64 words or eight cache lines.
pub(crate) const HUGE: usize = 64 * CHUNK;
/// The least number of whole chunks in a free segment that keeps its bounds in tags. With two, more calls write tags;
/// with four, scans for a hole's end read one word more. On the traces, all three cost the same within 0.4 %.
const TAGGED_CHUNKS: usize = 3;
/// Marks a word as a tag when set in `heads` and clear in `used`.
const TAG: u64 = 1 << 63;
/// The largest segment, in granules, that the fast path handles: one window shows all of it and the granule behind it.
pub(crate) const SHORT: usize = WINDOW - 1;
/// The length that [`free_from`](SegmentMap::free_from) returns if the free run does not end in the window.
pub(crate) const NO_END: usize = u64::BITS as usize;

const_assert!(SHORT < CHUNK);
// A huge segment in use covers its third chunk completely; a tagged free segment has a first and a last whole chunk.
const_assert!(HUGE >= 4 * CHUNK && TAGGED_CHUNKS >= 2);

/// A word with its lowest `n` bits set, `n` below 64.
#[inline(always)]
const fn low_bits(n: usize) -> u64 {
    !(u64::MAX << (n % CHUNK))
}

/// A segment in use of at most [`SHORT`] granules, and the windows on both sides of it.
#[derive(Clone, Copy)]
pub(crate) struct Short {
    pub(crate) at: Granule,
    pub(crate) n: usize,
    /// As many low bits set as the segment has granules.
    mask: u64,
    /// The granules below `at`, nearest highest, set where in use. Zero if the window shows none in use.
    pub(crate) below: u64,
    /// The granules in use behind the segment; bit 0 is `at`. Zero if the window shows none.
    pub(crate) above: u64,
}

#[derive(Debug)]
pub(crate) struct SegmentMap {
    used: Table<u64>,
    heads: Table<u64>,
}

impl SegmentMap {
    pub(crate) const NONE: Self = Self { used: Table::NONE, heads: Table::NONE };

    /// Bytes of the reservation that `used` and `heads` take for `chunks` chunks.
    pub(crate) fn bytes(chunks: usize) -> [usize; 2] {
        let heads = Table::<u64>::bytes(chunks.saturating_add(SPARE_CHUNKS));
        [heads.saturating_add(LINE), heads]
    }

    /// The map for `chunks` chunks, with the bitmaps at these offsets of the reservation. `used` has a spare cache line
    /// in front, in the page where it begins, so that reads below granule 0 are valid.
    pub(crate) fn new(reservation: &Reservation, [used, heads]: [usize; 2], chunks: usize) -> Self {
        let table = |offset| Table::new(reservation, offset, chunks.saturating_add(SPARE_CHUNKS));
        Self { used: table(used.saturating_add(LINE)), heads: table(heads) }
    }

    /// Commits the map for `chunks` chunks (R2). False if the system refuses.
    pub(crate) fn commit(&mut self, chunks: usize) -> bool {
        let entries = chunks.saturating_add(SPARE_CHUNKS);
        let done = self.used.commit(entries) && self.heads.commit(entries);
        if done {
            self.used.raise_sentinel();
        }
        done
    }

    pub(crate) fn committed(&self) -> usize {
        self.used.committed().saturating_add(self.heads.committed())
    }

    // ---- looking ---------------------------------------------------------------------------------------------

    /// Free granules from `at` on; [`NO_END`] if the run does not end in the window.
    #[inline(always)]
    pub(crate) fn free_from(&self, at: Granule) -> usize {
        self.used.window(at).trailing_zeros() as usize
    }

    /// The granules below `at`, nearest highest, set where in use. Zero if the window shows none in use.
    #[inline(always)]
    pub(crate) fn used_below(&self, at: Granule) -> u64 {
        self.used.window_below(at)
    }

    #[inline(always)]
    pub(crate) fn is_free(&self, at: Granule) -> bool {
        !self.used.bit(at)
    }

    /// Whether a segment in use begins at `at`.
    #[inline(always)]
    pub(crate) fn is_head(&self, at: Granule) -> bool {
        self.used.bit(at) && self.heads.bit(at)
    }

    /// The segment in use of exactly `n` granules at `at`, at most [`SHORT`]; None if there is no such segment.
    ///
    /// Subtracting 1 clears a head at `at`; without one, it borrows from the next head and sets bit 0. So the lowest
    /// bit left, or the first free granule, is the segment's length, and 0 means that none begins here.
    #[inline(always)]
    pub(crate) fn short_at(&self, at: Granule, n: usize) -> Option<Short> {
        self.short_if(at, |found| found == n)
    }

    /// The segment in use of at most [`SHORT`] granules at `at`; None if there is no such segment.
    #[inline(always)]
    pub(crate) fn short_from(&self, at: Granule) -> Option<Short> {
        self.short_if(at, |found| found.wrapping_sub(1) < SHORT)
    }

    #[inline(always)]
    fn short_if(&self, at: Granule, is_wanted: impl FnOnce(usize) -> bool) -> Option<Short> {
        let used = self.used.window(at);
        let boundaries = self.heads.window(at).wrapping_sub(1) | !used;
        let n = boundaries.trailing_zeros() as usize;
        if !is_wanted(n) {
            return None;
        }
        let mask = boundaries.wrapping_sub(1) & !boundaries;
        Some(Short { at, n, mask, below: self.used.window_below(at), above: used ^ mask })
    }

    /// The end of the free segment at `start`, or `limit` (which is top) if it does not end below that.
    #[inline]
    pub(crate) fn hole_end(&self, start: Granule, limit: Granule) -> Granule {
        let (chunk, bit) = (start.chunk(), start.bit());
        if bit == 0 {
            return self.hole_end_from(chunk, limit);
        }
        let taken = self.used.get(chunk) & (u64::MAX << bit);
        if taken != 0 {
            return chunk_start(chunk).up(taken.trailing_zeros() as usize);
        }
        self.hole_end_from(chunk.wrapping_add(1), limit)
    }

    /// The end of a free segment that reaches up to the chunk, or starts with it, if it does not end below `limit`.
    #[inline(always)]
    fn hole_end_from(&self, mut chunk: usize, limit: Granule) -> Granule {
        let heads = self.heads.get(chunk);
        loop {
            let taken = self.used.get(chunk);
            if taken != 0 {
                return chunk_start(chunk).up(taken.trailing_zeros() as usize);
            }
            // Only the first whole chunk is a tag that says where the segment ends.
            if heads & TAG != 0 {
                return Granule((heads & !TAG) as usize);
            }
            chunk = chunk.wrapping_add(1);
            if chunk_start(chunk) >= limit {
                return limit;
            }
        }
    }

    /// Whether all words from `at` to the end of the next chunk are zero.
    pub(crate) fn is_clear_from(&self, at: Granule) -> bool {
        let next = at.chunk().wrapping_add(1);
        let first = self.used.get(at.chunk()) & (u64::MAX << at.bit());
        first | self.used.get(next) | self.heads.get(next) == 0
    }

    /// The start of the free segment that ends at `end`; `end` itself if the granule below it is in use.
    pub(crate) fn hole_start(&self, end: Granule) -> Granule {
        let mut chunk = end.chunk();
        let taken = self.used.get(chunk) & low_bits(end.bit());
        if taken != 0 {
            return chunk_start(chunk).up(CHUNK - taken.leading_zeros() as usize);
        }
        // The sentinel is in front of chunk 0.
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

    /// Whether [`give_short`](Self::give_short) can free a segment that ends at `to` and becomes part of the free
    /// segment `start..end`: this has no tags, or keeps those it has, since it starts in the same chunk and no chunk
    /// becomes free.
    #[inline(always)]
    pub(crate) fn can_give_short(&self, start: Granule, to: Granule, end: Granule) -> bool {
        !is_tagged(start, end) || (start.chunk() == to.chunk() && start.bit() != 0)
    }

    /// Whether [`take_short`](Self::take_short) can take `n` granules at the front of a free segment longer than a
    /// window: it has no tags, or keeps them, since it still starts in the same chunk.
    #[inline(always)]
    pub(crate) fn keeps_tags(&self, start: Granule, n: usize) -> bool {
        start.down(1).0 ^ start.up(n).down(1).0 < CHUNK || !self.is_tag(first_whole(start))
    }

    /// The lowest place in the chunk with `n` free granules, at most 64. The run may end in the next chunk, and may
    /// start with its first granule.
    ///
    /// A run that reaches the chunk's end counts as long enough at first; the next word decides.
    #[inline(always)]
    pub(crate) fn run_in_chunk(&self, chunk: usize, n: usize) -> Option<Granule> {
        let free = !self.used.get(chunk);
        let behind = self.used.get(chunk.wrapping_add(1)).trailing_zeros() as usize;
        let start = runs(free, n).trailing_zeros() as usize;
        (start.wrapping_add(n) <= behind.wrapping_add(CHUNK)).then(|| chunk_start(chunk).up(start))
    }

    /// The place of the first free granule in the chunk, 64 if none is free, and [how many are](Self::free_in_chunk)
    /// from there.
    #[inline(always)]
    pub(crate) fn first_run(&self, chunk: usize) -> (usize, usize) {
        let used = self.used.get(chunk);
        let bit = used.trailing_ones() as usize;
        (bit, (used >> (bit % CHUNK)).trailing_zeros() as usize)
    }

    /// Free granules of the chunk from its granule `bit` on; [`NO_END`] if all of them are free.
    #[inline(always)]
    pub(crate) fn free_in_chunk(&self, chunk: usize, bit: usize) -> usize {
        (self.used.get(chunk) >> (bit % CHUNK)).trailing_zeros() as usize
    }

    /// A cheap upper bound, in granules, on the free segments that start in the chunk, if none is longer than a chunk.
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

    /// Puts `n` granules of a chunk in use from its granule `bit` on, which are free, and fewer than all that are left.
    /// The chunk is no tag.
    #[inline(always)]
    pub(crate) fn take_in_chunk(&mut self, chunk: usize, bit: usize, n: usize) {
        let head = 1_u64 << (bit % CHUNK);
        let mask = (head << (n % CHUNK)).wrapping_sub(head);
        self.used.set(chunk, self.used.get(chunk) | mask);
        self.heads.set(chunk, self.heads.get(chunk) | head);
    }

    /// Puts `n` granules at `at`, at most [`SHORT`], in use, in a free segment that [keeps its tags](Self::keeps_tags).
    #[inline(always)]
    pub(crate) fn take_short(&mut self, at: Granule, n: usize) {
        self.used.set_window(at, low_bits(n));
        self.heads.set_bit(at);
    }

    /// Frees a segment that [`short_at`](Self::short_at) found, where [no tags change](Self::can_give_short).
    #[inline(always)]
    pub(crate) fn give_found(&mut self, short: Short) {
        self.give_bits(short.at, short.mask);
    }

    /// Frees the segment of `n` granules at `at`, at most [`SHORT`], where [no tags change](Self::can_give_short).
    #[inline(always)]
    pub(crate) fn give_short(&mut self, at: Granule, n: usize) {
        self.give_bits(at, low_bits(n));
    }

    /// Frees the segment at `at` that has as many granules as `mask` has ones.
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

    /// Frees a segment and coalesces it with the free segments around it, which makes all of `hole` free.
    pub(crate) fn give(&mut self, hole: Extent, segment: Extent) {
        // If the whole has no tags, none of its parts had any.
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

    /// Frees a segment that ends at top: it and the hole that starts at `start` below it join the wilderness.
    pub(crate) fn give_to_wilderness(&mut self, start: Granule, segment: Extent) {
        self.untag_hole(start, segment.start);
        self.clear(segment.start, segment.end);
    }

    /// Puts a part of the wilderness in use. The caller sets top to the part's end.
    pub(crate) fn take_wilderness(&mut self, part: Extent) {
        self.fill(part.start, part.end);
        self.heads.set_bit(part.start);
    }

    /// Records padding, a part of the wilderness until now, as a free segment.
    pub(crate) fn note_hole(&mut self, hole: Extent) {
        self.tag_hole(hole.start, hole.end);
    }

    /// Moves the end of the segment `head..end`, up or down, to `to`. The free segment behind it, `end..hole_end`
    /// (maybe empty), becomes `to..hole_end`.
    pub(crate) fn move_end(&mut self, head: Granule, end: Granule, to: Granule, hole_end: Granule) {
        self.untag_hole(end, hole_end);
        self.move_end_at_top(head, end, to);
        self.tag_hole(to, hole_end);
    }

    /// Writes the tags of a free segment if it is large enough for tags.
    fn tag_hole(&mut self, start: Granule, end: Granule) {
        if is_tagged(start, end) {
            self.tag(start, end);
        }
    }

    fn untag_hole(&mut self, start: Granule, end: Granule) {
        if is_tagged(start, end) {
            self.untag(start, end);
        }
    }

    /// Writes the bounds of a free segment into its first and its last whole chunk.
    #[inline(always)]
    fn tag(&mut self, start: Granule, end: Granule) {
        self.heads.set(first_whole(start), end.0 as u64 | TAG);
        self.heads.set(last_whole(end), start.chunk() as u64 | TAG);
    }

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
