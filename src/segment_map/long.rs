//! Segments of many chunks: their bits are read and written word by word, or found by tags.

use super::{HUGE, SegmentMap, TAG, chunk_start, low_bits};
use crate::region::Granule;

impl SegmentMap {
    /// The end of the segment in use that begins at `head`.
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

    /// Whether `at..to`, less than [`HUGE`] granules and all below top, is exactly one segment in use.
    pub(crate) fn is_segment(&self, at: Granule, to: Granule) -> bool {
        let (mut chunk, last) = (at.chunk(), to.chunk());
        // Set where anything but this segment begins.
        let mut begins =
            (self.heads.get(chunk) ^ 1 << at.bit() | !self.used.get(chunk)) & u64::MAX << at.bit();
        let mut inside = 0;
        while chunk < last {
            inside |= begins;
            chunk = chunk.wrapping_add(1);
            begins = self.boundaries(chunk);
        }
        // A tag is an arbitrary number; its bits must not be taken for boundaries.
        let huge = self.is_tag(last) && self.used.get(last) & 1 != 0;
        inside == 0 && begins.trailing_zeros() as usize == to.bit() && !huge
    }

    /// Moves the end of the segment `head..end` to `to`, where only the wilderness follows.
    pub(crate) fn move_end_at_top(&mut self, head: Granule, end: Granule, to: Granule) {
        if end.above(head) < HUGE && to.above(head) < HUGE {
            self.write_run(end, to, u64::MAX);
            self.write_run(to, end, 0);
        } else {
            self.clear_used(head, end);
            self.fill(head, to);
        }
    }

    /// Sets the bits of a segment in use; the caller sets its head at `from`.
    pub(super) fn fill(&mut self, from: Granule, to: Granule) {
        if to.above(from) < HUGE {
            self.write_run(from, to, u64::MAX);
            return;
        }
        let third = third_chunk(from);
        self.write_run(from, chunk_start(third), u64::MAX);
        // Bit 0 is set because the word's first granule is in use, like all of the segment.
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

    /// Writes `value`, all ones or all zeros, to the bits `from..to` of `used`.
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
        self.write_bits(chunk, mask & low_bits(to.bit()), value);
    }

    #[inline(always)]
    fn write_bits(&mut self, chunk: usize, mask: u64, value: u64) {
        self.used.set(chunk, self.used.get(chunk) & !mask | value & mask);
    }
}

/// The chunk that holds the tag of a huge segment in use. No window that starts in the first chunk reaches it.
const fn third_chunk(head: Granule) -> usize {
    head.chunk() + 2
}
