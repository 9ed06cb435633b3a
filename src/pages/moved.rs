//! Moved pages: ranges that `mremap` moved to their place, and that are mappings of their own.
//!
//! The kernel numbers the pages of a mapping from its start, and pages keep their numbers when they move. So moved
//! pages do not merge with the mapping around them, even when free and empty, until they are mapped again. `mremap`
//! takes pages of one mapping at a time, and the number of mappings per process is limited. This is why the heap keeps
//! a list of moved ranges, of limited length. It may list ranges that have merged since, but misses none.
//!
//! In a child of `fork`, the kernel does not always merge a new mapping with its neighbours. So a heap that learns of
//! the fork moves no more pages in the child. A standalone [`Heap`](crate::Heap) does not learn of it.

use crate::region::{Extent, Granule, Span, Table};

/// The largest number of ranges. Each makes one mapping three: 96 more, of the 65,530 that Linux allows a process.
const MAX_RANGES: usize = 48;

/// Disjoint ranges of pages, in ascending order.
#[derive(Debug)]
pub(crate) struct Moved {
    /// Granule numbers, which fit in 32 bits since regions are small enough.
    ranges: Table<(u32, u32)>,
    count: usize,
    /// No pages are moved or mapped again any more.
    stopped: bool,
}

impl Moved {
    pub(super) const NONE: Self = Self { ranges: Table::NONE, count: 0, stopped: false };

    pub(crate) fn bytes() -> usize {
        Table::<(u32, u32)>::bytes(MAX_RANGES)
    }

    pub(super) fn new(cold: &mut Span) -> Self {
        Self { ranges: Table::carve(cold, MAX_RANGES), ..Self::NONE }
    }

    /// Stops moving pages and mapping them again, for good.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether `ranges` more may be moved to one segment. Each may split an existing range.
    pub(crate) fn has_room(&self, ranges: usize) -> bool {
        !self.stopped && self.count.saturating_add(ranges.saturating_mul(2)) < MAX_RANGES
    }

    fn iter(&self) -> impl Iterator<Item = Extent> {
        (0..self.count).map(|place| {
            let (from, to) = self.ranges.get(place);
            Extent::new(Granule(from as usize), Granule(to as usize))
        })
    }

    /// Whether some of the pages were moved and may be mapped again.
    pub(crate) fn holds_any(&self, pages: Extent) -> bool {
        !self.stopped && self.iter().any(|range| range.overlaps(pages))
    }

    /// The end of the mapping that holds the first of the pages, at most the end of the pages.
    pub(crate) fn mapping_end(&self, pages: Extent) -> Granule {
        let mut bounds = self.iter().flat_map(|range| [range.start, range.end]);
        bounds.find(|&bound| bound > pages.start).unwrap_or(pages.end).min(pages.end)
    }

    /// Adds pages that are now a part of one mapping. The list must [have room](Self::has_room).
    pub(crate) fn insert(&mut self, pages: Extent) {
        self.replace(pages, true);
    }

    /// Removes pages that belong to the mapping around them again. A range that a full list would have to split stays.
    pub(crate) fn remove(&mut self, pages: Extent) {
        self.replace(pages, false);
    }

    /// Removes all ranges within `pages`; then adds `pages` if `add` is set.
    fn replace(&mut self, pages: Extent, mut add: bool) {
        let (from, to) = (pages.start.0 as u32, pages.end.0 as u32);
        let count = self.count;
        let ranges: [_; MAX_RANGES] =
            core::array::from_fn(|place| (place < count).then(|| self.ranges.get(place)));
        let before = ranges.into_iter().flatten();
        if count == MAX_RANGES && before.clone().any(|(start, end)| start < from && to < end) {
            return;
        }
        self.count = 0;
        for (start, end) in before {
            self.push(start, end.min(from));
            if add && end > from {
                self.push(from, to);
                add = false;
            }
            self.push(start.max(to), end);
        }
        if add {
            self.push(from, to);
        }
    }

    /// Appends a range above all others, unless it is empty.
    fn push(&mut self, from: u32, to: u32) {
        if from < to && self.count < MAX_RANGES {
            self.ranges.set(self.count, (from, to));
            self.count = self.count.wrapping_add(1);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/pages/moved.rs"]
mod tests;
