//! The changes between two snapshots of one heap, byte by byte: newly used, newly freed, or unchanged.

use core::fmt;
use core::iter::{FusedIterator, Peekable};

use super::human::Bytes;
use super::number::wide;
use super::snapshot::{Segments, Snapshot};

/// The change of a byte between two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Fate {
    /// In use both times, even if it was freed and allocated again in between.
    StayedUsed,
    /// Free both times.
    StayedFree,
    /// Free before, in use after.
    NewlyUsed,
    /// In use before, free after.
    NewlyFreed,
}

impl Fate {
    const fn of(was_in_use: bool, is_in_use: bool) -> Self {
        match (was_in_use, is_in_use) {
            (true, true) => Self::StayedUsed,
            (false, false) => Self::StayedFree,
            (false, true) => Self::NewlyUsed,
            (true, false) => Self::NewlyFreed,
        }
    }
}

/// A run of bytes with one [`Fate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Change {
    /// The offset from the region's base, in bytes.
    pub offset: usize,
    /// The size in bytes.
    pub size: usize,
    /// The change of these bytes.
    pub fate: Fate,
}

/// Bytes by [`Fate`]. They add up to the region's size. Prints as one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DiffSummary {
    /// Bytes in use both times.
    pub stayed_used: u64,
    /// Bytes free both times.
    pub stayed_free: u64,
    /// Bytes free before and in use after.
    pub newly_used: u64,
    /// Bytes in use before and free after.
    pub newly_freed: u64,
}

impl fmt::Display for DiffSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [used, freed, stayed] = [self.newly_used, self.newly_freed, self.stayed_used].map(Bytes);
        let free = Bytes(self.stayed_free);
        write!(f, "{used} newly used, {freed} newly freed, {stayed} stayed in use, {free} stayed free")
    }
}

impl Snapshot {
    /// The changes since `earlier`, an older snapshot of the same heap: maximal runs in address order.
    ///
    /// Bytes that one of the two does not cover count as free in it. So a heap that was not mapped yet counts as empty.
    ///
    /// ```
    /// use core::alloc::Layout;
    /// use smalloc::{Change, Fate};
    ///
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
    /// heap.smalloc(Layout::new::<[u8; 64]>());
    /// let before = heap.snapshot()?;
    /// heap.smalloc(Layout::new::<[u8; 32]>());
    /// let after = heap.snapshot()?;
    ///
    /// let new: Vec<Change> = after.since(&before).filter(|change| change.fate == Fate::NewlyUsed).collect();
    /// assert_eq!(new, [Change { offset: 64, size: 32, fate: Fate::NewlyUsed }]);
    /// assert_eq!(after.since(&before).summary().stayed_used, 64);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn since<'a>(&'a self, earlier: &'a Self) -> Diff<'a> {
        let end = self.stats().region_size.max(earlier.stats().region_size);
        let pieces = Pieces { earlier: Side::new(earlier), later: Side::new(self), offset: 0, end };
        Diff { pieces: pieces.peekable() }
    }
}

/// The changes between two snapshots in address order; see [`Snapshot::since`].
#[derive(Clone, Debug)]
pub struct Diff<'a> {
    pieces: Peekable<Pieces<'a>>,
}

impl Diff<'_> {
    /// Sums up the remaining runs by fate.
    #[must_use]
    pub fn summary(self) -> DiffSummary {
        self.fold(DiffSummary::default(), |mut summary, change| {
            let bytes = match change.fate {
                Fate::StayedUsed => &mut summary.stayed_used,
                Fate::StayedFree => &mut summary.stayed_free,
                Fate::NewlyUsed => &mut summary.newly_used,
                Fate::NewlyFreed => &mut summary.newly_freed,
            };
            *bytes += wide(change.size);
            summary
        })
    }
}

impl Iterator for Diff<'_> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        let mut change = self.pieces.next()?;
        while let Some(piece) = self.pieces.next_if(|piece| piece.fate == change.fate) {
            change.size += piece.size;
        }
        Some(change)
    }
}

impl FusedIterator for Diff<'_> {}

/// Runs between the segment bounds of both snapshots. Neighbours may have the same fate.
#[derive(Clone, Debug)]
struct Pieces<'a> {
    earlier: Side<'a>,
    later: Side<'a>,
    offset: usize,
    end: usize,
}

impl Iterator for Pieces<'_> {
    type Item = Change;

    fn next(&mut self) -> Option<Change> {
        let offset = self.offset;
        if offset >= self.end {
            return None;
        }
        let (was_in_use, earlier_end) = self.earlier.at(offset);
        let (is_in_use, later_end) = self.later.at(offset);
        self.offset = earlier_end.min(later_end).min(self.end);
        Some(Change { offset, size: self.offset - offset, fate: Fate::of(was_in_use, is_in_use) })
    }
}

#[derive(Clone, Debug)]
struct Side<'a> {
    segments: Peekable<Segments<'a>>,
}

impl<'a> Side<'a> {
    fn new(snapshot: &'a Snapshot) -> Self {
        Self { segments: snapshot.segments().peekable() }
    }

    /// Whether the byte at `offset` is in use, and the end of its segment. Offsets must not fall from call to call.
    fn at(&mut self, offset: usize) -> (bool, usize) {
        while self.segments.next_if(|segment| segment.end() <= offset).is_some() {}
        self.segments.peek().map_or((false, usize::MAX), |segment| (segment.in_use, segment.end()))
    }
}

#[cfg(test)]
#[path = "../../tests/unit/inspect/diff.rs"]
mod tests;
