//! Which pages are mappings of their own: those that were moved to where they are.
//!
//! The system numbers the pages of a mapping from its start, and pages keep their numbers when they are moved. So what
//! was moved is no part of the mapping around it, even once it is free and empty, until it is mapped anew. Pages can
//! only be moved out of one mapping at a time, and a process has only so many: so here is a list of them, which has an
//! end. It may have more than there are, never less.
//!
//! In a child of `fork` the system does not always join what is mapped anew to what is around it. So there nothing is
//! moved any more, if the heap hears of the fork: one of its own, a [`Heap`](crate::Heap), does not.

use crate::region::{Extent, Granule, Span, Table};

/// Ranges in the list at most. Each makes one mapping three.
const MOST: usize = 48;

/// Disjoint ranges of pages in ascending order.
#[derive(Debug)]
pub(crate) struct Moved {
    /// In granules. Numbers fit, as regions do.
    ranges: Table<(u32, u32)>,
    count: usize,
    /// Nothing is moved or mapped anew any more.
    stopped: bool,
}

impl Moved {
    pub(super) const NONE: Self = Self { ranges: Table::NONE, count: 0, stopped: false };

    /// Bytes that the list takes.
    pub(crate) fn bytes() -> usize {
        Table::<(u32, u32)>::bytes(MOST)
    }

    /// The empty list at the front of an open part.
    pub(super) fn new(seldom: &mut Span) -> Self {
        Self { ranges: Table::cut_off(seldom, MOST), ..Self::NONE }
    }

    /// From now on nothing is moved or mapped anew.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether so many ranges may be moved to the same segment: each may split one in which it comes to lie.
    pub(crate) fn has_room(&self, ranges: usize) -> bool {
        !self.stopped && self.count.saturating_add(ranges.saturating_mul(2)) < MOST
    }

    fn iter(&self) -> impl Iterator<Item = Extent> {
        (0..self.count).map(|place| {
            let (from, to) = self.ranges.get(place);
            Extent::new(Granule(from as usize), Granule(to as usize))
        })
    }

    /// Whether some of the pages were moved, and may be mapped anew.
    pub(crate) fn holds_any(&self, pages: Extent) -> bool {
        !self.stopped && self.iter().any(|range| range.overlaps(pages))
    }

    /// The end of the mapping that holds the first of the pages, but not beyond the last.
    pub(crate) fn mapping_end(&self, pages: Extent) -> Granule {
        let mut bounds = self.iter().flat_map(|range| [range.start, range.end]);
        bounds.find(|&bound| bound > pages.start).unwrap_or(pages.end).min(pages.end)
    }

    /// Adds pages that are a part of one mapping now. There is [room](Self::has_room).
    pub(crate) fn insert(&mut self, pages: Extent) {
        self.replace(pages, true);
    }

    /// Takes pages out that are a part of the mapping around them again. Where that takes room and there is none, the range
    /// stays.
    pub(crate) fn remove(&mut self, pages: Extent) {
        self.replace(pages, false);
    }

    /// Takes out what lies in `pages`, and puts that range there if it is to `add` it.
    fn replace(&mut self, pages: Extent, mut add: bool) {
        let (from, to) = (pages.start.0 as u32, pages.end.0 as u32);
        let count = self.count;
        let ranges: [_; MOST] = core::array::from_fn(|place| (place < count).then(|| self.ranges.get(place)));
        let before = ranges.into_iter().flatten();
        if count == MOST && before.clone().any(|(start, end)| start < from && to < end) {
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

    /// Adds a range above all others, if it is not empty.
    fn push(&mut self, from: u32, to: u32) {
        if from < to && self.count < MOST {
            self.ranges.set(self.count, (from, to));
            self.count = self.count.wrapping_add(1);
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/pages/moved.rs"]
mod tests;
