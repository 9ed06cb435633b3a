//! Several regions side by side: whose home is where, what happens when one is full, and what the numbers say.

mod case;
#[path = "common/oracle.rs"]
mod oracle;

use oracle::Oracle;
use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Barrier, Mutex};
use std::thread::{self, JoinHandle};

const REGION: usize = 1 << 20;

const CASES: [case::Case; 7] = [
    ("homes", homes),
    ("threads_by_the_thousand", threads_by_the_thousand),
    ("forks", forks),
    ("freed_twice", freed_twice),
    ("freed_twice_by_pointer", freed_twice_by_pointer),
    ("wrong_layout", wrong_layout),
    ("inside", inside),
];

/// Not a test: what the tests below start.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).unwrap()
}

/// Allocates, and says in which region.
fn take<L: FreeList, const N: usize>(heap: &SmallocGlobal<L, N>, size: usize) -> (NonNull<u8>, usize) {
    let (block, status) = heap.smalloc(layout(size));
    (block.expect("there is room"), status.region)
}

fn home<L: FreeList, const N: usize>(heap: &SmallocGlobal<L, N>) -> usize {
    let (block, region) = take(heap, 100);
    // SAFETY: nobody uses the block.
    unsafe { heap.sfree(block) };
    region
}

// ---- homes -------------------------------------------------------------------------------------------------------

#[test]
fn homes_are_dealt_in_order_and_dealt_again() {
    case::run("homes").assert_success();
}

static FOUR: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(REGION);
static THREE: SmallocGlobal<Linked, 3> = SmallocGlobal::with_region_size(REGION);

/// A thread that has asked for its home and lives until it is told to end.
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
    // What the third of them had is free again, then what the first had.
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

/// Each thread frees what the one before it has left behind, in its own home or another one.
fn threads_by_the_thousand() {
    let mut left: Vec<usize> = Vec::new();
    for round in 0..599 {
        let threads: Vec<_> = (0..7)
            .map(|number| {
                let inherited = left.pop();
                thread::spawn(move || {
                    if let Some(block) = inherited {
                        // SAFETY: the thread that had it has ended.
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

// ---- full regions ------------------------------------------------------------------------------------------------

#[test]
fn a_full_home_is_left_for_the_others() {
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
        // SAFETY: nobody uses the block.
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
    // SAFETY: what was written has moved along.
    assert!(unsafe { std::slice::from_raw_parts(moved, REGION / 2) }.iter().all(|&byte| byte == 7));
    let used = |region: usize| HEAP.region_stats(region % 2).unwrap().used_bytes;
    assert_eq!((used(region), used(region + 1)), (16, REGION * 3 / 4));
    let stats = HEAP.stats();
    assert_eq!((stats.allocs, stats.frees, stats.reallocs, stats.reallocs_moved), (2, 0, 1, 1));
    assert_eq!(stats.hops.count(), stats.allocs + stats.reallocs_moved);
    // SAFETY: as above.
    assert!(unsafe { HEAP.realloc(moved, layout(REGION * 3 / 4), REGION * 2) }.is_null());
    assert_eq!((HEAP.stats().reallocs, HEAP.stats().reallocs_moved, HEAP.stats().failures), (2, 1, 1));
    // SAFETY: nobody uses the two.
    unsafe {
        HEAP.dealloc(moved, layout(REGION * 3 / 4));
        HEAP.sfree(wall);
    }
    assert_eq!(HEAP.stats().used_bytes, 0);
}

// ---- numbers -----------------------------------------------------------------------------------------------------

#[test]
fn the_sum_is_of_all_regions_and_snapshots_are_of_each() {
    static HEAP: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(REGION);
    let start = || {
        thread::spawn(|| {
            [take(&HEAP, 48), take(&HEAP, 64)].map(|(block, _)| block.as_ptr().expose_provenance())
        })
    };
    let mut blocks: Vec<usize> = (0..4).flat_map(|_| start().join().unwrap()).collect();
    // SAFETY: nobody uses the block.
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
fn regions_are_smaller_where_there_is_no_room() {
    // Without optimisation, so many heaps lie on the stack several times before they are in the box.
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
    // SAFETY: nobody uses the block.
    unsafe { heap.sfree(block.unwrap()) };
}

// ---- handing over ------------------------------------------------------------------------------------------------

/// A block as a number, which any thread may have.
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

#[test]
fn what_is_handed_over_is_free_before_the_next_search() {
    static HEAP: SmallocGlobal<Linked, 64> = SmallocGlobal::with_region_size(REGION);
    let blocks: Vec<Block> = (0..8).map(|_| Block::new(&HEAP, 48)).collect();
    elsewhere(&HEAP, || [1, 4, 5].map(|index: usize| blocks[index].free(&HEAP)));
    // The first of the holes, then two of them in one.
    let places = [48, 96].map(|size| HEAP.smalloc(layout(size)).1.payload_offset.unwrap());
    assert_eq!(places, [48, 4 * 48]);
    // What grows in place searches too.
    elsewhere(&HEAP, || blocks[7].free(&HEAP));
    let block = std::ptr::with_exposed_provenance_mut(blocks[6].address);
    // SAFETY: the block is in use.
    assert_eq!(unsafe { HEAP.realloc(block, layout(48), 96) }, block);
    let stats = HEAP.region_stats(home(&HEAP)).unwrap();
    assert_eq!((stats.handed_over, stats.live_segments, stats.contended), (4, 6, 0));
    // The short ways search too.
    let short: [unsafe fn(&SmallocGlobal<Linked, 64>, Layout) -> *mut u8; 2] =
        [GlobalAlloc::alloc, GlobalAlloc::alloc_zeroed];
    for alloc in short {
        elsewhere(&HEAP, || blocks[0].free(&HEAP));
        // SAFETY: the layout is not empty.
        assert_eq!(unsafe { alloc(&HEAP, layout(48)) }.addr(), blocks[0].address);
    }
    assert_eq!(HEAP.check(), Ok(()));
}

#[test]
fn what_the_looker_sees_is_free() {
    static HEAP: SmallocGlobal<Indexed, 64> = SmallocGlobal::with_region_size(REGION);
    type Look = fn() -> usize;
    let looks: [Look; 3] = [
        || HEAP.stats().live_segments,
        || HEAP.try_stats().unwrap().live_segments,
        || HEAP.snapshots().unwrap().iter().map(|snapshot| snapshot.used_segments().count()).sum(),
    ];
    for look in looks {
        let block = Block::new(&HEAP, 100);
        assert_eq!(look(), 1);
        elsewhere(&HEAP, || block.free(&HEAP));
        assert_eq!(look(), 0);
    }
}

#[test]
fn more_than_there_is_room_for_is_freed_by_who_brings_it() {
    static HEAP: SmallocGlobal<Indexed, 64> = SmallocGlobal::with_region_size(REGION);
    // The owner ends before its blocks do.
    let blocks: Vec<Block> = elsewhere(&HEAP, || (0..5000).map(|_| Block::new(&HEAP, 32)).collect());
    blocks.into_iter().for_each(|block| block.free(&HEAP));
    let stats = HEAP.stats();
    assert_eq!((stats.used_bytes, stats.allocs, stats.frees), (0, 5002, 5002));
    assert!((4900..=5000).contains(&stats.handed_over), "{}", stats.handed_over);
    assert_eq!(HEAP.check(), Ok(()));
}

#[test]
fn large_blocks_do_not_wait() {
    static HEAP: SmallocGlobal<Indexed, 64> = SmallocGlobal::with_region_size(REGION);
    let block = elsewhere(&HEAP, || Block::new(&HEAP, REGION / 2));
    block.free(&HEAP);
    assert_eq!((HEAP.stats().handed_over, HEAP.stats().used_bytes), (0, 0));
}

// ---- misuse ------------------------------------------------------------------------------------------------------

static MISUSED: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(REGION);

#[test]
fn misuse_is_found_at_the_next_search() {
    let start = |name: &str| case::run(name);
    for name in ["freed_twice", "freed_twice_by_pointer"] {
        start(name).assert_aborts_as_told("smalloc: double free: ");
    }
    start("wrong_layout").assert_aborts_as_told("smalloc: wrong layout: ");
    start("inside").assert_aborts_as_told("smalloc: interior pointer: ");
}

/// A block of 48 bytes that another thread has.
fn remote_block() -> Block {
    let block = Block::new(&MISUSED, 48);
    Block::new(&MISUSED, 48);
    block
}

fn freed_twice() {
    let block = remote_block();
    println!("expect: smalloc: double free: {:#x} is in a free segment (layout of 48 bytes)", block.address);
    elsewhere(&MISUSED, || [block, block].map(|block| block.free(&MISUSED)));
    home(&MISUSED);
}

fn freed_twice_by_pointer() {
    let block = remote_block();
    println!("expect: smalloc: double free: {:#x} is in a free segment", block.address);
    // SAFETY: misuse is what is tested.
    let free =
        || unsafe { MISUSED.sfree(NonNull::with_exposed_provenance(block.address.try_into().unwrap())) };
    elsewhere(&MISUSED, || [free(), free()]);
    home(&MISUSED);
}

fn wrong_layout() {
    let block = remote_block();
    println!(
        "expect: smalloc: wrong layout: {:#x} has a segment of 48 bytes, the layout of 50 bytes (align 1) takes 64",
        block.address
    );
    elsewhere(&MISUSED, || Block { size: 50, ..block }.free(&MISUSED));
    home(&MISUSED);
}

fn inside() {
    let block = remote_block();
    let address = block.address + 16;
    println!(
        "expect: smalloc: interior pointer: {address:#x} is inside a segment of 48 bytes, 16 bytes from its start \
         (layout of 48 bytes)"
    );
    elsewhere(&MISUSED, || Block { address, ..block }.free(&MISUSED));
    home(&MISUSED);
}

// ---- the model ---------------------------------------------------------------------------------------------------

/// A call, and what came of it.
enum Call {
    Alloc { size: usize, region: usize, offset: Option<usize> },
    Free { region: usize, offset: usize },
    Realloc { region: usize, offset: usize, size: usize, new_size: usize, to: Option<usize> },
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
fn every_region_is_first_fit_whichever_thread_calls() {
    static INDEXED: SmallocGlobal<Indexed, 3> = SmallocGlobal::with_region_size(REGION);
    static LINKED: SmallocGlobal<Linked, 3> = SmallocGlobal::with_region_size(REGION);
    follow(&INDEXED);
    follow(&LINKED);
}

/// Threads call in the order in which they get hold of the log, and any of them frees and resizes what others have
/// allocated. The model makes the same calls in that order, on one thread.
fn follow<L: FreeList>(heap: &'static SmallocGlobal<L, 3>) {
    let bases = bases(heap);
    let of = |address: usize| {
        let region =
            (0..3).find(|&region| (bases[region]..bases[region] + REGION).contains(&address)).unwrap();
        (region, address - bases[region])
    };
    let log: Mutex<(Vec<Call>, Vec<Block>)> = Mutex::default();
    let start = Barrier::new(4);
    thread::scope(|scope| {
        for seed in 0..4 {
            let (log, start) = (&log, &start);
            scope.spawn(move || {
                let mut random = Random(seed);
                start.wait();
                for _ in 0..3000 {
                    let mut turn = log.lock().unwrap();
                    let (calls, blocks) = &mut *turn;
                    calls.push(call(heap, &mut random, blocks, &of));
                    drop(turn);
                    thread::yield_now();
                }
            });
        }
    });
    let (calls, blocks) = log.into_inner().unwrap();
    replay(&calls, bases);
    assert!(heap.stats().handed_over > 1000, "{}", heap.stats().handed_over);
    blocks.into_iter().for_each(|block| block.free(heap));
    assert_eq!((heap.stats().used_bytes, heap.stats().holes()), (0, 0));
    assert_eq!(heap.check(), Ok(()));
}

/// Where each region begins: a block that fills it tells.
fn bases<L: FreeList>(heap: &SmallocGlobal<L, 3>) -> [usize; 3] {
    let mut bases = [0; 3];
    for (block, region) in [(); 3].map(|()| take(heap, REGION)) {
        bases[region] = block.as_ptr().addr();
        block.as_ptr().expose_provenance();
    }
    for base in bases {
        Block { address: base, size: REGION }.free(heap);
    }
    bases
}

fn call<L: FreeList>(
    heap: &SmallocGlobal<L, 3>,
    random: &mut Random,
    blocks: &mut Vec<Block>,
    of: &impl Fn(usize) -> (usize, usize),
) -> Call {
    let size = 1 + random.below(2000);
    let kind = random.below(8);
    if kind < 4 || blocks.is_empty() {
        let (block, status) = heap.smalloc(layout(size));
        if let Some(block) = block {
            blocks.push(Block { address: block.as_ptr().expose_provenance(), size });
        }
        return Call::Alloc { size, region: status.region, offset: status.payload_offset };
    }
    let index = random.below(blocks.len());
    let block = blocks[index];
    let (region, offset) = of(block.address);
    if kind < 7 {
        blocks.swap_remove(index);
        block.free(heap);
        return Call::Free { region, offset };
    }
    // No larger than it is: then it is the region's own affair.
    let new_size = 1 + random.below(block.size);
    let payload = std::ptr::with_exposed_provenance_mut(block.address);
    // SAFETY: the block is in use.
    let moved = unsafe { heap.realloc(payload, layout(block.size), new_size) };
    blocks[index].size = new_size;
    Call::Realloc { region, offset, size: block.size, new_size, to: Some(of(moved.addr()).1) }
}

fn replay(calls: &[Call], bases: [usize; 3]) {
    let mut models = bases.map(|base| Oracle::new(base, REGION));
    for call in calls {
        match *call {
            Call::Alloc { size, region, offset } => {
                assert_eq!(models[region].alloc(layout(size)).offset, offset);
            }
            Call::Free { region, offset } => models[region].free(offset),
            Call::Realloc { region, offset, size, new_size, to } => {
                assert_eq!(models[region].realloc(offset, layout(size), new_size), None);
                assert_eq!(to, Some(offset));
            }
        }
    }
}

// ---- fork --------------------------------------------------------------------------------------------------------

#[test]
fn children_have_all_regions() {
    case::run("forks").assert_success();
}

static ENOUGH: AtomicBool = AtomicBool::new(false);
/// Blocks on their way from thread to thread.
static ON_THE_WAY: [AtomicUsize; 64] = [const { AtomicUsize::new(0) }; 64];

/// Frees what another thread has allocated, and leaves a block to be freed.
fn pass_on(seed: u64) {
    let mut random = Random(seed);
    while !ENOUGH.load(Ordering::Relaxed) {
        let block = Block::new(&FOUR, 64);
        let other = ON_THE_WAY[random.below(64)].swap(block.address, Ordering::AcqRel);
        if other != 0 {
            Block { address: other, size: 64 }.free(&FOUR);
        }
    }
}

fn forks() {
    assert_eq!(home(&FOUR), 0);
    let threads: Vec<_> = (1..=5).map(|seed| thread::spawn(move || pass_on(seed))).collect();
    for round in 0..200 {
        let status = case::wait(case::fork(|| in_child(round)));
        assert_eq!(status, 0, "child {round} ends with {status:#x}");
    }
    ENOUGH.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let left = ON_THE_WAY.iter().map(|place| place.load(Ordering::Relaxed)).filter(|&address| address != 0);
    left.for_each(|address| Block { address, size: 64 }.free(&FOUR));
    assert_eq!((FOUR.stats().used_bytes, FOUR.check()), (0, Ok(())));
    assert!(FOUR.stats().handed_over > 1000);
}

/// Frees what was inherited, uses every region, and hands over more than there is room for, twice.
fn in_child(round: usize) -> i32 {
    let inherited = ON_THE_WAY.iter().map(|place| place.swap(0, Ordering::Relaxed));
    inherited.filter(|&address| address != 0).for_each(|address| Block { address, size: 64 }.free(&FOUR));
    if FOUR.check().is_err() {
        return 1;
    }
    // What the threads that are gone held, or were about to hand over: a block or two of each.
    if FOUR.stats().live_segments > 12 {
        return 2;
    }
    let blocks: Vec<Block> = (0..600).map(|_| Block::new(&FOUR, 64)).collect();
    let before = FOUR.stats().handed_over;
    let freed = thread::spawn(move || blocks.into_iter().for_each(|block| block.free(&FOUR))).join();
    let handed_over = FOUR.stats().handed_over - before;
    if freed.is_err() || handed_over < 590 {
        return 3;
    }
    // Only this thread is left, so the next one has the number after it.
    let next = thread::spawn(|| home(&FOUR)).join();
    if round.is_multiple_of(10) && next.ok() != Some((home(&FOUR) + 1) % 4) { 4 } else { 0 }
}
