//! The number of regions at run time, up to the type's.

mod case;

use smalloc::{Indexed, SmallocGlobal};
use std::alloc::Layout;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::sync::Barrier;

const MIB: usize = 1 << 20;
const CASES: [case::Case; 2] = [("counts", counts), ("beyond", beyond)];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

/// The regions in which eight threads allocate that all live at the same time.
fn homes<const REGIONS: usize>(heap: &'static SmallocGlobal<Indexed, REGIONS>) -> Vec<usize> {
    let barrier = Barrier::new(8);
    let mut homes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    barrier.wait();
                    let (block, status) = heap.smalloc(Layout::new::<[u8; 100]>());
                    barrier.wait();
                    // SAFETY: the block is live, and nothing uses it.
                    unsafe { heap.sfree(block.expect("room")) };
                    status.region
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    });
    homes.sort_unstable();
    homes.dedup();
    homes
}

#[test]
fn the_program_sets_the_number() {
    static FIVE: SmallocGlobal<Indexed, 8> = SmallocGlobal::with_region_size(MIB).with_regions(5);
    static ONE: SmallocGlobal<Indexed, 8> = SmallocGlobal::with_region_size(MIB).with_regions(1);
    static ALL: SmallocGlobal<Indexed, 8> = SmallocGlobal::with_region_size(MIB).with_regions(100);
    static SOME: SmallocGlobal<Indexed, 8> =
        SmallocGlobal::with_region_size(MIB).with_regions(5).with_homes(2);
    assert_eq!(homes(&FIVE), [0, 1, 2, 3, 4]);
    assert_eq!(homes(&ONE), [0]);
    assert_eq!(homes(&ALL), [0, 1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(homes(&SOME), [0, 1]);
    let region = SOME.in_region(4, || SOME.smalloc(Layout::new::<u64>()).1.region);
    assert_eq!(region, 4);
    for (heap, count) in [(&FIVE, 5), (&ONE, 1), (&ALL, 8), (&SOME, 5)] {
        let stats = heap.stats();
        assert_eq!((heap.region_count(), stats.region_size), (count, count * MIB));
        assert_eq!(
            heap.snapshots().expect("memory").iter().map(|of| of.stats().region_size).sum::<usize>(),
            count * MIB
        );
        heap.trim();
        assert_eq!((heap.check(), heap.trim()), (Ok(()), 0));
    }
    // All regions together hold no more, and the last one is full too.
    let blocks = std::iter::from_fn(|| FIVE.smalloc(Layout::new::<[u8; 1 << 16]>()).0);
    assert_eq!(blocks.count(), 5 * 16);
    assert_eq!(FIVE.set_limit(usize::MAX), MIB);
}

/// Cores that this process may run on.
fn cores() -> usize {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the set is writable for its size.
    assert_eq!(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) }, 0);
    // SAFETY: the call has filled the set.
    usize::try_from(unsafe { libc::CPU_COUNT(set.assume_init_ref()) }).expect("a number")
}

#[test]
fn cores_set_the_number() {
    static HEAP: SmallocGlobal<Indexed, 64> = SmallocGlobal::with_region_size(MIB).with_region_per_core();
    static ONE: SmallocGlobal<Indexed, 64> = SmallocGlobal::with_region_size(MIB).with_region_per_core();
    HEAP.init().expect("addresses are free");
    assert_eq!(HEAP.region_count(), cores().min(64));
    // A thread that may run on one core only.
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: all zeros are an empty set, and `sched_getaffinity` writes a set.
    unsafe {
        assert_eq!(libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()), 0);
        let first = (0..1024).find(|&core| libc::CPU_ISSET(core, set.assume_init_ref())).expect("a core");
        let mut one = MaybeUninit::<libc::cpu_set_t>::zeroed().assume_init();
        libc::CPU_SET(first, &mut one);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one), 0);
    }
    ONE.init().expect("addresses are free");
    assert_eq!(ONE.region_count(), 1);
}

/// Prints the number of regions of three heaps.
fn counts() {
    static EIGHT: SmallocGlobal<Indexed, 8> = SmallocGlobal::with_region_size(MIB);
    static FIXED: SmallocGlobal<Indexed, 8> = SmallocGlobal::with_region_size(MIB).with_regions(4);
    static ONE: SmallocGlobal = SmallocGlobal::with_region_size(MIB);
    let counts = (homes(&EIGHT).len(), homes(&FIXED).len(), homes(&ONE).len());
    println!("\n{counts:?} {}", EIGHT.region_count());
}

#[test]
fn the_environment_sets_the_number() {
    let run = |value| case::finish("counts", case::command("counts").env("SMALLOC_REGIONS", value));
    let cores = cores().min(8).to_string();
    for (value, count) in [("3", "3"), ("1", "1"), ("99", "8"), ("", "8"), ("cores", cores.as_str())] {
        let outcome = run(value);
        outcome.assert_success();
        let line = format!("({count}, 4, 1) {count}");
        assert!(outcome.stdout.lines().any(|told| told == line), "{value}: {}", outcome.stdout);
        assert_eq!(outcome.stderr, "");
    }
    for value in ["0", "-1", "many"] {
        let outcome = run(value);
        let line = format!(
            "smalloc: SMALLOC_REGIONS: \"{value}\" is not a number of regions (1 or more, or cores)\n"
        );
        assert_eq!((outcome.stderr, outcome.status.code()), (line, Some(2)));
    }
}

fn beyond() {
    static HEAP: SmallocGlobal<Indexed, 8> = SmallocGlobal::with_region_size(MIB).with_regions(4);
    HEAP.in_region(4, || println!("inside"));
}

#[test]
fn a_region_that_is_not_mapped_does_not_exist() {
    let outcome = case::run("beyond");
    assert_eq!(outcome.stderr.lines().last(), Some("smalloc: there is no region 4: the heap has 4"));
    assert_eq!(outcome.status.signal(), Some(libc::SIGABRT));
}
