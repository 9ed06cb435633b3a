//! Memory that use has left behind is returned within 10,000 calls, wherever they are made. Bursts that come back keep
//! it.
#![cfg(not(feature = "hardened"))]

mod case;

use case::{page, resident};
use smalloc::{Heap, Indexed, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

const MIB: usize = 1 << 20;
/// Calls after which little is left.
const CALLS: usize = 10_000;
/// The most bytes that stay at the same time.
const RESERVE: usize = 512 * MIB;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

fn allowed(peak: usize) -> usize {
    16 * MIB + peak / 20
}

/// A heap with one region, and its base.
struct Program {
    heap: SmallocGlobal,
    base: *mut u8,
}

impl Program {
    fn new() -> Self {
        let heap = SmallocGlobal::with_region_size(1 << 30);
        let base = heap.smalloc(layout(MIB)).0.expect("there is room").as_ptr();
        Self { heap, base }
    }

    fn take(&self, size: usize) -> *mut u8 {
        // SAFETY: the layout is not empty, and the block has that many bytes.
        unsafe {
            let block = self.heap.alloc(layout(size));
            assert!(!block.is_null(), "{size} bytes");
            block.write_bytes(1, size);
            block
        }
    }

    fn give(&self, block: *mut u8, size: usize) {
        // SAFETY: the block is live and has this layout.
        unsafe { self.heap.dealloc(block, layout(size)) };
    }

    /// `count` blocks and the array that lists them, which is freed last.
    fn container(&self, count: usize, size: usize, order: fn(&mut Vec<*mut u8>)) {
        let array = self.take(count * 64);
        let mut blocks: Vec<_> = (0..count).map(|_| self.take(size)).collect();
        order(&mut blocks);
        blocks.into_iter().for_each(|block| self.give(block, size));
        self.give(array, count * 64);
    }

    fn quiet(&self, calls: usize, size: usize) {
        for _ in 0..calls / 2 {
            self.give(self.take(size), size);
        }
    }

    fn resident(&self) -> usize {
        resident(self.base, self.heap.stats().peak_top.next_multiple_of(page()))
    }

    /// The memory that use has left behind is returned by further calls. `moment` names the place in the test.
    fn assert_goes(&self, size: usize, moment: &str) {
        let peak = self.heap.stats().peak_used_bytes;
        let at_once = self.resident();
        assert!(at_once <= RESERVE, "{moment}: {at_once} of {peak} bytes at once");
        self.quiet(CALLS, size);
        let left = self.resident();
        assert!(left <= allowed(peak), "{moment}: {left} of {peak} bytes, {at_once} before the calls");
        self.heap.check().expect("the heap is sound");
    }
}

#[test]
fn a_dropped_container_of_small_blocks_leaves_little() {
    for (size, count) in [(16, 300_000), (1000, 40_000)] {
        let program = Program::new();
        program.container(count, size, |_| ());
        program.assert_goes(24, &format!("blocks of {size} bytes"));
        program.container(count, size, |blocks| blocks.reverse());
        program.assert_goes(24, &format!("blocks of {size} bytes, reversed"));
    }
}

/// From the second burst on, the heap keeps a reserve, which is returned as well.
#[test]
fn bursts_close_together_leave_little_when_they_end() {
    for (size, count) in [(300, 100_000), (MIB, 100), (150 * MIB, 1)] {
        let program = Program::new();
        (0..3).for_each(|_| program.container(count, size, |_| ()));
        program.assert_goes(1000, &format!("bursts of {size} bytes"));
    }
}

/// The calls that follow may be of any kind.
#[test]
fn allocations_alone_purge_idle_memory() {
    let program = Program::new();
    program.container(400_000, 100, |_| ());
    assert!(program.resident() > allowed(64 * MIB), "else the test is in vain");
    let blocks: Vec<_> = (0..CALLS).map(|_| program.take(16)).collect();
    let left = program.resident();
    assert!(left <= allowed(64 * MIB), "{left} bytes");
    blocks.into_iter().for_each(|block| program.give(block, 16));
}

/// 6,000 blocks, 375 MiB in all, that are freed and allocated again, fault in their pages once. Afterwards they are
/// returned.
#[test]
fn recurring_bursts_keep_their_pages() {
    let program = Program::new();
    let mut blocks = Vec::with_capacity(6000);
    for round in 0..5 {
        blocks.extend((0..6000).map(|_| program.take(64 << 10)));
        assert_eq!(program.heap.stats().purged_total, 0, "round {round}");
        blocks.drain(..).for_each(|block| program.give(block, 64 << 10));
        program.quiet(1000, 48);
    }
    assert_eq!(program.heap.stats().purged_total, 0);
    program.assert_goes(24, "the end of all bursts");
}

/// A heap of one thread counts its own calls.
#[test]
fn a_heap_of_one_thread_purges_idle_memory() {
    let mut heap = Heap::<Indexed>::with_region_size(1 << 30).expect("addresses are free");
    let pair = |heap: &mut Heap<Indexed>, size: usize| {
        let block = heap.alloc(layout(size));
        // SAFETY: the block has that many bytes, is live, and has this layout.
        unsafe {
            block.write_bytes(1, size);
            heap.dealloc(block, layout(size));
        }
    };
    (0..3).for_each(|_| pair(&mut heap, 300 * MIB));
    (0..CALLS / 2).for_each(|_| pair(&mut heap, 24));
    let left = resident(heap.base(), 300 * MIB);
    assert!(left <= allowed(300 * MIB), "{left} bytes");
}

/// With a decay time, time counts instead of calls.
#[test]
fn idle_memory_decays_by_time() {
    let program = Program::new();
    program.heap.decay(Duration::from_secs(1000));
    program.container(400_000, 100, |_| ());
    program.quiet(3 * CALLS, 24);
    assert!(program.resident() > allowed(64 * MIB), "the time is not over");
    program.heap.decay(Duration::from_millis(1));
    program.quiet(3000, 24);
    thread::sleep(Duration::from_millis(2));
    program.quiet(3000, 24);
    let left = program.resident();
    assert!(left <= allowed(64 * MIB), "{left} bytes");
}

// ---- several regions ---------------------------------------------------------------------------------------------

/// Eight threads over four regions, one of which at a time has a large job and frees all of it.
#[test]
fn calls_in_any_region_purge_idle_memory() {
    static HEAP: SmallocGlobal<Indexed, 4> = SmallocGlobal::with_region_size(256 << 20);
    fn take(size: usize) -> *mut u8 {
        // SAFETY: the layout is not empty, and the block has that many bytes.
        unsafe {
            let block = HEAP.alloc(layout(size));
            assert!(!block.is_null());
            block.write_bytes(1, size);
            block
        }
    }
    fn give(block: *mut u8, size: usize) {
        // SAFETY: the block is live and has this layout.
        unsafe { HEAP.dealloc(block, layout(size)) };
    }
    fn job() {
        let text = take(50 * MIB);
        let nodes: Vec<_> = (0..20_000).map(|_| take(600)).collect();
        nodes.into_iter().for_each(|node| give(node, 600));
        give(text, 50 * MIB);
    }
    let (first, others) = (take(16), 8);
    thread::scope(|scope| {
        let pool: Vec<_> = (0..others)
            .map(|_| {
                let (ask, asked) = channel::<()>();
                let (done, is_done) = channel();
                scope.spawn(move || {
                    for () in asked {
                        job();
                        done.send(()).expect("it waits");
                    }
                });
                (ask, is_done)
            })
            .collect();
        for round in 0..2 {
            for (ask, is_done) in &pool {
                ask.send(()).expect("the thread waits");
                is_done.recv().expect("the thread is done");
            }
            // The next region's calls have returned the memory of the last one.
            let held = HEAP.trim();
            assert!(held <= 3 * 64 * MIB, "round {round}: {held} bytes");
        }
        for (ask, is_done) in &pool {
            ask.send(()).expect("the thread waits");
            is_done.recv().expect("the thread is done");
        }
        (0..CALLS / 2).for_each(|_| give(take(24), 24));
        let left = HEAP.trim();
        assert!(left <= allowed(64 * MIB), "{left} bytes");
    });
    give(first, 16);
    HEAP.check().expect("the heap is sound");
}
