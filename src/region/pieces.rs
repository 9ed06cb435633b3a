//! Giving memory back to the system, piece by piece.

use super::transfer::map_anew;
use super::{Granule, Region};
use crate::errno;

/// Pieces that are given back in one go: what lists them is on the stack, and takes less than a page of it.
const MOST_PIECES: usize = 128;

/// Ranges of whole pages of a region, in ascending order.
pub(crate) struct Pieces {
    base: *mut u8,
    ranges: [(u32, u32); MOST_PIECES],
    count: usize,
    granules: usize,
    /// They are mapped anew, and not only emptied.
    anew: bool,
}

impl Pieces {
    /// No pieces of a region.
    pub(crate) fn of(region: &Region) -> Self {
        Self { base: region.base, ranges: [(0, 0); MOST_PIECES], count: 0, granules: 0, anew: false }
    }

    /// Adds a range above all others, of which `granules` are dirty; false, and nothing has changed, when there are too
    /// many.
    pub(crate) fn push(&mut self, from: Granule, to: Granule, granules: usize) -> bool {
        let Some(place) = self.ranges.get_mut(self.count) else { return false };
        // Numbers fit, as regions do.
        *place = (from.0 as u32, to.0 as u32);
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
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Granule, Granule)> {
        self.ranges.iter().take(self.count).map(|&(from, to)| (Granule(from as usize), Granule(to as usize)))
    }

    /// Where the first begins and the last ends.
    pub(crate) fn span(&self) -> (Granule, Granule) {
        let mut pieces = self.iter();
        let first = pieces.next().unwrap_or((Granule(0), Granule(0)));
        (first.0, pieces.last().unwrap_or(first).1)
    }

    /// Whether the pieces are parts of the mapping around them now.
    pub(crate) fn are_anew(&self) -> bool {
        self.anew
    }

    /// Gives the pieces back to the system: they are zero then, and take no memory until they are written. False where
    /// it refuses one, as it does with locked memory.
    ///
    /// # Safety
    /// The pieces lie in free segments, and nobody uses them before this returns.
    pub(crate) unsafe fn discard(&mut self) -> bool {
        errno::unchanged(|| {
            let mut anew = self.anew;
            let done = self.iter().all(|(from, to)| self.discard_one(from, to, &mut anew));
            self.anew = anew;
            done
        })
    }

    /// Where it cannot be mapped `anew`, for want of mappings, it is only emptied.
    fn discard_one(&self, from: Granule, to: Granule, anew: &mut bool) -> bool {
        // SAFETY: the piece lies inside the region (R1).
        let start = unsafe { self.base.add(from.bytes()) };
        let bytes = Granule(to.above(from)).bytes();
        // SAFETY: the caller of `discard` promises that the pages are free; they belong to the region alone.
        let done = unsafe { libc::madvise(start.cast(), bytes, libc::MADV_DONTNEED) } == 0;
        // SAFETY: as above; what they held is gone already.
        *anew = done && *anew && unsafe { map_anew(start, bytes) };
        done
    }
}
