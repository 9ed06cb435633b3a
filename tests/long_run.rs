//! A long run: mixed sizes and lifetimes with a steady number of live bytes. The memory of the heap levels off, too.
//!
//! `cargo test` runs a short form. A hundred million operations take about two minutes and print their numbers:
//!
//! ```text
//! cargo test --release --test long_run -- --ignored --nocapture
//! ```

use smalloc::{FreeList, Heap, Indexed, Linked};
use std::alloc::Layout;

/// The number of windows in a run. The heap is checked at the end of each.
const WINDOWS: usize = 20;
/// The number of windows after which the heap has levelled off.
const WARM: usize = 5;

/// The size of a run: the number of operations, and of live bytes.
struct Run {
    operations: usize,
    live_bytes: usize,
}

/// The maximum of each number in one window.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    live_bytes: usize,
    top: usize,
    holes: usize,
    committed: usize,
}

impl Window {
    fn max(self, other: Self) -> Self {
        Self {
            live_bytes: self.live_bytes.max(other.live_bytes),
            top: self.top.max(other.top),
            holes: self.holes.max(other.holes),
            committed: self.committed.max(other.committed),
        }
    }
}

/// xorshift64*: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end
    }

    /// Most sizes are small: each doubling is half as likely, up to 64 KiB.
    fn size(&mut self) -> usize {
        let doublings = (self.below(1 << 12) as u32 | 1 << 12).trailing_zeros();
        1 + self.below(16 << doublings)
    }

    fn layout(&mut self) -> Layout {
        let align = if self.below(50) == 0 { 16 << self.below(6) } else { 8 };
        Layout::from_size_align(self.size(), align).expect("a layout")
    }
}

/// A block that holds its number in its first byte.
struct Block {
    start: *mut u8,
    layout: Layout,
    mark: u8,
}

struct Program<L: FreeList> {
    heap: Heap<L>,
    random: Random,
    blocks: Vec<Block>,
    live_bytes: usize,
}

impl<L: FreeList> Program<L> {
    fn new(region: usize) -> Self {
        let heap = Heap::with_region_size(region).expect("the region can be mapped");
        Self { heap, random: Random(0x5EED), blocks: Vec::new(), live_bytes: 0 }
    }

    fn step(&mut self, level: usize) {
        match self.random.below(20) {
            0 | 1 if !self.blocks.is_empty() => self.resize(),
            _ if self.live_bytes < level => self.take(),
            _ => self.give(),
        }
    }

    fn take(&mut self) {
        let layout = self.random.layout();
        let start = self.heap.alloc(layout);
        assert!(!start.is_null(), "{layout:?} with {} bytes live", self.live_bytes);
        let mark = self.random.below(256) as u8;
        // SAFETY: the block is live and not empty.
        unsafe { start.write(mark) };
        self.live_bytes += layout.size();
        self.blocks.push(Block { start, layout, mark });
    }

    /// Half of the blocks that are freed are among the youngest, the others have any age.
    fn choose(&mut self) -> usize {
        let youngest = self.blocks.len().min(64);
        if self.random.below(2) == 0 {
            self.blocks.len() - 1 - self.random.below(youngest)
        } else {
            self.random.below(self.blocks.len())
        }
    }

    fn give(&mut self) {
        let chosen = self.choose();
        let block = self.blocks.swap_remove(chosen);
        // SAFETY: the block is live and was written.
        assert_eq!(unsafe { block.start.read() }, block.mark);
        self.live_bytes -= block.layout.size();
        // SAFETY: the block is live and has this layout.
        unsafe { self.heap.dealloc(block.start, block.layout) };
    }

    fn resize(&mut self) {
        let chosen = self.choose();
        let size = self.random.size();
        let block = &mut self.blocks[chosen];
        // SAFETY: the block is live, has this layout, and the size is small and not zero.
        let start = unsafe { self.heap.realloc(block.start, block.layout, size) };
        assert!(!start.is_null(), "{size} bytes with {} bytes live", self.live_bytes);
        // SAFETY: the block is live, and its first byte was kept.
        assert_eq!(unsafe { start.read() }, block.mark);
        self.live_bytes = self.live_bytes - block.layout.size() + size;
        block.layout = Layout::from_size_align(size, block.layout.align()).expect("a layout");
        block.start = start;
    }

    fn window(&mut self, operations: usize, level: usize) -> Window {
        let mut most = Window::default();
        for operation in 0..operations {
            self.step(level);
            if operation % 1000 == 0 {
                let stats = self.heap.stats();
                most = most.max(Window {
                    live_bytes: self.live_bytes,
                    top: stats.top,
                    holes: stats.free_segments,
                    committed: stats.committed_bytes,
                });
            }
        }
        self.heap.check().expect("the heap is sound");
        most
    }
}

/// Runs, and asserts that after the first quarter nothing grows any more.
fn run<L: FreeList>(run: &Run) {
    let mut program = Program::<L>::new(16 * run.live_bytes + (1 << 20));
    let windows: Vec<Window> =
        (0..WINDOWS).map(|_| program.window(run.operations / WINDOWS, run.live_bytes)).collect();
    println!("{} operations, {}:", run.operations, L::NAME);
    for window in &windows {
        println!("{window:?}");
    }
    let (early, late) = windows[WARM..].split_at((WINDOWS - WARM) / 3);
    let early = early.iter().copied().reduce(Window::max).expect("some windows");
    let late = late.iter().copied().reduce(Window::max).expect("some windows");
    assert!(late.live_bytes <= run.live_bytes + (1 << 18), "{late:?}");
    assert!(late.top <= early.top + early.top / 10, "{early:?} {late:?}");
    assert!(late.holes <= early.holes + early.holes / 2, "{early:?} {late:?}");
    assert!(late.committed <= early.committed + early.committed / 4, "{early:?} {late:?}");
    while !program.blocks.is_empty() {
        program.give();
    }
    program.heap.check().expect("the heap is sound");
    let stats = program.heap.stats();
    assert_eq!((stats.free_segments, stats.live_segments, stats.top), (1, 0, 0));
    assert_eq!((stats.used_bytes, stats.allocs), (0, stats.frees));
}

#[test]
fn a_short_run_levels_off() {
    run::<Indexed>(&Run { operations: 400_000, live_bytes: 1 << 20 });
    run::<Linked>(&Run { operations: 200_000, live_bytes: 1 << 18 });
}

#[test]
#[ignore = "takes minutes in a release build: a hundred million operations"]
fn a_hundred_million_operations_level_off() {
    run::<Indexed>(&Run { operations: 100_000_000, live_bytes: 64 << 20 });
}
