use super::{CLASSES, class, class_from, code};
use crate::region::{GRANULE, MAX_REGION};
use std::vec::Vec;

/// Sizes up to that of the largest region: all small ones, and those around where codes and classes change.
fn sizes() -> Vec<usize> {
    let largest = MAX_REGION / GRANULE;
    let steps = (0..usize::BITS).flat_map(|doubling| (16..32).map(move |high| high << doubling >> 4));
    let around = steps.flat_map(|n: usize| [n.saturating_sub(1), n, n + 1]);
    let mut sizes: Vec<usize> = (1..20_000).chain(around).filter(|n| (1..=largest).contains(n)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

#[test]
fn codes_and_classes_ascend_with_the_size() {
    let sizes = sizes();
    assert!(sizes.is_sorted_by_key(|&n| code(n)) && sizes.is_sorted_by_key(|&n| class(code(n))));
    for n in [1, 64, 65, 1024, 8191, 8192, 1 << 16, 253_951] {
        let smallest = sizes.iter().find(|&&m| code(m) == code(n)).unwrap();
        let largest = sizes.iter().rfind(|&&m| code(m) == code(n)).unwrap();
        assert!(largest - smallest <= smallest / 16, "{smallest} to {largest} have one code");
    }
    assert!(sizes.iter().all(|&n| class(code(n)) < CLASSES));
}

/// What a search for `n` granules has proven holds for the classes from there on, and for no lower one.
#[test]
fn a_class_is_proven_if_all_its_sizes_are_large_enough() {
    let sizes = sizes();
    let mut smallest = [usize::MAX; CLASSES + 1];
    sizes.iter().rev().for_each(|&n| smallest[class(code(n))] = n);
    for &n in &sizes {
        let proven = class_from(n);
        assert!(smallest[proven] >= n, "{n} proves {proven}");
        assert!(
            smallest[proven - 1] == usize::MAX || smallest[proven - 1] < n,
            "{n} proves less than {proven}"
        );
    }
}
