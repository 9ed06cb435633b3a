extern crate std;
use super::super::snapshot::tests::snapshot;
use super::*;
use std::string::{String, ToString};

fn failure(sizes: &[isize], size: usize, align: usize, refused: bool) -> String {
    limited(None, sizes, size, align, refused)
}

fn limited(limit: Option<usize>, sizes: &[isize], size: usize, align: usize, refused: bool) -> String {
    let snapshot = snapshot(sizes);
    let mut failure = Failure::new(size, align, refused, limit, snapshot.stats());
    let top = snapshot.stats().top;
    snapshot.segments().filter(|segment| segment.offset < top).for_each(|segment| failure.count(segment));
    let mut told = String::new();
    failure.tell(|bytes| told = String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(told, failure.to_string());
    told
}

#[test]
fn holes_are_listed_largest_first_and_mapped() {
    let sizes = [64, -16, 32, -48, 16, -16, 16, -64, 16, -48, 16, -16, 32, -48];
    assert_eq!(
        failure(&sizes, 80, 8, false),
        "smalloc: no place for 80 bytes: the heap is fragmented\n  \
         region         448 B: 192 B in use, 208 B free in 6 holes, 48 B free above top\n  \
         largest holes  64 B at 0xd0, 48 B at 0x70, 48 B at 0x120, 16 B at 0x40, 16 B at 0xb0\n  \
         map            ████·██···█·█····█···█·██  up to top, 16 B a character\n"
    );
}

#[test]
fn each_reason_is_reported() {
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_string();
    let cases: [(&[isize], usize, usize, bool, &str); 6] = [
        (&[], 16, 8, false, "16 bytes: the system gives no region"),
        (&[1024, -1024], 4096, 8, false, "4,096 bytes: the request is larger than the region of 2 KiB"),
        (&[1024, -1024], 512, 8, true, "512 bytes: the system gives no more memory"),
        (&[1024, -1024], 512, 4096, false, "512 bytes aligned to 4,096: no free place is aligned so"),
        (&[1024, -512, 16, -512], 1024, 8, false, "1,024 bytes: the heap is fragmented"),
        (&[1024, -512, 16, -512], 1025, 8, false, "1,025 bytes: the heap is full"),
    ];
    for (sizes, size, align, refused, line) in cases {
        let told = first_line(failure(sizes, size, align, refused));
        assert_eq!(told, std::format!("smalloc: no place for {line}"));
    }
}

#[test]
fn a_limit_is_reported() {
    let told = |size| limited(Some(1536), &[1024, -256, 16, -2048], size, 8, false);
    assert!(told(2048).starts_with(
        "smalloc: no place for 2,048 bytes: the request is larger than the limit of 1.5 KiB\n  \
         region         3.3 KiB, limit 1.5 KiB: 1.0 KiB in use, 256 B free in 1 hole, 240 B free above top\n"
    ));
    assert!(told(400).starts_with("smalloc: no place for 400 bytes: the heap is fragmented\n"));
    assert!(told(600).starts_with("smalloc: no place for 600 bytes: the limit of 1.5 KiB is reached\n"));
}

#[test]
fn the_longest_report_fits() {
    let large = 1 << 35;
    let cells = [large - 48, -large, 16, -large, 16, -large, 16, -large, 16, -large, 16, -large];
    let told = limited(Some(large as usize), &cells, usize::MAX >> 1, 1 << 62, false);
    assert!(told.ends_with("GiB a character\n") && told.len() < REPORT_BYTES, "{told}");
}
