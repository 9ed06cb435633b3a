extern crate std;
use super::*;
use std::format;
use std::string::String;
use std::vec::Vec;

/// Numbers that all differ.
fn example(scale: usize) -> Stats {
    let events = |n: u64| n * wide(scale);
    Stats {
        used_bytes: 16 * scale,
        top: 32 * scale,
        live_segments: 3 * scale,
        free_segments: 4 * scale,
        hole_bytes: 48 * scale,
        cached_bytes: 96 * scale,
        committed_bytes: 64 * scale,
        metadata_bytes: 80 * scale,
        allocs: events(111),
        frees: events(112),
        reallocs: events(113),
        reallocs_in_place: events(114),
        reallocs_moved: events(115),
        failures: events(116),
        requested_total: events(117),
        allocated_total: events(118),
        splits: events(119),
        coalesces: events(120),
        contended: events(121),
        handed_over: events(122),
        cache_hits: events(123),
        purged_total: events(124),
        ..Stats::default()
    }
}

/// The names and values of plain fields, from `Debug`.
fn fields(debug: &str) -> Vec<(String, i64)> {
    let lines = debug.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
    let lines = lines.filter(|(name, _)| !name.starts_with(' '));
    lines.filter_map(|(name, value)| Some((name.into(), value.trim_end_matches(',').parse().ok()?))).collect()
}

#[test]
fn every_difference_is_that_of_its_field() {
    let (earlier, later) = (example(3), example(10));
    let once = fields(&format!("{:#?}", example(1)));
    for (delta, sign) in [(later.since(&earlier), 7), (earlier.since(&later), -7)] {
        let delta = fields(&format!("{delta:#?}"));
        assert_eq!(delta.len(), 22);
        for (name, value) in delta {
            let is_field = |field: &&(String, i64)| field.0 == name || field.0 == format!("{name}_total");
            let field = once.iter().find(is_field).unwrap();
            // Counters never fall, so their difference is 0 if the two are swapped.
            let expected = if sign < 0 && (111..=124).contains(&field.1) { 0 } else { sign * field.1 };
            assert_eq!(value, expected, "{name}");
        }
    }
}

#[test]
fn hops_since_are_those_in_between() {
    let mut earlier = example(1);
    earlier.hops.record(5);
    let mut later = earlier;
    later.hops.record(2);
    later.failed_hops.record(9);
    let delta = later.since(&earlier);
    assert_eq!((delta.hops.count(), delta.hops.sum(), delta.hops.max()), (1, 2, 2));
    assert_eq!((delta.failed_hops.count(), delta.failed_hops.sum()), (1, 9));
}

#[test]
fn a_sum_adds_all_numbers() {
    let [once, twice] = [3, 6].map(|scale| Stats { region_size: 100 * scale, ..example(scale) });
    let sum = once.plus(&once);
    // All wildernesses count as one.
    assert_eq!(sum, Stats { free_segments: twice.free_segments - 1, ..twice });
    assert_eq!((sum.holes(), sum.wilderness_bytes()), (2 * once.holes(), 2 * once.wilderness_bytes()));
    let other = Stats { largest_hole: 5, last_failed_size: 7, ..Stats::default() };
    assert_eq!((once.plus(&other).largest_hole, other.plus(&once).last_failed_size), (5, 7));
}

#[test]
fn fragmentation_with_and_without_the_wilderness() {
    let stats = Stats {
        region_size: 1_600,
        top: 640,
        free_bytes: 1_280,
        free_segments: 5,
        hole_bytes: 320,
        largest_hole: 80,
        ..Stats::default()
    };
    assert_eq!((stats.wilderness_bytes(), stats.holes()), (960, 4));
    assert_eq!((stats.fragmentation(), stats.fragmentation_with_wilderness()), (0.75, 0.25));
    let full = Stats { region_size: 640, top: 640, free_bytes: 320, ..stats };
    assert_eq!((full.holes(), full.fragmentation_with_wilderness()), (5, 0.75));
    assert_eq!(
        (Stats::default().fragmentation(), Stats::default().fragmentation_with_wilderness()),
        (0.0, 0.0)
    );
}
