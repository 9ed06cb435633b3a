extern crate std;
use super::super::snapshot::tests::snapshot;
use super::*;
use std::string::String;

#[test]
fn classes_tile_the_numbers() {
    assert_eq!([0, 1, 2, 3, 4, 7, 8, usize::MAX].map(class_of), [0, 1, 2, 2, 3, 3, 4, 64]);
    let mut expected = 0;
    for class in 0..CLASSES {
        let (low, high) = bounds_of(class);
        assert_eq!(low, expected);
        expected = high.wrapping_add(1);
    }
    assert_eq!(expected, 0);
}

#[test]
fn holes_are_counted_by_size() {
    let heap = snapshot(&[16, -16, 16, -48, 16, -32, 16, -4096]);
    let mut picture = String::new();
    heap.write_holes_svg(&mut picture).unwrap();
    for part in ["Holes: 3 with 96 B below top", ">16 B to 32 B<", ">32 B to 64 B<", ">80 B<", ">2<"] {
        assert!(picture.contains(part), "{part:?} is not in\n{picture}");
    }
    assert!(!picture.contains("4 KiB"));
    assert_eq!(picture.matches("fill=\"#3272ab\"").count(), 4);
}

#[test]
fn hops_have_a_panel_for_each_histogram() {
    let (mut linked, mut indexed) = (HopHistogram::new(), HopHistogram::new());
    (0..1_000).for_each(|i| linked.record(i));
    (0..1_000).for_each(|i| indexed.record(i % 2));
    let mut picture = String::new();
    write_hops_svg(&mut picture, &[("linked", &linked), ("a < b & c", &indexed)]).unwrap();
    for part in ["linked: mean 499.50", "a &lt; b &amp; c: mean 0.50", ">512 to 1,023<", ">488 (48.8 %)<"] {
        assert!(picture.contains(part), "{part:?} is not in\n{picture}");
    }
    assert_eq!(picture.matches(">500 (50.0 %)<").count(), 2);
    assert!(picture.contains("width=\"1.0\" height=\"12.0\""), "1 of 512 is too short to be seen: {picture}");
    let mut empty = String::new();
    write_hops_svg(&mut empty, &[]).unwrap();
    assert!(empty.ends_with("</svg>\n"));
}
