//! `at_base` and `SMALLOC_BASE`: the same addresses in every run, or an error that says why not.

mod case;

use smalloc::{Heap, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr;

const BASE: usize = 0x1000_0000_0000;
const MIB: usize = 1 << 20;
const CASES: [case::Case; 3] = [("addresses", addresses), ("several", several), ("occupied", occupied)];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

/// Prints the addresses of a few payloads.
fn addresses() {
    static FIRST: SmallocGlobal = SmallocGlobal::new();
    static SECOND: SmallocGlobal = SmallocGlobal::new();
    for heap in [&FIRST, &SECOND] {
        let address = |size| {
            // SAFETY: the layout is not empty.
            unsafe { heap.alloc(Layout::from_size_align(size, 8).expect("a layout")) }.addr()
        };
        println!("at {:x?}", [100, 5000, 1 << 20].map(address));
    }
}

/// Two heaps of several regions, each at its own place.
fn several() {
    static INDEXED: SmallocGlobal<Indexed, 3> = SmallocGlobal::with_region_size(MIB).at_base(BASE);
    static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(MIB).at_base(BASE + (1 << 40));
    let block = INDEXED.smalloc(Layout::new::<u64>()).0.expect("room");
    let stride = (0..3).map(|region| {
        INDEXED.in_region(region, || INDEXED.smalloc(Layout::new::<[u8; 16]>()).0.expect("room").addr().get())
    });
    let stride: Vec<_> = stride.collect();
    println!("at {:x}, {:x?}", block.addr(), stride);
    println!("at {:x}", LINKED.smalloc(Layout::new::<u64>()).0.expect("room").addr());
    assert_eq!((INDEXED.check(), LINKED.check()), (Ok(()), Ok(())));
}

/// A page of another mapping inside the region is in the way.
fn occupied() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(64 * MIB).at_base(BASE);
    let wish = ptr::without_provenance_mut(BASE + 32 * MIB);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: the mapping replaces nothing.
    let page = unsafe { libc::mmap(wish, 4096, libc::PROT_READ, flags, -1, 0) };
    assert_eq!(page, wish);
    // SAFETY: the layout is not empty.
    assert!((0..3).all(|_| unsafe { HEAP.alloc(Layout::new::<u64>()) }.is_null()));
    let error = HEAP.init().expect_err("the place is taken");
    println!("{error}; {} {:?} {}", error.errno, error.base, error.region_size);
    // SAFETY: the page is this test's, and nothing refers to it.
    unsafe { libc::munmap(page, 4096) };
    // SAFETY: the layout is not empty.
    println!("at {:p}", unsafe { HEAP.alloc(Layout::new::<u64>()) });
}

/// The lines of a case with addresses, and standard error.
fn run(name: &str, variables: &[(&str, &str)]) -> (Vec<String>, String) {
    let outcome = case::finish(name, case::command(name).envs(variables.iter().copied()));
    outcome.assert_success();
    // libtest writes the name of the test before the first line.
    let lines = outcome.stdout.lines().map(|line| line.trim_start_matches("test case ... ").to_owned());
    let lines = lines.filter(|line| line.contains("at ") && !line.starts_with("test "));
    (lines.collect(), outcome.stderr)
}

#[test]
fn the_environment_sets_the_address() {
    let (lines, errors) = run("addresses", &[("SMALLOC_BASE", "0x100000000000")]);
    assert_eq!((lines[0].as_str(), errors.as_str()), ("at [100000000000, 100000000070, 100000001400]", ""));
    assert!(!lines[1].starts_with("at [1000"), "the second heap is elsewhere: {}", lines[1]);
    let decimal = BASE.to_string();
    assert_eq!(run("addresses", &[("SMALLOC_BASE", &decimal)]).0[0], lines[0]);
}

#[test]
fn an_impossible_address_is_reported() {
    let (lines, errors) = run("addresses", &[("SMALLOC_BASE", "0x100000001000")]);
    assert!(!lines[0].starts_with("at [1000"), "{}", lines[0]);
    let line = "smalloc: SMALLOC_BASE: cannot map a region at 0x100000001000: the address is not a multiple of 2 MiB \
                (name another address)\n";
    assert_eq!(errors, line);
    let strict = [("SMALLOC_BASE", "0x100000001000"), ("SMALLOC_STRICT", "1")];
    let outcome = case::finish("addresses", case::command("addresses").envs(strict));
    assert_eq!((outcome.stderr.as_str(), outcome.status.code()), (line, Some(2)));
    let outcome = case::finish("addresses", case::command("addresses").env("SMALLOC_BASE", "here"));
    let line =
        "smalloc: SMALLOC_BASE: \"here\" is not an address (a multiple of 2 MiB, such as 0x100000000000)\n";
    assert_eq!((outcome.stderr.as_str(), outcome.status.code()), (line, Some(2)));
}

#[test]
fn the_program_sets_the_address() {
    let (lines, errors) = run("several", &[]);
    let regions = "at 100000000000, [100000000010, 100000200000, 100000400000]";
    assert_eq!((lines, errors.as_str()), (vec![regions.to_owned(), "at 110000000000".to_owned()], ""));
}

#[test]
fn an_occupied_address_is_an_error() {
    let (lines, errors) = run("occupied", &[]);
    let reason = "cannot map a region of 67108864 bytes at 0x100000000000: File exists (errno 17)";
    assert_eq!(errors, format!("smalloc: {reason} (name another address)\n"));
    assert_eq!(lines, [format!("{reason}; 17 Some({BASE}) 67108864"), "at 0x100000000000".to_owned()]);
}

/// Arenas have a base too, and an unmapped address can be mapped again.
#[test]
fn an_arena_has_its_address() {
    let place = BASE + (1 << 41);
    for _ in 0..3 {
        let heap = Heap::<Indexed>::at_base(place, MIB).expect("the place is free");
        assert_eq!((heap.base().addr(), heap.region_size()), (place, MIB));
        let error = Heap::<Linked>::at_base(place, MIB).expect_err("the place is taken");
        assert_eq!((error.errno, error.base), (libc::EEXIST, Some(place)));
    }
    for (address, errno) in [(0, libc::EINVAL), (place + 4096, libc::EINVAL)] {
        assert_eq!(Heap::<Indexed>::at_base(address, MIB).expect_err("no such place").errno, errno);
    }
}
