//! Ranges of pages that are purged together.

use super::remap::remap;
use super::{Extent, Granule, Region};
use crate::system::errno;

/// The largest number of pieces in a batch. The batch lives on the stack and must be smaller than a page.
const MAX_PIECES: usize = 128;

/// Ranges of whole pages of a region, in ascending order.
pub(crate) struct Pieces {
    base: *mut u8,
    pieces: [Piece; MAX_PIECES],
    count: usize,
    /// Dirty granules in all pieces.
    granules: usize,
    /// Map the pieces again instead of only discarding their contents.
    remap: bool,
}

/// A range of granules. Their numbers fit in 32 bits, since regions are small enough.
#[derive(Clone, Copy)]
struct Piece {
    from: u32,
    to: u32,
    /// The number of dirty granules.
    dirty: u32,
    /// The system refused to purge the piece.
    refused: bool,
}

impl Piece {
    const NONE: Self = Self { from: 0, to: 0, dirty: 0, refused: false };

    fn pages(&self) -> Extent {
        Extent::new(Granule(self.from as usize), Granule(self.to as usize))
    }
}

impl Pieces {
    pub(crate) fn of(region: &Region) -> Self {
        Self { base: region.base, pieces: [Piece::NONE; MAX_PIECES], count: 0, granules: 0, remap: false }
    }

    /// Appends pages above all others, with `granules` dirty ones. False if the batch is full.
    pub(crate) fn push(&mut self, pages: Extent, granules: usize) -> bool {
        let Some(place) = self.pieces.get_mut(self.count) else { return false };
        let (from, to) = (pages.start.0 as u32, pages.end.0 as u32);
        *place = Piece { from, to, dirty: granules as u32, refused: false };
        self.count = self.count.wrapping_add(1);
        self.granules = self.granules.wrapping_add(granules);
        true
    }

    /// Makes [`discard`](Self::discard) join the pieces with the mapping around them.
    pub(crate) fn remap(&mut self) {
        self.remap = true;
    }

    /// Dirty granules in all pieces.
    pub(crate) fn granules(&self) -> usize {
        self.granules
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Extent> {
        self.pieces.iter().take(self.count).map(Piece::pages)
    }

    /// The pieces that the system refused to purge.
    pub(crate) fn refused(&self) -> impl Iterator<Item = Extent> {
        self.pieces.iter().take(self.count).filter(|piece| piece.refused).map(Piece::pages)
    }

    /// Dirty granules in the pieces that were purged.
    pub(crate) fn purged_granules(&self) -> usize {
        let taken = self.pieces.iter().take(self.count).filter(|piece| !piece.refused);
        taken.fold(0, |sum: usize, piece| sum.saturating_add(piece.dirty as usize))
    }

    /// The range from the first piece's start to the last one's end.
    pub(crate) fn span(&self) -> Extent {
        let mut pieces = self.iter();
        let first = pieces.next().unwrap_or(Extent::EMPTY);
        Extent::new(first.start, pieces.last().unwrap_or(first).end)
    }

    pub(crate) fn are_remapped(&self) -> bool {
        self.remap
    }

    /// Purges the pieces: they become zero and take no memory until they are written. The system refuses pieces that
    /// contain locked memory; a part of such a piece may be zero afterwards.
    ///
    /// # Safety
    /// The pieces lie in free segments, and nobody uses them before this returns.
    pub(crate) unsafe fn discard(&mut self) {
        errno::unchanged(|| {
            for piece in self.pieces.iter_mut().take(self.count) {
                let pages = piece.pages();
                // SAFETY: the piece lies inside the region (R1).
                let start = unsafe { self.base.add(pages.start.bytes()) };
                let bytes = pages.bytes();
                // SAFETY: the caller promises that the pages are free, and they belong to this region.
                piece.refused = unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) } != 0;
                // Mapping again fails if the process has too many mappings; the piece is purged all the same.
                // SAFETY: the pages are free, belong to this region, and are empty already.
                self.remap = self.remap && !piece.refused && unsafe { remap(start, bytes) };
            }
        });
    }
}
