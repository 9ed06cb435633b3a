extern crate std;
use super::super::metrics::tests::example;
use super::*;
use std::string::ToString;

#[test]
fn the_block_shows_the_main_numbers() {
    let text = example().to_string();
    for part in [
        "smalloc heap [██████████████████████░░░░░░░░] 75.0 % of 1 MiB in use\n",
        "used 768 KiB",
        "in use 1,234, free 11",
        "holes 10, bytes 132 KiB, largest 33 KiB, fragmentation 75.0 % (51.6 % with the wilderness)",
        "  failures    0\n",
        "lost 9.8 KiB (1.0 %)",
        "mean 8.00, p50 1, p90 40, p99 40, max 40, searches 6",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert!(!text.contains("failed hops"));
    assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
}

#[test]
fn the_last_failed_size_is_shown_with_failures() {
    let text = Stats { failures: 2, last_failed_size: 3 << 10, ..example() }.to_string();
    assert!(text.contains("  failures    2, the last of 3 KiB\n"), "{text}");
}

#[test]
fn the_bar_shows_a_little_and_never_overflows() {
    let bar = |used_bytes| {
        let text = Stats { region_size: 1 << 40, used_bytes, ..Stats::default() }.to_string();
        text.chars().filter(|&c| c == '█').count()
    };
    assert_eq!([0, 16, 1 << 39, 1 << 40].map(bar), [0, 1, 15, 30]);
}

#[test]
fn an_unused_heap_prints() {
    let text = Stats::default().to_string();
    assert!(text.starts_with("smalloc heap [░░░░░░░░░░░░░░░░░░░░░░░░░░░░░░] 0 % of 0 B in use"), "{text}");
}

#[test]
fn a_difference_has_signs() {
    let (earlier, mut later) = (example(), example());
    later.used_bytes -= 1 << 10;
    later.live_segments += 7;
    later.allocs += 9;
    later.hops.record(3);
    let text = later.since(&earlier).to_string();
    for part in ["used -1 KiB", "top 0 B", "in use +7", "allocs 9, frees 0", "max 3, searches 1"] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}
