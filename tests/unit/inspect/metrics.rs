extern crate std;
use super::*;
use std::format;
use std::string::String;
use std::vec::Vec;

/// Numbers of a made-up heap.
pub(in super::super) fn example() -> Stats {
    let mut stats = Stats {
        region_size: 1 << 20,
        used_bytes: 3 << 18,
        free_bytes: 1 << 18,
        top: 900 << 10,
        peak_used_bytes: 800 << 10,
        live_segments: 1_234,
        free_segments: 11,
        hole_bytes: 132 << 10,
        largest_hole: 33 << 10,
        allocs: 2_000,
        frees: 766,
        requested_total: 990_000,
        allocated_total: 1_000_000,
        ..Stats::default()
    };
    [0, 0, 1, 2, 5, 40].iter().for_each(|&hops| stats.hops.record(hops));
    stats
}

/// The names of the fields of `Stats`, from its `Debug`.
fn fields() -> Vec<String> {
    let text = format!("{:#?}", Stats::default());
    let lines = text.lines().filter(|line| line.starts_with("    ") && !line.starts_with("     "));
    lines.filter_map(|line| Some(String::from(line.trim().split_once(':')?.0))).collect()
}

#[test]
fn every_field_is_in_the_table() {
    assert!(fields().len() > 20);
    for field in fields().iter().filter(|field| !field.ends_with("hops")) {
        assert_eq!(metrics().filter(|metric| metric.name == field).count(), 1, "{field}");
    }
}

#[test]
fn json_has_every_field_and_balances() {
    let mut json = String::new();
    example().write_json(&mut json).unwrap();
    for field in fields() {
        assert!(json.contains(&format!("\"{field}\":")), "{field} is not in {json}");
    }
    assert!(json.contains("\"used_bytes\":786432,"));
    assert!(json.contains("\"buckets\":[[0,0,2],[1,1,1],[2,2,1],[5,5,1],[40,40,1]]"));
    let count = |c| json.matches(c).count();
    assert_eq!((count('{'), count('[')), (count('}'), count(']')));
    assert!(!json.contains(",}") && !json.contains(",]") && !json.contains(",,"));
}

/// The page lists every key of the JSON object with its names in the two other worlds.
#[test]
fn the_page_names_every_number() {
    let page = include_str!("../../../docs/inspecting.md");
    for metric in metrics() {
        let (unit, suffix) = if metric.unit == Unit::Bytes { ("By", "_bytes") } else { ("1", "") };
        let (instrument, total) =
            if metric.kind == Kind::Counter { ("Counter", "_total") } else { ("UpDownCounter", "") };
        let (name, stem) = (metric.name, metric.stem());
        let line = format!(
            "| `{name}` | `smalloc_{stem}{suffix}{total}` | `smalloc.{stem}` | {instrument} | `{unit}` |\n"
        );
        assert!(page.contains(&line), "docs/inspecting.md has no line\n{line}");
    }
}
