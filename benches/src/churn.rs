//! Steady churn: a fixed number of live blocks, of which a random one is freed and replaced by
//! one of another size, over and over. Shows how the cost of a pair grows with the heap.

use std::alloc::{GlobalAlloc, Layout};
use std::io;
use std::time::{Duration, Instant};

use crate::allocators::{Kind, Visitor};
use crate::clean::free_all;
use crate::options::Options;
use crate::report::{Comparison, Sample, compare};
use crate::rng::Rng;

/// The clock is looked at after each piece of this many pairs.
const PIECE: usize = 1 << 14;

/// Blocks are aligned as most Rust types are.
const ALIGN: usize = 8;

/// The mean size of the blocks, with room for what an allocator adds and loses, decides the
/// region: this many times the live bytes.
const ROOM: usize = 2;

/// Bringing in the memory may take this many times the limit.
const FILL: u32 = 10;

/// A live block.
#[derive(Clone, Copy, Debug)]
struct Block {
    address: *mut u8,
    size: usize,
}

/// One pair: the block `index` is freed and one of `size` bytes takes its place.
#[derive(Clone, Copy, Debug)]
struct Pair {
    index: u32,
    size: u32,
}

/// The calls of one case, the same for every allocator.
struct Plan {
    fill: Vec<u32>,
    pairs: Vec<Pair>,
    region: usize,
    limit: Duration,
}

impl Plan {
    fn new(live: usize, sizes: (usize, usize), pairs: usize, limit: Duration) -> Self {
        let mut rng = Rng::new(live as u64);
        let fill: Vec<u32> = (0..live).map(|_| rng.log_uniform(sizes.0, sizes.1) as u32).collect();
        let mut pair = || {
            let index = rng.below(live) as u32;
            Pair { index, size: rng.log_uniform(sizes.0, sizes.1) as u32 }
        };
        // Half of the pairs bring the heap to its steady state, the other half is timed.
        let pairs = (0..pairs * 2).map(|_| pair()).collect();
        let bytes: usize = fill.iter().map(|size| *size as usize).sum();
        let region = (bytes * ROOM + live * 64).next_power_of_two().max(8 << 20);
        Self { fill, pairs, region, limit }
    }
}

fn layout(size: usize) -> Layout {
    // SAFETY: sizes are at most 32 bits long and the alignment is a power of two.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

/// Allocates and writes a first word, as a constructor does.
#[inline]
fn new_block<A: GlobalAlloc>(heap: &A, size: usize) -> Block {
    // SAFETY: no size of a plan is 0; a block that is not null has at least 16 bytes.
    unsafe {
        let address = heap.alloc(layout(size));
        if !address.is_null() {
            address.cast::<usize>().write_volatile(size);
        }
        Block { address, size }
    }
}

/// The loop that is timed. Returns false when a request fails.
#[inline(never)]
fn churn_piece<A: GlobalAlloc>(heap: &A, pairs: &[Pair], blocks: &mut [Block]) -> bool {
    for pair in pairs {
        let block = &mut blocks[pair.index as usize];
        // SAFETY: every block of the table is live and has its size beside it.
        unsafe { heap.dealloc(block.address, layout(block.size)) };
        *block = new_block(heap, pair.size as usize);
        if block.address.is_null() {
            return false;
        }
    }
    true
}

impl Plan {
    /// Makes pairs until they are done or the limit has passed. Returns how many were made, or
    /// none when a request failed.
    fn churn<A: GlobalAlloc>(
        &self,
        heap: &A,
        pairs: &[Pair],
        blocks: &mut [Block],
        start: Instant,
    ) -> Option<usize> {
        let mut done = 0;
        for piece in pairs.chunks(PIECE) {
            if !churn_piece(heap, piece, blocks) {
                return None;
            }
            done += piece.len();
            if start.elapsed() > self.limit {
                break;
            }
        }
        Some(done)
    }

    /// Fills the heap, churns it to its steady state and times the rest.
    fn measure<A: GlobalAlloc>(&self, heap: &A, blocks: &mut Vec<Block>) -> Sample {
        let start = Instant::now();
        for size in &self.fill {
            let block = new_block(heap, *size as usize);
            if block.address.is_null() || start.elapsed() > FILL * self.limit {
                return Sample::Missing;
            }
            blocks.push(block);
        }
        let (warm, timed) = self.pairs.split_at(self.pairs.len() / 2);
        let start = Instant::now();
        if self.churn(heap, warm, blocks, start).is_none() {
            return Sample::Missing;
        }
        let start = Instant::now();
        let Some(done) = self.churn(heap, timed, blocks, start) else {
            return Sample::Missing;
        };
        let value = start.elapsed().as_nanos() as f64 / done as f64;
        if done == timed.len() { Sample::Full(value) } else { Sample::Cut(value) }
    }

    /// One round with a fresh heap.
    fn round<A: GlobalAlloc>(&self, heap: &A) -> Sample {
        let mut blocks = Vec::with_capacity(self.fill.len());
        let sample = self.measure(heap, &mut blocks);
        let blocks = blocks.into_iter().map(|block| (block.address, layout(block.size)));
        // SAFETY: the blocks of the table are live, with their sizes beside them.
        unsafe { free_all(heap, blocks, self.limit) };
        sample
    }
}

impl Visitor for Plan {
    type Output = Sample;

    fn visit<K: Kind>(&self) -> Sample {
        self.round(&*K::create(self.region))
    }
}

/// Churns at each number of live blocks, with small and with mixed sizes.
///
/// # Errors
///
/// If a CSV file cannot be written.
pub fn run(options: &Options) -> io::Result<()> {
    let mut table = Comparison::new("churn", "ns per free+alloc pair", &options.only, &options.base);
    for (range, name) in [((16, 2048), "16 B-2 KiB"), ((16, 256), "16-256 B")] {
        for live in options.live.iter().copied() {
            let plan = Plan::new(live, range, options.pairs, options.limit);
            let samples = compare(&options.only, options.rounds_or(3), &plan);
            table.push(format!("{live} live of {name}"), samples);
        }
    }
    table.finish(options.out.as_deref())
}
