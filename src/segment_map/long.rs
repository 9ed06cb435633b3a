//! Segments of many chunks, which are gone through word by word, or by their tags.

use super::{HUGE, SegmentMap, TAG, chunk_start, ones};
use crate::region::Granule;

impl SegmentMap {
    /// Where the segment in use that begins at `head` ends.
    pub(crate) fn used_end(&self, head: Granule) -> Granule {
        let mut chunk = head.chunk();
        let mut boundaries = self.boundaries(chunk) & (u64::MAX << head.bit() << 1);
        loop {
            if boundaries != 0 {
                return chunk_start(chunk).up(boundaries.trailing_zeros() as usize);
            }
            chunk = chunk.wrapping_add(1);
            if self.is_tag(chunk) && self.used.get(chunk) & 1 != 0 {
                return Granule((self.used.get(chunk) >> 1) as usize);
            }
            boundaries = self.boundaries(chunk);
        }
    }

    /// Whether the granules `at..to`, fewer than [`HUGE`] and all below top, are a segment in use.
    pub(crate) fn is_segment(&self, at: Granule, to: Granule) -> bool {
        let (mut chunk, last) = (at.chunk(), to.chunk());
        // Where something else begins.
        let mut begins =
            (self.heads.get(chunk) ^ 1 << at.bit() | !self.used.get(chunk)) & u64::MAX << at.bit();
        let mut inside = 0;
        while chunk < last {
            inside |= begins;
            chunk = chunk.wrapping_add(1);
            begins = self.boundaries(chunk);
        }
        // What a tag says could be anything.
        let huge = self.is_tag(last) && self.used.get(last) & 1 != 0;
        inside == 0 && begins.trailing_zeros() as usize == to.bit() && !huge
    }

    /// Moves the end of the segment `head..end`, behind which is nothing but the wilderness, to `to`.
    pub(crate) fn move_end_at_top(&mut self, head: Granule, end: Granule, to: Granule) {
        if end.above(head) < HUGE && to.above(head) < HUGE {
            self.write_run(end, to, u64::MAX);
            self.write_run(to, end, 0);
        } else {
            self.clear_used(head, end);
            self.fill(head, to);
        }
    }

    /// Sets the bits of a segment in use that is about to have its head at `from`.
    pub(super) fn fill(&mut self, from: Granule, to: Granule) {
        if to.above(from) < HUGE {
            self.write_run(from, to, u64::MAX);
            return;
        }
        let third = third_chunk(from);
        self.write_run(from, chunk_start(third), u64::MAX);
        // Odd, so that the word's first granule counts as in use like any other of the segment.
        self.used.set(third, (to.0 as u64) << 1 | 1);
        self.heads.set(third, TAG);
        self.write_run(chunk_start(to.down(1).chunk()), to, u64::MAX);
    }

    /// Clears the bits of the segment in use `from..to`, head and tag included.
    pub(super) fn clear(&mut self, from: Granule, to: Granule) {
        self.clear_used(from, to);
        self.heads.clear_bit(from);
    }

    fn clear_used(&mut self, from: Granule, to: Granule) {
        if to.above(from) < HUGE {
            self.write_run(from, to, 0);
            return;
        }
        let third = third_chunk(from);
        self.write_run(from, chunk_start(third), 0);
        self.used.set(third, 0);
        self.heads.set(third, 0);
        self.write_run(chunk_start(to.down(1).chunk()), to, 0);
    }

    /// Writes the bits of `from..to` in `used`, if there are any: all ones or all zeros.
    fn write_run(&mut self, from: Granule, to: Granule, value: u64) {
        if to <= from {
            return;
        }
        let (mut chunk, last) = (from.chunk(), to.chunk());
        let mut mask = u64::MAX << from.bit();
        if chunk < last {
            self.write_bits(chunk, mask, value);
            chunk = chunk.wrapping_add(1);
            while chunk < last {
                self.used.set(chunk, value);
                chunk = chunk.wrapping_add(1);
            }
            mask = u64::MAX;
        }
        self.write_bits(chunk, mask & ones(to.bit()), value);
    }

    #[inline(always)]
    fn write_bits(&mut self, chunk: usize, mask: u64, value: u64) {
        self.used.set(chunk, self.used.get(chunk) & !mask | value & mask);
    }
}

/// The chunk that holds the tag of a huge segment in use: no window from a granule of the first one reaches it.
const fn third_chunk(head: Granule) -> usize {
    head.chunk() + 2
}
