//! `in_region`: the region in which a closure allocates, however it is nested and however it ends.

mod case;

use smalloc::{Indexed, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;
use std::sync::{Barrier, Mutex};

type Heap = SmallocGlobal<Indexed, 4>;

const MIB: usize = 1 << 20;
const CASES: [case::Case; 2] = [("no_such_region", no_such_region), ("begin_in_a_scope", begin_in_a_scope)];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

/// The region that a request is placed in.
fn region_of(heap: &Heap) -> Option<usize> {
    let (block, status) = heap.smalloc(layout(100));
    // SAFETY: the block is live, and nothing uses it.
    block.map(|block| unsafe { heap.sfree(block) })?;
    Some(status.region)
}

fn used(heap: &Heap) -> [usize; 4] {
    [0, 1, 2, 3].map(|region| heap.region_stats(region).expect("a region").used_bytes)
}

#[test]
fn scopes_nest_and_end() {
    static HEAP: Heap = SmallocGlobal::with_region_size(MIB).with_homes(1);
    static OTHER: Heap = SmallocGlobal::with_region_size(MIB).with_homes(1);
    let both = || (region_of(&HEAP), region_of(&OTHER));
    assert_eq!(both(), (Some(0), Some(0)));
    HEAP.in_region(2, || {
        assert_eq!(both(), (Some(2), Some(0)));
        OTHER.in_region(3, || {
            assert_eq!(both(), (Some(2), Some(3)));
            HEAP.in_region(1, || assert_eq!(both(), (Some(1), Some(3))));
            let caught = catch_unwind(|| HEAP.in_region(0, || std::panic::resume_unwind(Box::new(7))));
            assert!(caught.is_err());
            assert_eq!(both(), (Some(2), Some(3)));
        });
        assert_eq!(both(), (Some(2), Some(0)));
        // A thread that is started inside has a home of its own.
        std::thread::scope(|scope| scope.spawn(|| assert_eq!(both(), (Some(0), Some(0)))).join().unwrap());
    });
    assert_eq!(both(), (Some(0), Some(0)));
    assert_eq!(HEAP.in_region(3, || "the result"), "the result");
}

/// The first call of a thread may be in a scope. It gets a home all the same. Threads of other tests have homes too, so
/// this runs in a process of its own.
#[test]
fn a_thread_may_begin_in_a_scope() {
    case::run("begin_in_a_scope").assert_success();
}

fn begin_in_a_scope() {
    static HEAP: Heap = SmallocGlobal::with_region_size(MIB);
    for _ in 0..100 {
        std::thread::spawn(|| {
            HEAP.in_region(3, || assert_eq!(region_of(&HEAP), Some(3)));
            // Numbers of threads that ended are assigned again, so only the first homes are ever used.
            assert!(region_of(&HEAP).unwrap() < 2);
        })
        .join()
        .unwrap();
    }
}

#[test]
fn a_full_region_refuses() {
    static HEAP: Heap = SmallocGlobal::with_region_size(MIB).with_homes(1);
    assert_eq!(HEAP.set_region_limit(1, 64 << 10), Some(64 << 10));
    assert_eq!(HEAP.set_region_limit(4, 64 << 10), None);
    let fill = || std::iter::from_fn(|| HEAP.smalloc(layout(1 << 10)).0).count();
    assert_eq!(HEAP.in_region(1, fill), 64);
    assert_eq!(used(&HEAP), [0, 64 << 10, 0, 0]);
    // SAFETY: layouts are not empty; the block is live and has this layout.
    unsafe {
        assert!(HEAP.in_region(1, || HEAP.alloc(layout(16))).is_null());
        assert!(HEAP.in_region(1, || HEAP.alloc_zeroed(layout(1 << 17))).is_null());
        // A payload of another region grows in place, or else moves to this region.
        let first = HEAP.alloc(layout(100));
        assert_eq!(HEAP.in_region(1, || HEAP.realloc(first, layout(100), 5_000)), first);
        let _wall = HEAP.alloc(layout(16));
        assert!(HEAP.in_region(1, || HEAP.realloc(first, layout(5_000), 9_000)).is_null());
        let moved = HEAP.in_region(2, || HEAP.realloc(first, layout(5_000), 9_000));
        assert_eq!(used(&HEAP), [16, 64 << 10, 9_008, 0]);
        // With `prefer_region` a request goes to the homes of threads, and not to other regions.
        assert!(!HEAP.prefer_region(1, || HEAP.alloc(layout(16))).is_null());
        assert_eq!(used(&HEAP), [32, 64 << 10, 9_008, 0]);
        HEAP.dealloc(moved, layout(9_000));
        // Requests of other threads do not go to a region that is not a home either.
        let fill = || std::iter::from_fn(|| NonNull::new(HEAP.alloc(layout(1 << 10)))).count();
        assert_eq!((fill(), used(&HEAP)[2..].to_vec()), (1023, vec![0, 0]));
    }
    assert_eq!(HEAP.check(), Ok(()));
}

/// The low-memory callback is called in a scope too, and allocates in it.
#[test]
fn a_full_region_asks_for_memory() {
    static HEAP: Heap = SmallocGlobal::with_region_size(MIB).with_homes(1);
    static CACHE: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    fn evict(_: Layout) -> bool {
        let block = CACHE.lock().unwrap().pop();
        let block = block.and_then(|at| NonNull::new(std::ptr::with_exposed_provenance_mut(at)));
        // SAFETY: the block is live, and is in the cache no more.
        block.inspect(|&block| unsafe { HEAP.sfree(block) }).is_some()
    }
    HEAP.in_region(1, || {
        let blocks = std::iter::from_fn(|| HEAP.smalloc(layout(64 << 10)).0);
        CACHE.lock().unwrap().extend(blocks.map(|block| block.as_ptr().expose_provenance()));
        HEAP.on_low_memory(Some(evict));
        assert_eq!(HEAP.smalloc(layout(256 << 10)).1.region, 1);
    });
    assert_eq!((CACHE.lock().unwrap().len(), used(&HEAP)), (12, [0, MIB, 0, 0]));
}

/// Tenants on threads of their own, whose blocks others free: each region holds exactly its tenant's blocks.
#[test]
fn each_region_holds_its_tenant() {
    static HEAP: Heap = SmallocGlobal::with_region_size(16 * MIB).with_homes(1);
    let kept: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());
    let barrier = Barrier::new(3);
    std::thread::scope(|scope| {
        for tenant in 1..4 {
            let (kept, barrier) = (&kept, &barrier);
            scope.spawn(move || {
                let take = |size| HEAP.smalloc(layout(size)).0.unwrap().as_ptr().expose_provenance();
                let blocks: Vec<_> = (1..500).map(|n| (HEAP.in_region(tenant, || take(n)), n)).collect();
                barrier.wait();
                assert!(used(&HEAP)[tenant] >= 500 * 499 / 2);
                kept.lock().unwrap().extend(blocks);
                barrier.wait();
                // Each thread frees a third of all tenants' blocks.
                for _ in 0..499 {
                    let (at, size) = kept.lock().unwrap().pop().unwrap();
                    let block = std::ptr::with_exposed_provenance_mut(at);
                    // SAFETY: the block is live, has this layout, and is no longer in the list.
                    HEAP.in_region(4 - tenant, || unsafe { HEAP.dealloc(block, layout(size)) });
                }
            });
        }
    });
    assert_eq!(used(&HEAP), [0; 4]);
    assert_eq!(HEAP.check(), Ok(()));
}

/// A forked child is in the same scope as the thread that forked.
#[test]
fn a_fork_keeps_the_scope() {
    static HEAP: Heap = SmallocGlobal::with_region_size(MIB).with_homes(1);
    let status = HEAP.in_region(2, || {
        // SAFETY: the child only uses the heap and exits.
        match unsafe { libc::fork() } {
            0 => {
                let inside = region_of(&HEAP) == Some(2);
                // SAFETY: ends the child at once.
                unsafe { libc::_exit(i32::from(!inside)) }
            }
            child => {
                let mut status = -1;
                // SAFETY: `status` is writable.
                unsafe { libc::waitpid(child, &mut status, 0) };
                status
            }
        }
    });
    assert_eq!((status, region_of(&HEAP)), (0, Some(0)));
}

#[test]
fn regions_have_names() {
    static HEAP: Heap = SmallocGlobal::with_region_size(MIB);
    assert_eq!(HEAP.region_name(1), None);
    assert!(HEAP.name_region(1, "parser") && !HEAP.name_region(4, "nobody"));
    assert_eq!([0, 1, 4].map(|region| HEAP.region_name(region)), [None, Some("parser"), None]);
}

/// One region: the scope changes nothing, and every request is in it.
#[test]
fn a_single_region_is_a_scope_too() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(MIB);
    assert_eq!(HEAP.in_region(0, || HEAP.smalloc(layout(100)).1.region), 0);
    assert!(catch_unwind(AssertUnwindSafe(|| HEAP.in_region(0, || panic!("inside")))).is_err());
}

fn no_such_region() {
    static HEAP: Heap = SmallocGlobal::with_region_size(MIB);
    HEAP.in_region(4, || println!("inside"));
}

#[test]
fn a_region_that_does_not_exist_ends_the_process() {
    let outcome = case::run("no_such_region");
    assert_eq!(outcome.stderr.lines().last(), Some("smalloc: there is no region 4: the heap has 4"));
    assert_eq!((outcome.status.signal(), outcome.stdout.contains("inside")), (Some(libc::SIGABRT), false));
}
