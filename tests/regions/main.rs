//! Several regions side by side: the homes of threads, full regions, and the statistics.

#[path = "../case/mod.rs"]
mod case;
mod forks;
mod handing_over;
mod model;
#[path = "../common/oracle.rs"]
mod oracle;

use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

const REGION: usize = 1 << 20;

static FOUR: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(REGION);
static THREE: SmallocGlobal<Linked, 3> = SmallocGlobal::with_region_size(REGION);

const CASES: [case::Case; 7] = [
    ("homes", homes),
    ("threads_by_the_thousand", threads_by_the_thousand),
    ("forks", forks::forks),
    ("freed_twice", handing_over::freed_twice),
    ("freed_twice_by_pointer", handing_over::freed_twice_by_pointer),
    ("wrong_layout", handing_over::wrong_layout),
    ("inside", handing_over::inside),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).unwrap()
}

/// Allocates, and returns the region of the block.
fn take<L: FreeList, const N: usize>(heap: &SmallocGlobal<L, N>, size: usize) -> (NonNull<u8>, usize) {
    let (block, status) = heap.smalloc(layout(size));
    (block.expect("there is room"), status.region)
}

fn home<L: FreeList, const N: usize>(heap: &SmallocGlobal<L, N>) -> usize {
    let (block, region) = take(heap, 100);
    // SAFETY: nothing uses the block.
    unsafe { heap.sfree(block) };
    region
}

/// A block as a number, which may be sent to any thread.
#[derive(Clone, Copy)]
struct Block {
    address: usize,
    size: usize,
}

impl Block {
    fn new<L: FreeList, const N: usize>(heap: &SmallocGlobal<L, N>, size: usize) -> Self {
        Self { address: take(heap, size).0.as_ptr().expose_provenance(), size }
    }

    fn free<L: FreeList, const N: usize>(self, heap: &SmallocGlobal<L, N>) {
        // SAFETY: the block is in use, or it is misused on purpose.
        unsafe { heap.dealloc(std::ptr::with_exposed_provenance_mut(self.address), layout(self.size)) };
    }
}

/// Runs `work` on a thread whose home is another region.
fn elsewhere<L: FreeList, const N: usize, R: Send>(
    heap: &'static SmallocGlobal<L, N>,
    work: impl FnOnce() -> R + Send,
) -> R {
    let here = home(heap);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            assert_ne!(home(heap), here);
            work()
        });
        thread.join().unwrap()
    })
}

/// A generator of numbers that are random enough.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

#[test]
fn homes_are_assigned_in_order_and_assigned_again() {
    case::run("homes").assert_success();
}

/// A thread that has got its home and lives until it is told to end.
struct Guest {
    homes: (usize, usize),
    end: Sender<()>,
    thread: JoinHandle<()>,
}

impl Guest {
    fn new() -> Self {
        let (tell, homes) = channel();
        let (end, ends) = channel::<()>();
        let thread = thread::spawn(move || {
            tell.send((home(&FOUR), home(&THREE))).unwrap();
            ends.recv().unwrap();
            assert_eq!(home(&FOUR), home(&FOUR));
        });
        Self { homes: homes.recv().unwrap(), end, thread }
    }

    fn end(self) {
        self.end.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

fn homes() {
    assert_eq!((home(&FOUR), home(&THREE)), (0, 0), "the first thread that asks");
    let mut guests: Vec<Guest> = (0..7).map(|_| Guest::new()).collect();
    let homes: Vec<_> = guests.iter().map(|guest| guest.homes).collect();
    assert_eq!(homes, [(1, 1), (2, 2), (3, 0), (0, 1), (1, 2), (2, 0), (3, 1)]);
    // The third one's home is assigned first, then that of the first one.
    guests.remove(2).end();
    guests.remove(0).end();
    let [first, second] = [Guest::new(), Guest::new()];
    assert_eq!((first.homes, second.homes), ((1, 1), (3, 0)));
    guests.into_iter().chain([first, second]).for_each(Guest::end);
}

#[test]
fn thousands_of_threads_come_and_go() {
    case::run("threads_by_the_thousand").assert_success();
}

/// Each thread frees the blocks that the one before has left, in its own home or another one.
fn threads_by_the_thousand() {
    let mut left: Vec<usize> = Vec::new();
    for round in 0..599 {
        let threads: Vec<_> = (0..7)
            .map(|number| {
                let inherited = left.pop();
                thread::spawn(move || {
                    if let Some(block) = inherited {
                        // SAFETY: the thread that owned it has ended.
                        unsafe {
                            FOUR.dealloc(std::ptr::with_exposed_provenance_mut(block), layout(round + 15))
                        };
                    }
                    let (block, _) = take(&FOUR, round + 16);
                    // SAFETY: the block has at least 16 bytes.
                    unsafe { block.write_bytes(number, 16) };
                    block.as_ptr().expose_provenance()
                })
            })
            .collect();
        assert!(left.is_empty());
        left.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
    }
    let stats = FOUR.stats();
    assert_eq!((stats.allocs, stats.frees, stats.live_segments), (4193, 4186, 7));
    assert_eq!(FOUR.check(), Ok(()));
    assert_eq!(home(&FOUR), 0, "all numbers have come back");
    let guest = Guest::new();
    assert_eq!(guest.homes.0, 1, "all numbers have come back");
    guest.end();
}

#[test]
fn a_full_home_sends_requests_to_other_regions() {
    static HEAP: SmallocGlobal<Indexed, 3> = SmallocGlobal::with_region_size(REGION);
    let blocks: Vec<_> = (0..3).map(|_| take(&HEAP, REGION)).collect();
    let first = blocks[0].1;
    let regions: Vec<usize> = blocks.iter().map(|&(_, region)| region).collect();
    assert_eq!(regions, [first, (first + 1) % 3, (first + 2) % 3]);
    assert_eq!((HEAP.stats().used_bytes, HEAP.stats().failures), (3 * REGION, 0));
    assert_eq!(HEAP.region_stats(first).unwrap().failures, 2);
    for failures in 1..3 {
        let (none, status) = HEAP.smalloc(layout(5));
        assert!(none.is_none() && !status.success);
        // SAFETY: the layout is not empty.
        assert!(unsafe { HEAP.alloc_zeroed(layout(6)) }.is_null());
        assert_eq!((HEAP.stats().failures, HEAP.stats().last_failed_size), (2 * failures, 6));
    }
    for (block, _) in blocks {
        // SAFETY: nothing uses the block.
        unsafe { HEAP.dealloc(block.as_ptr(), layout(REGION)) };
    }
    assert_eq!((HEAP.stats().used_bytes, HEAP.stats().frees), (0, 3));
    assert_eq!(HEAP.check(), Ok(()));
}

#[test]
fn a_payload_that_outgrows_its_region_moves_to_another() {
    static HEAP: SmallocGlobal<Linked, 2> = SmallocGlobal::with_region_size(REGION);
    let (block, region) = take(&HEAP, REGION / 2);
    let (wall, _) = take(&HEAP, 16);
    // SAFETY: the block has the bytes.
    unsafe { block.write_bytes(7, REGION / 2) };
    // SAFETY: the block is in use, with this layout.
    let moved = unsafe { HEAP.realloc(block.as_ptr(), layout(REGION / 2), REGION * 3 / 4) };
    // SAFETY: the written bytes have moved along.
    assert!(unsafe { std::slice::from_raw_parts(moved, REGION / 2) }.iter().all(|&byte| byte == 7));
    let used = |region: usize| HEAP.region_stats(region % 2).unwrap().used_bytes;
    assert_eq!((used(region), used(region + 1)), (16, REGION * 3 / 4));
    let stats = HEAP.stats();
    assert_eq!((stats.allocs, stats.frees, stats.reallocs, stats.reallocs_moved), (2, 0, 1, 1));
    assert_eq!(stats.hops.count(), stats.allocs + stats.reallocs_moved);
    // SAFETY: as above.
    assert!(unsafe { HEAP.realloc(moved, layout(REGION * 3 / 4), REGION * 2) }.is_null());
    assert_eq!((HEAP.stats().reallocs, HEAP.stats().reallocs_moved, HEAP.stats().failures), (2, 1, 1));
    // SAFETY: nothing uses the two blocks.
    unsafe {
        HEAP.dealloc(moved, layout(REGION * 3 / 4));
        HEAP.sfree(wall);
    }
    assert_eq!(HEAP.stats().used_bytes, 0);
}

#[test]
fn the_sum_is_of_all_regions_and_snapshots_are_of_each() {
    static HEAP: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(REGION);
    let start = || {
        thread::spawn(|| {
            [take(&HEAP, 48), take(&HEAP, 64)].map(|(block, _)| block.as_ptr().expose_provenance())
        })
    };
    let mut blocks: Vec<usize> = (0..4).flat_map(|_| start().join().unwrap()).collect();
    // SAFETY: nothing uses the block.
    unsafe { HEAP.sfree(NonNull::with_exposed_provenance(blocks.swap_remove(0).try_into().unwrap())) };
    let stats = HEAP.stats();
    assert_eq!((stats.region_size, stats.allocs, stats.live_segments), (4 * REGION, 8, 7));
    assert_eq!((stats.used_bytes, stats.free_bytes), (4 * 112 - 48, 4 * (REGION - 112) + 48));
    assert_eq!(HEAP.try_stats(), Some(stats));
    let parts: Vec<_> = (0..4).map(|region| HEAP.region_stats(region).unwrap()).collect();
    assert_eq!(parts.iter().map(|part| part.used_bytes).sum::<usize>(), stats.used_bytes);
    assert_eq!(parts.iter().map(|part| part.allocs).sum::<u64>(), 8);
    assert_eq!(HEAP.region_stats(4), None);
    let snapshots = HEAP.snapshots().unwrap();
    for (region, (snapshot, part)) in snapshots.iter().zip(&parts).enumerate() {
        assert_eq!((snapshot.region(), snapshot.stats()), (region, part));
        assert_eq!(snapshot.segments().map(|segment| segment.size).sum::<usize>(), REGION);
        assert_eq!(snapshot.used_segments().count(), part.live_segments);
    }
}

#[test]
fn regions_are_smaller_if_addresses_are_scarce() {
    // Without optimisation, so many heaps are copied to the stack several times before they are in the box.
    let thread = std::thread::Builder::new().stack_size(16 << 20).spawn(many_large_regions);
    thread.expect("a thread starts").join().expect("all is as expected");
}

fn many_large_regions() {
    let heap = Box::new(SmallocGlobal::<Indexed, 64>::with_region_size(64 << 30));
    heap.init().unwrap();
    let stats = heap.stats();
    assert_eq!(stats.region_size % 64, 0);
    assert!(stats.region_size / 64 >= 1 << 30, "{}", stats.region_size);
    let (block, status) = heap.smalloc(layout(1 << 20));
    assert_eq!(status.payload_offset, Some(0));
    // SAFETY: nothing uses the block.
    unsafe { heap.sfree(block.unwrap()) };
}
