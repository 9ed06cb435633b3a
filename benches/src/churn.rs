//! Steady churn: a fixed number of live blocks, a random one of which is freed and replaced by one of another size,
//! over and over. It shows how the cost of a pair grows with the heap, for random sizes (`churn`) and for the mixes of
//! few sizes and alignments that programs have (`mixes`).

use std::alloc::{GlobalAlloc, Layout};
use std::io;
use std::time::{Duration, Instant};

use crate::allocators::{Kind, Visitor};
use crate::clean::free_all;
use crate::options::Options;
use crate::report::{Comparison, Sample, compare};
use crate::rng::Rng;

/// The clock is read after each piece of this many pairs.
const PIECE: usize = 1 << 14;

/// Blocks are aligned as most Rust types are.
const ALIGN: u32 = 8;

/// The region is this many times the live bytes, with the mean size of the blocks and room for what an allocator adds
/// and loses.
const ROOM: usize = 2;

/// With more live blocks, a mix would take many gigabytes.
const MOST_OF_MIX: usize = 100_000;

/// Faulting in the memory may take this many times the limit.
const FILL: u32 = 10;

/// A live block.
#[derive(Clone, Copy, Debug)]
struct Block {
    address: *mut u8,
    request: Request,
}

/// Size and alignment of a block, in bytes.
#[derive(Clone, Copy, Debug)]
struct Request {
    size: u32,
    align: u32,
}

impl Request {
    fn of(size: usize) -> Self {
        Self { size: size as u32, align: ALIGN }
    }

    fn layout(self) -> Layout {
        // SAFETY: sizes are at most 32 bits long and the alignment is a power of two.
        unsafe { Layout::from_size_align_unchecked(self.size as usize, self.align as usize) }
    }
}

/// One pair: the block `index` is freed and another one takes its place.
#[derive(Clone, Copy, Debug)]
struct Pair {
    index: u32,
    request: Request,
}

/// The calls of one case, the same for every allocator.
struct Plan {
    fill: Vec<Request>,
    pairs: Vec<Pair>,
    region: usize,
    limit: Duration,
}

impl Plan {
    fn new(live: usize, pairs: usize, limit: Duration, draw: impl Fn(&mut Rng) -> Request) -> Self {
        let mut rng = Rng::new(live as u64);
        let fill: Vec<Request> = (0..live).map(|_| draw(&mut rng)).collect();
        let mut pair = || Pair { index: rng.below(live) as u32, request: draw(&mut rng) };
        // Half of the pairs bring the heap to its steady state, the other half are timed.
        let pairs = (0..pairs * 2).map(|_| pair()).collect();
        let bytes: usize =
            fill.iter().map(|request| request.size.next_multiple_of(request.align) as usize).sum();
        let region = (bytes * ROOM + live * 64).next_power_of_two().max(8 << 20);
        Self { fill, pairs, region, limit }
    }
}

/// Allocates and writes a first word, as a constructor does.
#[inline]
fn new_block<A: GlobalAlloc>(heap: &A, request: Request) -> Block {
    // SAFETY: no size of a plan is 0; a block that is not null has at least 16 bytes.
    unsafe {
        let address = heap.alloc(request.layout());
        if !address.is_null() {
            address.cast::<u32>().write_volatile(request.size);
        }
        Block { address, request }
    }
}

/// The loop that is timed. Returns false if a request fails.
#[inline(never)]
fn churn_piece<A: GlobalAlloc>(heap: &A, pairs: &[Pair], blocks: &mut [Block]) -> bool {
    for pair in pairs {
        let block = &mut blocks[pair.index as usize];
        // SAFETY: every block of the table is live and has its request beside it.
        unsafe { heap.dealloc(block.address, block.request.layout()) };
        *block = new_block(heap, pair.request);
        if block.address.is_null() {
            return false;
        }
    }
    true
}

impl Plan {
    /// Makes pairs until they are done or the limit has passed. Returns their number, or none if a request failed.
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
        for &request in &self.fill {
            let block = new_block(heap, request);
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
        let blocks = blocks.into_iter().map(|block| (block.address, block.request.layout()));
        // SAFETY: the blocks of the table are live, with their requests beside them.
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
            let draw = |rng: &mut Rng| Request::of(rng.log_uniform(range.0, range.1));
            let plan = Plan::new(live, options.pairs, options.limit, draw);
            let samples = compare(&options.only, options.rounds_or(3), &plan);
            table.push(format!("{live} live of {name}"), samples);
        }
    }
    table.finish(options.out.as_deref())
}

/// The mixes: the sizes, and how many in a hundred requests have the alignment.
const MIXES: [(&str, &[u32], usize, u32); 8] = [
    ("1520 and 3024 B", &[1520, 3024], 0, ALIGN),
    ("1500 and 1516 B", &[1500, 1516], 0, ALIGN),
    ("4096 and 4112 B", &[4096, 4112], 0, ALIGN),
    ("1500 and 9000 B", &[1500, 9000], 0, ALIGN),
    ("16, 32, 64, 128, 256 B", &[16, 32, 64, 128, 256], 0, ALIGN),
    ("48 and 80 B, half aligned to 64", &[48, 80], 50, 64),
    ("64 to 2000 B, a quarter aligned to 4096", &[64, 200, 600, 2000], 25, 4096),
    ("4096 B aligned to 4096, and 4112 B", &[4096, 4112], 50, 4096),
];

/// Churns with few sizes that almost fit each other's holes, and with aligned requests.
///
/// # Errors
///
/// If a CSV file cannot be written.
pub fn run_mixes(options: &Options) -> io::Result<()> {
    let mut table = Comparison::new("mixes", "ns per free+alloc pair", &options.only, &options.base);
    for (name, sizes, aligned, align) in MIXES {
        for live in options.live.iter().copied().filter(|&live| live <= MOST_OF_MIX) {
            let draw = |rng: &mut Rng| Request {
                size: sizes[rng.below(sizes.len())],
                align: if rng.below(100) < aligned { align } else { ALIGN },
            };
            let plan = Plan::new(live, options.pairs, options.limit, draw);
            let samples = compare(&options.only, options.rounds_or(3), &plan);
            table.push(format!("{live} live of {name}"), samples);
        }
    }
    table.finish(options.out.as_deref())
}
