extern crate std;
use super::super::snapshot::tests::snapshot;
use super::*;
use std::vec::Vec;

#[test]
fn runs_are_maximal_and_exact() {
    let earlier = snapshot(&[32, 32, -64, 16, -112]);
    let later = snapshot(&[32, -32, 32, 32, 32, -96]);
    let runs: Vec<_> = later.since(&earlier).map(|c| (c.offset, c.size, c.fate)).collect();
    use Fate::{NewlyFreed, NewlyUsed, StayedFree, StayedUsed};
    assert_eq!(
        runs,
        [
            (0, 32, StayedUsed),
            (32, 32, NewlyFreed),
            (64, 64, NewlyUsed),
            (128, 16, StayedUsed),
            (144, 16, NewlyUsed),
            (160, 96, StayedFree),
        ]
    );
    let summary = later.since(&earlier).summary();
    assert_eq!((summary.stayed_used, summary.stayed_free), (48, 96));
    assert_eq!((summary.newly_used, summary.newly_freed), (80, 32));
    assert_eq!(
        std::format!("{summary}"),
        "80 B newly used, 32 B newly freed, 48 B stayed in use, 96 B stayed free"
    );
}

#[test]
fn bytes_outside_a_snapshot_count_as_free() {
    let (nothing, heap) = (snapshot(&[]), snapshot(&[48, -16]));
    assert_eq!(heap.since(&nothing).summary().newly_used, 48);
    assert_eq!(nothing.since(&heap).summary().newly_freed, 48);
    assert_eq!(nothing.since(&nothing).next(), None);
}
