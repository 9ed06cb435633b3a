use super::{MAX_RANGES, Moved};
use crate::region::{Extent, Granule, Reservation};
use std::vec::Vec;

fn list(moved: &Moved) -> Vec<(usize, usize)> {
    moved.iter().map(|range| (range.start.0, range.end.0)).collect()
}

fn pages(from: usize, to: usize) -> Extent {
    Extent::new(Granule(from), Granule(to))
}

fn of(ranges: &[(usize, usize)]) -> Moved {
    // Never released: the list uses it until the test program ends.
    let reservation = Reservation::new(Moved::bytes()).unwrap();
    let mut part = reservation.part(0, Moved::bytes());
    assert!(part.commit(Moved::bytes()));
    let mut moved = Moved::new(&mut part);
    ranges.iter().for_each(|&(from, to)| moved.insert(pages(from, to)));
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
fn removing_splits_and_shortens_ranges() {
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
        moved.remove(pages(removed.0, removed.1));
        assert_eq!(list(&moved), left, "without {removed:?}");
    }
}

#[test]
fn a_payload_is_moved_one_mapping_at_a_time() {
    let mut moved = of(&[(10, 20), (20, 30), (40, 50)]);
    let end = |from, to| moved.mapping_end(pages(from, to)).0;
    assert_eq!([0, 9, 10, 15, 20, 30, 40, 50].map(|from| end(from, 60)), [10, 10, 20, 20, 30, 40, 50, 60]);
    assert_eq!((end(12, 14), end(0, 5), end(52, 55)), (14, 5, 55));
    assert!(moved.holds_any(pages(0, 11)) && !moved.holds_any(pages(30, 40)));
    moved.stop();
    assert!(!moved.holds_any(pages(0, 11)) && !moved.has_room(1));
}

/// A full list keeps a range that it would have to split.
#[test]
fn the_list_is_bounded() {
    let ranges: Vec<_> = (0..MAX_RANGES).map(|number| (10 * number, 10 * number + 9)).collect();
    let mut moved = of(&ranges);
    assert!(!moved.has_room(0));
    moved.remove(pages(2, 4));
    assert_eq!(list(&moved), ranges);
    moved.remove(pages(0, 9));
    assert!(moved.has_room(0) && !moved.has_room(1));
}
