//! Which pages are mappings of their own: those that were moved to where they are.
//!
//! The system numbers the pages of a mapping from its start, and pages keep their numbers when they are moved. So what
//! was moved is no part of the mapping around it, even once it is free and empty, until it is mapped anew. Pages can
//! only be moved out of one mapping at a time, and a process has only so many: so here is a list of them, which has an
//! end. It may have more than there are, never less.
//!
//! In a child of `fork` the system does not always join what is mapped anew to what is around it. So there nothing is
//! moved any more, if the heap hears of the fork: one of its own, a [`Heap`](crate::Heap), does not.

use crate::region::{Granule, Span, Table};

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

    fn iter(&self) -> impl Iterator<Item = (Granule, Granule)> {
        (0..self.count).map(|place| {
            let (from, to) = self.ranges.get(place);
            (Granule(from as usize), Granule(to as usize))
        })
    }

    /// Whether some of `from..to` was moved, and may be mapped anew.
    pub(crate) fn holds_any(&self, from: Granule, to: Granule) -> bool {
        !self.stopped && self.iter().any(|(start, end)| start < to && from < end)
    }

    /// The end of the mapping that holds `from`, but not beyond `to`.
    pub(crate) fn mapping_end(&self, from: Granule, to: Granule) -> Granule {
        let mut bounds = self.iter().flat_map(|(start, end)| [start, end]);
        bounds.find(|&bound| bound > from).unwrap_or(to).min(to)
    }

    /// Adds `from..to`, a part of one mapping now. There is [room](Self::has_room).
    pub(crate) fn insert(&mut self, from: Granule, to: Granule) {
        self.replace((from.0 as u32, to.0 as u32), true);
    }

    /// Takes `from..to` out, which is a part of the mapping around it again. Where that takes room and there is none, the
    /// range stays.
    pub(crate) fn remove(&mut self, from: Granule, to: Granule) {
        self.replace((from.0 as u32, to.0 as u32), false);
    }

    /// Takes out what lies in `from..to`, and puts that range there if it is to `add` it.
    fn replace(&mut self, (from, to): (u32, u32), mut add: bool) {
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
mod tests {
    use super::{MOST, Moved};
    use crate::region::{Granule, Reservation};
    use std::vec::Vec;

    fn list(moved: &Moved) -> Vec<(usize, usize)> {
        moved.iter().map(|(from, to)| (from.0, to.0)).collect()
    }

    fn of(ranges: &[(usize, usize)]) -> Moved {
        // As long as the test program runs.
        let reservation = Reservation::new(Moved::bytes()).unwrap();
        let mut part = reservation.part(0, Moved::bytes());
        assert!(part.commit(Moved::bytes()));
        let mut moved = Moved::new(&mut part);
        ranges.iter().for_each(|&(from, to)| moved.insert(Granule(from), Granule(to)));
        moved
    }

    #[test]
    fn ranges_are_sorted_and_disjoint() {
        assert_eq!(list(&of(&[(30, 40), (10, 20), (50, 60)])), [(10, 20), (30, 40), (50, 60)]);
        assert_eq!(list(&of(&[(10, 40), (20, 30)])), [(10, 20), (20, 30), (30, 40)]);
        assert_eq!(list(&of(&[(10, 20), (30, 40), (50, 60), (15, 55)])), [(10, 15), (15, 55), (55, 60)]);
        assert_eq!(list(&of(&[(10, 20), (10, 20)])), [(10, 20)]);
    }

    #[test]
    fn what_is_removed_splits_and_shortens() {
        for (removed, left) in [
            ((10, 20), &[(30, 40)][..]),
            ((0, 15), &[(15, 20), (30, 40)]),
            ((15, 30), &[(10, 15), (30, 40)]),
            ((12, 35), &[(10, 12), (35, 40)]),
            ((33, 36), &[(10, 20), (30, 33), (36, 40)]),
            ((20, 30), &[(10, 20), (30, 40)]),
            ((0, 50), &[]),
        ] {
            let mut moved = of(&[(10, 20), (30, 40)]);
            moved.remove(Granule(removed.0), Granule(removed.1));
            assert_eq!(list(&moved), left, "without {removed:?}");
        }
    }

    #[test]
    fn a_payload_is_gone_through_mapping_by_mapping() {
        let mut moved = of(&[(10, 20), (20, 30), (40, 50)]);
        let end = |from, to| moved.mapping_end(Granule(from), Granule(to)).0;
        assert_eq!(
            [0, 9, 10, 15, 20, 30, 40, 50].map(|from| end(from, 60)),
            [10, 10, 20, 20, 30, 40, 50, 60]
        );
        assert_eq!((end(12, 14), end(0, 5), end(52, 55)), (14, 5, 55));
        assert!(moved.holds_any(Granule(0), Granule(11)) && !moved.holds_any(Granule(30), Granule(40)));
        moved.stop();
        assert!(!moved.holds_any(Granule(0), Granule(11)) && !moved.has_room(1));
    }

    /// A list that is full keeps too much, never too little.
    #[test]
    fn the_list_has_an_end() {
        let ranges: Vec<_> = (0..MOST).map(|number| (10 * number, 10 * number + 9)).collect();
        let mut moved = of(&ranges);
        assert!(!moved.has_room(0));
        moved.remove(Granule(2), Granule(4));
        assert_eq!(list(&moved), ranges);
        moved.remove(Granule(0), Granule(9));
        assert!(moved.has_room(0) && !moved.has_room(1));
    }
}
