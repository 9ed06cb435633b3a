//! Allocators of other crates around smalloc do as their programs say, and smalloc sees each call.

use std::process::Command;

/// The lines that a program prints.
#[track_caller]
fn lines(program: &str) -> Vec<String> {
    let output = Command::new(program).output().expect("it starts");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("a text").lines().map(str::to_owned).collect()
}

/// The number at the end of a line.
#[track_caller]
fn number(line: &str) -> u64 {
    line.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or_else(|| panic!("no number: {line}"))
}

#[test]
fn cap_refuses_before_smalloc_is_asked() {
    let expected = [
        "2 MiB refused: true, 512 KiB granted: true",
        "asked for at most what is used: true",
        "requests that smalloc refused: 0",
    ];
    assert_eq!(lines(env!("CARGO_BIN_EXE_cap")), expected);
}

/// Ten blocks of 100 bytes, and a vector of their addresses.
#[test]
fn stats_alloc_counts_the_calls_that_smalloc_counts() {
    let bytes = 10 * 100 + 10 * size_of::<usize>();
    let rounded = 10 * 112 + 10 * size_of::<usize>();
    let expected = [
        format!("stats_alloc: 11 allocations, {bytes} bytes"),
        format!("smalloc: 11 allocations, {rounded} bytes as they are rounded up"),
        format!("stats_alloc: {bytes} bytes freed"),
    ];
    assert_eq!(lines(env!("CARGO_BIN_EXE_stats_alloc"))[..], expected);
}

/// Twenty blocks of 1000 bytes, and a vector of their addresses.
#[test]
fn tracking_allocator_charges_a_group() {
    let lines = lines(env!("CARGO_BIN_EXE_tracking_allocator"));
    let held = 20 * 1000 + 20 * size_of::<usize>();
    assert_eq!(lines[0], format!("the group held {held} bytes, and 0 after the drop"));
    assert!(number(&lines[1]) >= 21, "{lines:?}");
}

#[test]
fn tracy_runs_without_a_profiler() {
    let lines = lines(env!("CARGO_BIN_EXE_tracy"));
    assert_eq!(lines[0], "the profiler has seen nothing: it was not connected");
    assert!(number(&lines[1]) > 100, "{lines:?}");
}
