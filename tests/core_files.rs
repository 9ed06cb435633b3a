//! Core files contain the committed part of every region, and nothing of the closed rest. Debuggers use the flags of a
//! mapping, which this test compares with its permissions; `tests/debugger.rs` writes a core file with gdb.
#![cfg(target_os = "linux")]

mod case;

use case::{mappings, set_limit};
use smalloc::{Heap, Indexed, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr;

/// So large that the regions of this test lie in no other mapping.
static WIDE: SmallocGlobal = SmallocGlobal::new();
static FOUR: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(1 << 30);

const MEBIBYTE: usize = 1 << 20;
const PIECE: Layout = Layout::new::<[u8; MEBIBYTE]>();

const CASES: [case::Case; 5] = [
    ("grows", grows),
    ("regions", regions),
    ("at_an_address", at_an_address),
    ("refused", refused),
    ("no_more_mappings", no_more_mappings),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

/// A mapping, and whether core files leave it out.
struct Mapped {
    start: usize,
    end: usize,
    permissions: String,
    left_out: bool,
}

/// The mappings that overlap a range.
fn mapped(from: usize, to: usize) -> Vec<Mapped> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("the system tells");
    let flags = smaps.lines().filter_map(|line| line.strip_prefix("VmFlags:"));
    let starts = smaps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some((address(start)?, address(end)?, rest[..4].to_owned()))
    });
    let all = starts.zip(flags).map(|((start, end, permissions), flags)| Mapped {
        start,
        end,
        permissions,
        left_out: flags.split_whitespace().any(|flag| flag == "dd"),
    });
    all.filter(|mapping| mapping.start < to && from < mapping.end).collect()
}

/// Asserts that core files contain what is committed between these addresses, and leave out what is closed. Returns the
/// bytes of both.
fn assert_told(from: usize, to: usize) -> (usize, usize) {
    let (mut open, mut closed) = (0, 0);
    for Mapped { start, end, permissions, left_out } in mapped(from, to) {
        match permissions.as_str() {
            "rw-p" => open += end - start,
            "---p" => closed += end - start,
            other => panic!("{start:#x} to {end:#x} is {other}"),
        }
        assert_eq!(left_out, permissions == "---p", "{start:#x} to {end:#x} is {permissions}");
    }
    (open, closed)
}

/// The bounds of a region and its tables, from the address of its first block.
fn bounds(base: *mut u8, region: usize) -> (usize, usize) {
    (base.addr(), base.addr() + region + region / 64)
}

fn piece(heap: &impl GlobalAlloc) -> *mut u8 {
    // SAFETY: the layout is not empty.
    unsafe { heap.alloc(PIECE) }
}

fn grows() {
    let base = piece(&WIDE);
    let (from, to) = bounds(base, WIDE.stats().region_size);
    let (open, closed) = assert_told(from, to);
    assert!(open < 4 * MEBIBYTE && closed > 31 << 30, "{open} and {closed} bytes");
    for pieces in [10, 100, 200] {
        for _ in 0..pieces {
            assert!(!piece(&WIDE).is_null());
        }
        let (open, _) = assert_told(from, to);
        let stats = WIDE.stats();
        assert!(stats.committed_bytes <= open && open <= stats.committed_bytes + (16 << 20));
    }
    WIDE.trim();
    assert_told(from, to);
}

fn regions() {
    let start = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                let pieces: [*mut u8; 8] = std::array::from_fn(|_| piece(&FOUR));
                let (from, to) = bounds(pieces[0], FOUR.stats().region_size / 4);
                start.wait();
                let (open, closed) = assert_told(from, to);
                assert!(open < 64 << 20 && closed > 900 << 20, "{open} and {closed} bytes");
            });
        }
    });
}

fn at_an_address() {
    let mut heap = Heap::<Indexed>::at_base(0x1000_0000_0000, 1 << 30).expect("no mapping is there");
    for _ in 0..20 {
        assert!(!heap.alloc(PIECE).is_null());
    }
    let (from, to) = bounds(heap.base(), heap.region_size());
    let (open, closed) = assert_told(from, to);
    assert!(open < 64 << 20 && closed > 900 << 20, "{open} and {closed} bytes");
}

/// A step that the system refuses leaves the flags as they were. The limit is lifted before the flags are read, since
/// the C library needs memory for that.
fn refused() {
    let base = piece(&WIDE);
    let (from, to) = bounds(base, WIDE.stats().region_size);
    let mappings = mapped(from, to).len();
    let limit = set_limit(libc::RLIMIT_DATA, case::status_bytes("VmData") + (20 << 20));
    let pieces = std::iter::repeat_with(|| piece(&WIDE)).take_while(|piece| !piece.is_null()).count();
    case::set_errno(0);
    // SAFETY: the layout is not empty.
    let refused = unsafe { WIDE.alloc(Layout::new::<[u8; 1 << 30]>()) };
    set_limit(libc::RLIMIT_DATA, limit);
    assert!(refused.is_null() && (10..30).contains(&pieces), "{pieces} pieces");
    assert_told(from, to);
    assert!(mapped(from, to).len() <= mappings);
}

/// In a process that may have no more mappings, the heap grows all the same, and core files contain all of it.
fn no_more_mappings() {
    let (first, page) = (piece(&WIDE), case::page());
    let (from, to) = bounds(first, WIDE.stats().region_size);
    let before = mappings().len();
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new memory.
    let many = unsafe { libc::mmap(ptr::null_mut(), page << 20, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(many, libc::MAP_FAILED);
    // Every other page becomes a mapping of its own, until the system allows no more.
    let refused = (0..1 << 19).position(|pair: usize| {
        let odd = many.cast::<u8>().wrapping_add((2 * pair + 1) * page);
        // SAFETY: the page belongs to the new mapping.
        unsafe { libc::mprotect(odd.cast(), page, libc::PROT_READ) != 0 }
    });
    assert!(refused.is_some_and(|pairs| pairs > before), "the system sets no limit that this test reaches");
    // Fewer pieces than would make the tables move, which takes mappings of its own.
    for _ in 0..24 {
        let piece = piece(&WIDE);
        assert!(!piece.is_null());
        // SAFETY: the block is live.
        unsafe { piece.write(1) };
    }
    // SAFETY: nothing refers to it.
    unsafe { libc::munmap(many, page << 20) };
    let left_out = |mapping: &Mapped| mapping.permissions == "rw-p" && mapping.left_out;
    assert!(!mapped(from, to).iter().any(left_out));
}

#[test]
fn core_files_leave_out_the_closed_rest() {
    case::run("grows").assert_success();
}

#[test]
fn core_files_leave_out_the_closed_rest_of_every_region() {
    case::run("regions").assert_success();
}

#[test]
fn core_files_leave_out_the_closed_rest_of_a_region_at_an_address() {
    case::run("at_an_address").assert_success();
}

#[test]
fn a_refused_step_leaves_core_files_as_they_were() {
    case::run("refused").assert_success();
}

#[test]
fn at_the_limit_of_mappings_the_heap_grows_and_core_files_hold_it() {
    case::run("no_more_mappings").assert_success();
}
