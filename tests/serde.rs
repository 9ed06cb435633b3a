//! The feature `serde` writes the same values as `write_json`, and does not allocate from the heap that it describes.

use serde_json::{Value, json, to_value};
use smalloc::{Fate, Heap, Indexed, Segment};
use std::alloc::Layout;

/// A heap with two holes, a moved `realloc` and a failure, so that no number is 0.
fn heap() -> Heap {
    let mut heap = Heap::<Indexed>::with_region_size(1 << 20).expect("there is memory");
    let layout = |size| Layout::from_size_align(size, 8).expect("a layout");
    let [a, _b, c, _d] =
        [100, 200, 300, 400].map(|size| heap.smalloc(layout(size)).0.expect("there is room"));
    // SAFETY: the blocks are live and have these layouts.
    unsafe {
        heap.sfree(a);
        assert!(!heap.realloc(c.as_ptr(), layout(300), 5000).is_null());
    }
    assert!(!heap.smalloc(layout(2 << 20)).1.success);
    heap
}

fn parse(write: impl FnOnce(&mut String) -> std::fmt::Result) -> Value {
    let mut text = String::new();
    write(&mut text).expect("a string takes everything");
    serde_json::from_str(&text).expect("what is written is JSON")
}

/// `write_json` writes means with four decimals, `serde` with all.
fn round_means(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_f64() {
                    Some(mean) if name == "mean" => *value = json!((mean * 10_000.0).round()),
                    _ => round_means(value),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(round_means),
        _ => {}
    }
}

fn assert_same(mut one: Value, mut other: Value) {
    round_means(&mut one);
    round_means(&mut other);
    assert_eq!(one, other);
}

#[test]
fn numbers_are_those_of_write_json() {
    let stats = heap().stats();
    assert!(stats.failures == 1 && stats.reallocs_moved == 1 && stats.hops.count() > 0);
    assert_same(to_value(stats).expect("a value"), parse(|out| stats.write_json(out)));
}

#[test]
fn snapshots_are_those_of_write_json() {
    let snapshot = heap().snapshot().expect("there is memory");
    let value = to_value(&snapshot).expect("a value");
    assert_eq!(value["segments"][0], json!([0, 112, false]));
    assert_same(value, parse(|out| snapshot.write_json(out)));
}

#[test]
fn differences_and_segments_have_the_names_of_their_fields() {
    let mut heap = heap();
    let (before, earlier) = (heap.stats(), heap.snapshot().expect("there is memory"));
    let (_, status) = heap.smalloc(Layout::new::<[u8; 64]>());
    let delta = to_value(heap.stats().since(&before)).expect("a value");
    assert_eq!((&delta["used_bytes"], &delta["allocs"]), (&json!(64), &json!(1)));
    assert_eq!(delta["hops"]["count"], json!(1));
    assert_eq!(to_value(status).expect("a value")["payload_offset"], json!(0));
    let later = heap.snapshot().expect("there is memory");
    let change = later.since(&earlier).next().expect("a change");
    assert_eq!(change.fate, Fate::NewlyUsed);
    assert_eq!(to_value(change).expect("a value"), json!({"offset": 0, "size": 64, "fate": "NewlyUsed"}));
    assert_eq!(to_value(later.since(&earlier).summary()).expect("a value")["newly_used"], json!(64));
    let segment = Segment { offset: 16, size: 32, in_use: true };
    assert_eq!(to_value(segment).expect("a value"), json!({"offset": 16, "size": 32, "in_use": true}));
}
