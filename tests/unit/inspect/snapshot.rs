extern crate std;
use super::*;
use std::string::{String, ToString};
use std::vec::Vec;

/// A snapshot of segments of these sizes, negative for free ones. A free segment at the end is the wilderness.
pub(in super::super) fn snapshot(sizes: &[isize]) -> Snapshot {
    let mut buffer = SegmentBuffer::populated(sizes.len()).unwrap();
    let mut stats = Stats::default();
    for &size in sizes {
        let segment = Segment { offset: stats.region_size, size: size.unsigned_abs(), in_use: size > 0 };
        assert!(buffer.push(segment));
        stats.region_size += segment.size;
        if segment.in_use {
            stats.used_bytes += segment.size;
            stats.live_segments += 1;
        } else {
            stats.free_segments += 1;
        }
    }
    let wilderness = sizes.last().map_or(0, |&last| last.min(0).unsigned_abs());
    stats.top = stats.region_size - wilderness;
    stats.free_bytes = stats.region_size - stats.used_bytes;
    stats.hole_bytes = stats.free_bytes - wilderness;
    stats.peak_used_bytes = stats.used_bytes;
    let holes = sizes.split_last().map_or(&[][..], |(_, below)| below).iter().filter(|&&size| size < 0);
    stats.largest_hole = holes.map(|size| size.unsigned_abs()).max().unwrap_or(0);
    Snapshot::new(buffer, stats, 1_500, 0)
}

const EXAMPLE: [isize; 6] = [32, -48, 16, 64, -16, 80];

#[test]
fn segments_come_from_both_ends_with_an_exact_length() {
    let snapshot = snapshot(&EXAMPLE);
    let mut segments = snapshot.segments();
    assert_eq!(segments.len(), 6);
    assert_eq!(segments.next_back(), Some(Segment { offset: 176, size: 80, in_use: true }));
    assert_eq!(segments.next(), Some(Segment { offset: 0, size: 32, in_use: true }));
    assert_eq!(segments.nth(1), Some(Segment { offset: 80, size: 16, in_use: true }));
    assert_eq!(segments.len(), 2);
    let up: Vec<_> = snapshot.segments().collect();
    let mut down: Vec<_> = snapshot.segments().rev().collect();
    down.reverse();
    assert_eq!(up, down);
    assert_eq!(up.iter().map(|segment| segment.size).sum::<usize>(), snapshot.stats().region_size);
    assert!(up.windows(2).all(|pair| pair[0].end() == pair[1].offset));
}

#[test]
fn holes_do_not_include_the_wilderness() {
    let full = snapshot(&EXAMPLE);
    assert_eq!(full.wilderness(), None);
    assert_eq!(full.holes().map(|hole| hole.size).collect::<Vec<_>>(), [48, 16]);
    let open = snapshot(&[32, -48, 16, -48, 16, -1024]);
    assert_eq!(open.wilderness(), Some(Segment { offset: 160, size: 1024, in_use: false }));
    assert_eq!(open.holes().count(), 2);
    assert_eq!(open.free_segments().next_back(), open.wilderness());
    assert_eq!(open.used_segments().map(|segment| segment.size).sum::<usize>(), open.stats().used_bytes);
    assert_eq!(open.largest_hole(), Some(Segment { offset: 32, size: 48, in_use: false }));
    assert_eq!(snapshot(&[16, -32]).largest_hole(), None);
}

#[test]
fn unusable_counts_the_bytes_in_smaller_holes() {
    let snapshot = snapshot(&[16, -48, 16, -16, 16, -64]);
    assert_eq!([1, 16, 17, 48, 49].map(|n| snapshot.unusable(n)), [0.0, 0.0, 0.25, 0.25, 1.0]);
    assert_eq!([17, 64, 65].map(|n| snapshot.unusable_with_wilderness(n)), [0.125, 0.5, 1.0]);
    assert_eq!(super::tests::snapshot(&[16]).unusable(1), 0.0);
}

#[test]
fn a_byte_is_found_in_its_segment() {
    let snapshot = snapshot(&EXAMPLE);
    for segment in snapshot.segments() {
        for offset in [segment.offset, segment.offset + 1, segment.end() - 1] {
            assert_eq!(snapshot.segment_at(offset), Some(segment));
        }
    }
    assert_eq!(snapshot.segment_at(snapshot.stats().region_size), None);
}

#[test]
fn a_full_buffer_refuses_and_can_be_reused() {
    let mut buffer = SegmentBuffer::populated(3).unwrap();
    let segments = (0..).map(|i| Segment { offset: i * 16, size: 16, in_use: true });
    let fitted = segments.clone().take_while(|&segment| buffer.push(segment)).count();
    assert!(fitted >= 3 && fitted == buffer.capacity());
    buffer.clear();
    assert!(segments.take(3).all(|segment| buffer.push(segment)));
}

#[test]
fn json_lists_the_segments() {
    let mut json = String::new();
    snapshot(&[32, -48]).write_json(&mut json).unwrap();
    assert!(json.starts_with("{\"stats\":{\"region_size\":80,"));
    assert!(json.ends_with("},\"held_ns\":1500,\"segments\":[[0,32,true],[32,48,false]]}"), "{json}");
}

#[test]
fn errors_name_the_cause() {
    let error = SnapshotError::NoMemory { segments: 1_000, errno: 12 };
    assert_eq!(error.to_string(), "no memory for a snapshot of 1000 segments (errno 12)");
    assert!(SnapshotError::GrewTooFast { capacity: 64 }.to_string().contains("beyond 64 segments"));
}
