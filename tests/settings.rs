//! Settings made where the heap is declared hold from the first allocation on.

mod case;

use smalloc::recording::{HEAD_BYTES, RECORD_BYTES};
use smalloc::{HeapCell, Indexed, Live, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering};

const MIB: usize = 1 << 20;
const CASES: [case::Case; 2] = [("files", files), ("too_large", too_large)];
const RECORD: &str = "/tmp/smalloc-settings-test.rec";
const PUBLISH: &str = "/tmp/smalloc-settings-test.live";

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

/// Bytes for which a heap has room, in blocks of 4 KiB. They stay.
fn fill<const REGIONS: usize>(heap: &SmallocGlobal<Indexed, REGIONS>) -> usize {
    // SAFETY: the layout is not empty.
    (0..).take_while(|_| !unsafe { heap.alloc(layout(4096)) }.is_null()).count() * 4096
}

#[test]
fn a_limit_holds_from_the_first_allocation() {
    static HEAP: SmallocGlobal<Indexed, 2> = SmallocGlobal::with_region_size(MIB).with_limit(256 << 10);
    static LATER: SmallocGlobal = SmallocGlobal::with_region_size(MIB).with_limit(256 << 10);
    static RESERVED: SmallocGlobal =
        SmallocGlobal::with_region_size(MIB).with_limit(256 << 10).with_reserve(64 << 10);
    assert_eq!(fill(&HEAP), 512 << 10);
    assert_eq!((HEAP.set_limit(usize::MAX), fill(&HEAP)), (MIB, 2 * MIB - (512 << 10)));
    // The program may override a setting before the region is mapped.
    LATER.set_limit(512 << 10);
    assert_eq!(fill(&LATER), 512 << 10);
    assert_eq!((fill(&RESERVED), RESERVED.spend_reserve(|| fill(&RESERVED))), (192 << 10, 64 << 10));
}

#[test]
fn sizes_and_limits_are_of_each_region_or_of_all() {
    static ALL: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_total_size(4 * MIB);
    static SOME: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(MIB).with_regions(3);
    assert_eq!((ALL.set_total_limit(2 * MIB), ALL.stats().region_size), (2 * MIB, 4 * MIB));
    assert_eq!(fill(&ALL), 2 * MIB);
    assert_eq!((SOME.set_total_limit(3 << 18), fill(&SOME)), (3 << 18, 3 << 18));
    assert_eq!(SOME.set_total_limit(usize::MAX), 3 * MIB);
}

fn too_large() {
    const LARGEST: usize = (64 << 30) - (2 << 20);
    static ONE: SmallocGlobal = SmallocGlobal::with_region_size(usize::MAX);
    static TWO: SmallocGlobal<Indexed, 2> = SmallocGlobal::with_total_size(usize::MAX);
    static LATE: SmallocGlobal = SmallocGlobal::new();
    assert_eq!((ONE.init(), TWO.init(), LATE.init_with_size(1 << 50)), (Ok(()), Ok(()), Ok(())));
    let sizes = [ONE.stats(), TWO.stats(), LATE.stats()].map(|stats| stats.region_size);
    assert_eq!(sizes, [LARGEST, 2 * LARGEST, LARGEST]);
}

/// The program requested more than a region can have. The system has refused nothing, so there is nothing to report.
#[test]
fn sizes_above_the_largest_are_clamped_without_a_warning() {
    let outcome = case::run("too_large");
    outcome.assert_success();
    assert_eq!(outcome.stderr, "");
}

#[test]
fn the_callback_is_called_for_the_first_request() {
    static SIZE: AtomicUsize = AtomicUsize::new(0);
    fn note(wanted: Layout) -> bool {
        SIZE.store(wanted.size(), Ordering::Relaxed);
        false
    }
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(MIB).calling_on_low_memory(note);
    // SAFETY: the layout is not empty.
    assert!(unsafe { HEAP.alloc(layout(2 * MIB)) }.is_null());
    assert_eq!(SIZE.load(Ordering::Relaxed), 2 * MIB);
}

/// The kernel shows the advice in the flags of the region's mapping.
#[test]
fn huge_pages_are_advised_from_the_start() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20).with_huge_pages(false);
    // SAFETY: the layout is not empty.
    let block = unsafe { HEAP.alloc(layout(100)) }.addr();
    let maps = std::fs::read_to_string("/proc/self/smaps").expect("the kernel tells");
    let start = format!("{block:x}-");
    let mapping = maps.split_once(&start).expect("the region begins a mapping").1;
    let flags = mapping.lines().find(|line| line.starts_with("VmFlags:")).expect("flags");
    assert!(flags.contains(" nh"), "{flags}");
}

/// A heap that records and publishes, and one whose files cannot be created.
fn files() {
    static HEAP: SmallocGlobal =
        SmallocGlobal::with_region_size(MIB).recording_to(RECORD).publishing_to(PUBLISH);
    static NOWHERE: SmallocGlobal =
        SmallocGlobal::with_region_size(MIB).recording_to("/no/such/a").publishing_to("/no/such/b");
    for heap in [&HEAP, &NOWHERE] {
        // SAFETY: the layout is not empty.
        assert!(!unsafe { heap.alloc(layout(1000)) }.is_null());
        heap.init().expect("it is mapped");
    }
    let recorded = HEAP.stop_recording().expect("a recording");
    assert_eq!((recorded.records, NOWHERE.stop_recording().is_none()), (1, true));
    assert!(HEAP.stop_publishing() && !NOWHERE.stop_publishing());
}

#[test]
fn files_are_opened_for_the_first_allocation() {
    let outcome = case::run("files");
    outcome.assert_success();
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("smalloc: cannot record to \"/no/such/a\": "), "{lines:?}");
    assert!(lines[1].starts_with("smalloc: cannot publish to \"/no/such/b\": "), "{lines:?}");
    assert_eq!(Live::open(PUBLISH).expect("a page").read().used_bytes, 1008);
    let bytes = std::fs::metadata(RECORD).expect("a recording").len();
    assert_eq!(bytes, (HEAD_BYTES + RECORD_BYTES) as u64);
    for path in [RECORD, PUBLISH] {
        std::fs::remove_file(path).expect("the file is there");
    }
}

#[test]
fn a_borrowed_cell_has_no_statistics_and_no_panic() {
    let heap = HeapCell::<Indexed>::with_region_size(MIB).expect("addresses are free");
    heap.borrow_mut().alloc(layout(100));
    assert_eq!(heap.try_stats().map(|stats| stats.used_bytes), Some(112));
    let borrowed = heap.borrow_mut();
    assert_eq!(heap.try_stats(), None);
    drop(borrowed);
}
