//! Giving memory back to the system, piece by piece.

use super::transfer::map_anew;
use super::{Extent, Granule, Region};
use crate::system::errno;

/// Pieces that are given back in one go: what lists them is on the stack, and takes less than a page of it.
const MOST_PIECES: usize = 128;

/// Ranges of whole pages of a region, in ascending order.
pub(crate) struct Pieces {
    base: *mut u8,
    pieces: [Piece; MOST_PIECES],
    count: usize,
    /// Dirty granules in all pieces.
    granules: usize,
    /// They are mapped anew, and not only emptied.
    anew: bool,
}

/// A range of granules, whose numbers fit, as regions do.
#[derive(Clone, Copy)]
struct Piece {
    from: u32,
    to: u32,
    /// How many of them are dirty.
    dirty: u32,
    /// The system did not take it.
    refused: bool,
}

impl Piece {
    const NONE: Self = Self { from: 0, to: 0, dirty: 0, refused: false };

    fn pages(&self) -> Extent {
        Extent::new(Granule(self.from as usize), Granule(self.to as usize))
    }
}

impl Pieces {
    /// No pieces of a region.
    pub(crate) fn of(region: &Region) -> Self {
        Self { base: region.base, pieces: [Piece::NONE; MOST_PIECES], count: 0, granules: 0, anew: false }
    }

    /// Adds pages above all others, of which `granules` are dirty; false, and nothing has changed, when there are too
    /// many pieces.
    pub(crate) fn push(&mut self, pages: Extent, granules: usize) -> bool {
        let Some(place) = self.pieces.get_mut(self.count) else { return false };
        let (from, to) = (pages.start.0 as u32, pages.end.0 as u32);
        *place = Piece { from, to, dirty: granules as u32, refused: false };
        self.count = self.count.wrapping_add(1);
        self.granules = self.granules.wrapping_add(granules);
        true
    }

    /// Makes the pieces parts of the mapping around them when they are given back.
    pub(crate) fn map_anew(&mut self) {
        self.anew = true;
    }

    /// Dirty granules in all pieces.
    pub(crate) fn granules(&self) -> usize {
        self.granules
    }

    /// The pieces.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Extent> {
        self.pieces.iter().take(self.count).map(Piece::pages)
    }

    /// Those of them that the system refused.
    pub(crate) fn refused(&self) -> impl Iterator<Item = Extent> {
        self.pieces.iter().take(self.count).filter(|piece| piece.refused).map(Piece::pages)
    }

    /// Dirty granules in those that it took.
    pub(crate) fn given(&self) -> usize {
        let taken = self.pieces.iter().take(self.count).filter(|piece| !piece.refused);
        taken.fold(0, |sum: usize, piece| sum.saturating_add(piece.dirty as usize))
    }

    /// Where the first begins and the last ends.
    pub(crate) fn span(&self) -> Extent {
        let mut pieces = self.iter();
        let first = pieces.next().unwrap_or(Extent::EMPTY);
        Extent::new(first.start, pieces.last().unwrap_or(first).end)
    }

    /// Whether the pieces are parts of the mapping around them now.
    pub(crate) fn are_anew(&self) -> bool {
        self.anew
    }

    /// Gives the pieces back to the system: they are zero then, and take no memory until they are written. It refuses those
    /// in which memory is locked; of such a piece, a part may be zero.
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
                // SAFETY: the caller promises that the pages are free; they belong to the region alone.
                piece.refused = unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) } != 0;
                // Where it cannot be mapped anew, for want of mappings, it is only emptied.
                // SAFETY: as above; what they held is gone already.
                self.anew = self.anew && !piece.refused && unsafe { map_anew(start, bytes) };
            }
        });
    }
}
