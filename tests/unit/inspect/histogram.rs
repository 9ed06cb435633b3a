extern crate std;
use super::*;
use std::vec::Vec;

fn of(hops: &[usize]) -> HopHistogram {
    let mut histogram = HopHistogram::new();
    hops.iter().for_each(|&hops| histogram.record(hops));
    histogram
}

#[test]
fn buckets_tile_the_numbers_and_are_narrow() {
    let mut expected_low = 0;
    for bucket in 0..BUCKETS {
        let (low, high) = (low_of(bucket), high_of(bucket));
        assert_eq!(low, expected_low);
        assert_eq!((bucket_of(low), bucket_of(high)), (bucket, bucket));
        if bucket + 1 < BUCKETS {
            assert!(high - low <= low / 4, "{low} to {high}");
            expected_low = high + 1;
        }
    }
    assert_eq!(bucket_of(usize::MAX), BUCKETS - 1);
}

#[test]
fn an_empty_histogram_is_all_zero() {
    let none = HopHistogram::new();
    assert_eq!((none.count(), none.sum(), none.max(), none.quantile(0.5)), (0, 0, 0, 0));
    assert_eq!(none.mean(), 0.0);
    assert_eq!(none.iter().count(), 0);
}

#[test]
fn numbers_of_a_small_set_are_exact() {
    let hops = of(&[0, 0, 0, 1, 2, 2, 15, 15, 0, 0]);
    assert_eq!((hops.count(), hops.sum(), hops.max()), (10, 35, 15));
    assert_eq!(hops.mean(), 3.5);
    assert_eq!([0.0, 0.5, 0.51, 0.8, 0.81, 1.0].map(|q| hops.quantile(q)), [0, 0, 1, 2, 15, 15]);
    assert_eq!(hops.iter().collect::<Vec<_>>(), [(0, 0, 5), (1, 1, 1), (2, 2, 2), (15, 15, 2)]);
    assert_eq!([-1.0, 2.0, f64::NAN].map(|q| hops.quantile(q)), [0, 15, 0]);
}

#[test]
fn quantiles_bound_the_sorted_values_from_above() {
    let mut values: Vec<usize> = (1..2_000usize).map(|i| (i * i * 37) % 100_000).collect();
    let hops = of(&values);
    values.sort_unstable();
    for percent in 1..=100 {
        let exact = values[(values.len() * percent).div_ceil(100) - 1];
        let seen = hops.quantile(percent as f64 / 100.0);
        assert!(seen >= exact && seen <= exact + exact / 4, "p{percent}: {seen} for {exact}");
    }
}

#[test]
fn the_difference_holds_later_searches() {
    let earlier = of(&[3, 900]);
    let mut later = earlier;
    [0, 3, 40].iter().for_each(|&hops| later.record(hops));
    let new = later.minus(&earlier);
    assert_eq!((new.count(), new.sum(), new.max()), (3, 43, 47));
    assert_eq!(new.iter().collect::<Vec<_>>(), [(0, 0, 1), (3, 3, 1), (40, 47, 1)]);
    assert_eq!(later.minus(&later), HopHistogram::new());
}
