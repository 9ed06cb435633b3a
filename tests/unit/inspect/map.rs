//! Maps of synthetic heaps: exact ones of a few segments, and properties that hold for all.

extern crate std;

use super::layout::{Layout, Line, State};
use super::{Color, MapOptions};
use crate::inspect::snapshot::Snapshot;
use crate::inspect::snapshot::tests::snapshot;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

/// A xorshift generator, so that the heaps are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) % limit
    }
}

/// A heap of about `segments` segments: mostly small, some large, with long runs in use and free.
fn random_heap(segments: usize, wilderness: isize) -> Snapshot {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut sizes: Vec<isize> = vec![];
    while sizes.len() < segments {
        let largest = if random.below(100) == 0 { 4_000 } else { 12 };
        let size = 16 * (1 + random.below(largest)) as isize;
        let after_free = sizes.last().is_some_and(|&last| last < 0);
        sizes.push(if !after_free && random.below(3) == 0 { -size } else { size });
    }
    sizes.push(160);
    if wilderness > 0 {
        sizes.push(-wilderness);
    }
    snapshot(&sizes)
}

fn text(snapshot: &Snapshot, options: MapOptions) -> String {
    let mut map = String::new();
    snapshot.write_map_text(&mut map, options).unwrap();
    map
}

fn svg(snapshot: &Snapshot, options: MapOptions) -> String {
    let mut map = String::new();
    snapshot.write_map_svg(&mut map, options).unwrap();
    map
}

/// Options that change the output, combined.
fn all_options() -> impl Iterator<Item = MapOptions> {
    let scales = [(64, 48, None), (8, 4, None), (128, 96, None), (256, 9, Some(16)), (13, 9, Some(100))];
    scales.into_iter().flat_map(|(width, max_rows, cell_bytes)| {
        let ends = [(0, usize::MAX), (1_000, 9_999), (5_000, usize::MAX)];
        ends.map(|(from, to)| MapOptions { width, max_rows, cell_bytes, from, to, ..MapOptions::text() })
    })
}

#[test]
fn lines_tile_the_range_and_count_every_used_byte_once() {
    for heap in [random_heap(10, 0), random_heap(500, 1 << 20), random_heap(20_000, 1 << 24)] {
        for options in all_options() {
            let layout = Layout::new(&heap, &options);
            let (from, to) = (options.from / 16 * 16, options.to.min(heap.stats().region_size));
            let mut end = from.min(to);
            let mut used = 0;
            for line in layout.lines(&heap) {
                assert_eq!(line.offset, end, "{options:?}");
                assert!(line.size > 0);
                end += line.size;
                used += match line.folded {
                    None => layout.cells(&heap, line.offset).as_slice().iter().map(|cell| cell.used).sum(),
                    Some(State::Used) => line.size,
                    Some(_) => 0,
                };
            }
            assert_eq!(end, to.max(from.min(to)), "{options:?}");
            let within = |offset: usize| offset.clamp(from.min(to), to);
            let expected: usize = heap.used_segments().map(|s| within(s.end()) - within(s.offset)).sum();
            assert_eq!(used, expected, "{options:?}");
        }
    }
}

#[test]
fn the_scale_keeps_to_the_rows_and_is_the_finest_that_does() {
    for heap in [random_heap(10, 0), random_heap(500, 1 << 30), random_heap(20_000, 1 << 24)] {
        for max_rows in [4, 10, 48] {
            let options = MapOptions { max_rows, ..MapOptions::text() };
            let layout = Layout::new(&heap, &options);
            assert!(layout.lines(&heap).count() <= max_rows);
            let finer = MapOptions { cell_bytes: Some(layout.cell / 2), ..options };
            assert!(layout.cell == 16 || Layout::new(&heap, &finer).lines(&heap).count() > max_rows);
        }
    }
}

#[test]
fn three_equal_rows_fold_and_two_do_not() {
    let heap = snapshot(&[256 * 3, -256 * 2, 128, 128, -256 * 4]);
    let options = MapOptions { width: 16, cell_bytes: Some(16), ..MapOptions::text() };
    let lines: Vec<Line> = Layout::new(&heap, &options).lines(&heap).collect();
    let line = |offset, size, folded| Line { offset, size, folded };
    assert_eq!(
        lines,
        [
            line(0, 768, Some(State::Used)),
            line(768, 256, None),
            line(1024, 256, None),
            line(1280, 256, None),
            line(1536, 1024, Some(State::Wilderness)),
        ]
    );
}

#[test]
fn a_partial_last_row_counts_as_a_row() {
    let options = MapOptions { width: 16, cell_bytes: Some(16), ..MapOptions::text() };
    for (wilderness, lines) in [(512, 3), (528, 2), (768, 2)] {
        let heap = snapshot(&[256, -wilderness]);
        assert_eq!(Layout::new(&heap, &options).lines(&heap).count(), lines);
    }
}

#[test]
fn a_folded_stretch_of_the_largest_hole_is_marked() {
    let heap = snapshot(&[256, -1280, 256]);
    let options = MapOptions { width: 16, cell_bytes: Some(16), ..MapOptions::text() };
    let map = text(&heap, options);
    assert!(
        map.contains("0x100  ◆ (5 rows, 1.3 KiB, all free)  ◂ largest hole: 1.3 KiB at 0x100\n"),
        "{map}"
    );
    assert!(svg(&heap, options).contains(">⋮ 5 rows, 1.3 KiB, all free, in the largest hole<"));
}

#[test]
fn a_small_heap_is_drawn_exactly() {
    let heap = snapshot(&[64, -32, 32, 128, -48, 16, 48, -144]);
    let options = MapOptions { width: 16, cell_bytes: Some(16), ..MapOptions::text() };
    let expected = "\
heap map: 288 B of 512 B in use (56.2 %; 78.3 % below top), 2 holes of 80 B
       +0
0x000  ████··██████████
0x100  ◆◆◆████           ◂ largest hole: 48 B at 0x100
       · free  ░▒▓ in use up to 1/3, 2/3, less than all  █ all in use  ◆ largest hole  blank above top
       1 cell is 16 B, 1 row is 256 B
";
    assert_eq!(text(&heap, options), expected);
    let ascii = text(&heap, MapOptions { ascii: true, ..options });
    assert!(ascii.is_ascii() && ascii.contains("\n0x000  ####..##########\n0x100  OOO####"), "{ascii}");
}

#[test]
fn a_cell_shows_the_share_in_use_and_only_all_is_full() {
    let heap = snapshot(&[-256, 16, -240, 80, -176, 96, -160, 240, -16, 256]);
    let options = MapOptions { width: 8, cell_bytes: Some(256), ascii: true, ..MapOptions::text() };
    let map = text(&heap, options);
    assert!(map.contains("\n0x000  O--+*#    < largest hole: 256 B at 0x0\n"), "{map}");
}

#[test]
fn a_largest_hole_smaller_than_a_cell_marks_the_cell_in_which_it_begins() {
    let heap = snapshot(&[640, -48, 640, -32, 640]);
    let options = MapOptions { width: 8, cell_bytes: Some(512), ascii: true, ..MapOptions::text() };
    let map = text(&heap, options);
    assert!(map.contains("\n0x000  #O*#      < largest hole: 48 B at 0x280\n"), "{map}");
}

#[test]
fn a_largest_hole_larger_than_a_cell_marks_the_cells_within_it() {
    let heap = snapshot(&[48, -80, 128]);
    let options = MapOptions { width: 8, cell_bytes: Some(32), ascii: true, ..MapOptions::text() };
    let map = text(&heap, options);
    assert!(map.contains("\n0x000  #+OO####  < largest hole: 80 B at 0x30\n"), "{map}");
}

#[test]
fn the_ruler_has_room_for_its_labels() {
    let ruler = |width| {
        let options = MapOptions { width, cell_bytes: Some(4096), ..MapOptions::text() };
        String::from(text(&snapshot(&[64, -4096]), options).lines().nth(1).unwrap().trim_start())
    };
    assert_eq!(ruler(16), "+0");
    assert_eq!(ruler(30), "+0             +60 KiB");
    assert_eq!(ruler(64), "+0              +64 KiB         +128 KiB        +192 KiB");
}

#[test]
fn an_empty_range_has_no_line() {
    let heap = snapshot(&[64, -64]);
    for (from, to) in [(100, 50), (50, 50), (48, 48), (1000, 2000)] {
        let options = MapOptions { from, to, ..MapOptions::text() };
        assert_eq!(Layout::new(&heap, &options).lines(&heap).count(), 0, "{from} to {to}");
        assert!(!text(&heap, options).contains("0x000"), "{}", text(&heap, options));
    }
}

#[test]
fn an_unused_heap_has_one_line() {
    let mut stats = *snapshot(&[-1024]).stats();
    stats.region_size = 1 << 33;
    let buffer = crate::inspect::snapshot::SegmentBuffer::populated(1).unwrap();
    let unmapped = Snapshot::new(buffer, stats, 0, 0);
    for heap in [unmapped, snapshot(&[-(1 << 33)])] {
        let map = text(&heap, MapOptions::text());
        assert_eq!(map.lines().filter(|line| line.starts_with("0x")).count(), 1, "{map}");
        assert!(map.contains("0x000000000    (8,388,608 rows, 8 GiB, above top)\n"), "{map}");
    }
    assert!(text(&snapshot(&[]), MapOptions::text()).starts_with("heap map: 0 B of 0 B in use (0 %;"));
    assert!(svg(&snapshot(&[]), MapOptions::svg()).ends_with("</svg>\n"));
}

#[test]
fn colours_do_not_change_the_lines() {
    let heap = random_heap(2_000, 1 << 20);
    let plain = text(&heap, MapOptions::text());
    let colored = text(&heap, MapOptions { color: Color::Ansi, ..MapOptions::text() });
    assert!(!plain.contains('\x1b'));
    let bare = |line: &str| {
        let parts = line.split("\x1b[");
        let rest = |(i, part): (usize, &str)| {
            if i == 0 { part.to_string() } else { part.split_once('m').unwrap().1.to_string() }
        };
        parts.enumerate().map(rest).collect::<String>()
    };
    for (plain, colored) in plain.lines().zip(colored.lines()).filter(|(plain, _)| plain.starts_with("0x")) {
        assert_eq!(bare(colored).chars().count(), plain.chars().count());
        assert!(!colored.contains('\x1b') || colored.contains("\x1b[0m"), "{colored:?}");
    }
}

/// The values of an attribute of all `rect` elements of cells.
fn rects(svg: &str, attribute: &str) -> Vec<f64> {
    let start = format!(" {attribute}=\"");
    let rects = svg.lines().filter(|line| line.starts_with("<rect x=") && line.contains("<title>"));
    rects.map(|line| line.split(&start).nth(1).unwrap().split('"').next().unwrap().parse().unwrap()).collect()
}

/// A letter of the fonts that are named is at most so many pixels wide.
const LETTER: f64 = 6.7;

#[test]
fn the_label_of_the_largest_hole_is_within_the_frame() {
    for hole in [16, 1000, 1 << 20, 1023 << 20, (1 << 40) - (1 << 30) / 10 * 16] {
        let svg = svg(&snapshot(&[16, -hole, 16]), MapOptions::svg());
        let frame: f64 =
            svg.split_once("viewBox=\"0 0 ").unwrap().1.split(' ').next().unwrap().parse().unwrap();
        let label = svg.lines().find(|line| line.contains("◂ largest hole")).unwrap();
        let x: f64 = label.split_once(" x=\"").unwrap().1.split('"').next().unwrap().parse().unwrap();
        let text = label.split_once('>').unwrap().1.split('<').next().unwrap();
        assert!(x + LETTER * text.chars().count() as f64 <= frame, "{label} in {frame}");
    }
}

#[test]
fn a_picture_is_bounded_well_formed_and_within_its_frame() {
    for heap in [random_heap(100, 1 << 20), random_heap(3_000, 0), random_heap(100_000, 1 << 30)] {
        let svg = svg(&heap, MapOptions::svg());
        let (x, width) = (rects(&svg, "x"), rects(&svg, "width"));
        assert!(x.len() > 10 && x.len() < 25_000, "{} rectangles", x.len());
        assert!(x.iter().zip(&width).all(|(x, width)| *x >= 112.0 && *width > 0.0 && x + width <= 1136.1));
        for element in ["svg", "text", "title"] {
            let opened =
                svg.matches(&format!("<{element} ")).count() + svg.matches(&format!("<{element}>")).count();
            assert_eq!(opened, svg.matches(&format!("</{element}>")).count(), "{element}");
        }
        assert!(svg.len() < 2 << 20, "{} bytes", svg.len());
        assert!(svg.contains("largest hole: ") && svg.contains("1 cell is "));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}

#[test]
fn a_picture_of_few_segments_has_each_of_them() {
    let heap = random_heap(60, 0);
    let svg = svg(&heap, MapOptions::svg());
    for segment in heap.segments().filter(|segment| segment.in_use) {
        assert!(svg.contains(&format!("<title>0x{:08x}: ", segment.offset)), "{segment:?}");
    }
    let largest = heap.largest_hole().unwrap();
    let title = format!("<title>0x{:08x}: ", largest.offset);
    let drawn = svg.lines().find(|line| line.contains(&title)).unwrap();
    assert!(drawn.contains("fill=\"#e8760c\"") && drawn.contains("free</title>"), "{drawn}");
}
