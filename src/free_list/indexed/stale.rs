//! The bounds that may be too high: a few of them, however memory was taken.
//!
//! Taking memory leaves a bound as it is. Most of such bounds are raised again, or corrected by a search, before they
//! mislead one, and many requests in a row are served by the same free segment. But a search looks at each chunk whose
//! bound is too high in vain. So these chunks are written to a ring, and after every [`HALF`] of them, the older half
//! is corrected.

/// The number of chunks that are corrected at once, and half of those that may have a stale bound. With more, fewer are
/// corrected for nothing; with fewer, the longest search is shorter.
pub(super) const HALF: usize = 16;
/// The most bounds that are stale.
pub(super) const CAPACITY: usize = 2 * HALF;

/// The chunks with stale bounds. Some may have been corrected since.
#[derive(Debug)]
pub(super) struct Stale {
    chunks: [u32; CAPACITY],
    /// The number of chunks written.
    written: usize,
    /// The value of `written` when chunks were last corrected.
    corrected: usize,
    /// Chunks written since then at which [`push`](Self::push) says that it is time to correct some.
    limit: usize,
}

impl Stale {
    pub(super) const EMPTY: Self = Self { chunks: [0; CAPACITY], written: 0, corrected: 0, limit: HALF };

    /// Writes a chunk. True if it is time to correct some.
    #[inline(always)]
    pub(super) fn push(&mut self, chunk: usize) -> bool {
        if let Some(place) = self.chunks.get_mut(self.written % CAPACITY) {
            // Chunk numbers fit in 32 bits, as regions are limited to that.
            *place = chunk as u32;
        }
        self.written = self.written.wrapping_add(1);
        self.written.wrapping_sub(self.corrected) >= self.limit
    }

    /// Whether it is time to correct some.
    #[inline(always)]
    pub(super) fn is_due(&self) -> bool {
        self.written.wrapping_sub(self.corrected) >= HALF
    }

    /// The chunks that have to be corrected now.
    pub(super) fn take_due(&mut self) -> [u32; HALF] {
        self.corrected = self.written;
        let halves = self.chunks.as_chunks::<HALF>().0;
        halves.get(self.written / HALF % 2).copied().unwrap_or([0; HALF])
    }

    /// Lets [`push`](Self::push) say always, or only when it is, that it is time.
    pub(super) fn report_all(&mut self, always: bool) {
        self.limit = if always { 0 } else { HALF };
    }

    pub(super) fn contains(&self, chunk: usize) -> bool {
        self.chunks.iter().any(|&held| held as usize == chunk)
    }
}
