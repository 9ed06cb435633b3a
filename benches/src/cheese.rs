//! The swiss cheese: many small blocks, every second one freed, then requests that are a little too large for every
//! hole. A list of holes is walked to its end each time.

use std::alloc::{GlobalAlloc, Layout};
use std::io;
use std::time::{Duration, Instant};

use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};

use crate::allocators::{Kind, Visitor};
use crate::clean::free_all;
use crate::options::Options;
use crate::report::{Comparison, Sample, compare};

/// The blocks the cheese is made of.
const SMALL: Layout = Layout::new::<[u64; 4]>();

/// The requests no hole can serve.
const LARGER: Layout = Layout::new::<[u64; 6]>();

/// Requests that are timed.
const REQUESTS: usize = 2_000;

/// The clock is read after this many.
const BATCH: usize = 50;

/// The numbers of blocks.
const BLOCKS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// Enough for a million small blocks with any header.
const REGION: usize = 256 << 20;

/// Makes the holes. Returns the blocks that stay, or none if a request failed or the time is up.
fn make_holes<A: GlobalAlloc>(heap: &A, count: usize, limit: Duration) -> Option<Vec<*mut u8>> {
    // SAFETY: the size of the layout is not 0.
    let blocks: Vec<*mut u8> = (0..count).map(|_| unsafe { heap.alloc(SMALL) }).collect();
    if blocks.iter().any(|block| block.is_null()) {
        return None;
    }
    let start = Instant::now();
    // From the highest to the lowest, so that a sorted list inserts each one at its head.
    for index in (0..count).rev().filter(|index| index % 2 == 1) {
        // SAFETY: each of these blocks is freed once.
        unsafe { heap.dealloc(blocks[index], SMALL) };
        if index % 1024 == 1 && start.elapsed() > limit {
            return None;
        }
    }
    Some(blocks.into_iter().step_by(2).collect())
}

/// One case: so many blocks.
struct Cheese {
    count: usize,
    limit: Duration,
}

#[inline(never)]
fn request<A: GlobalAlloc>(heap: &A, blocks: &mut Vec<*mut u8>) {
    for _ in 0..BATCH {
        // SAFETY: the size of the layout is not 0.
        blocks.push(unsafe { heap.alloc(LARGER) });
    }
}

impl Visitor for Cheese {
    type Output = Sample;

    fn visit<K: Kind>(&self) -> Sample {
        let heap = K::create(REGION);
        let Some(kept) = make_holes(&*heap, self.count, self.limit) else {
            return Sample::Missing;
        };
        let mut blocks = Vec::with_capacity(REQUESTS);
        let start = Instant::now();
        while blocks.len() < REQUESTS && start.elapsed() < self.limit {
            request(&*heap, &mut blocks);
        }
        let value = start.elapsed().as_nanos() as f64 / blocks.len() as f64;
        let failed = blocks.iter().any(|block| block.is_null());
        let larger = blocks.iter().map(|block| (*block, LARGER));
        let small = kept.iter().rev().map(|block| (*block, SMALL));
        // SAFETY: these are the blocks that are live, with their layouts.
        unsafe { free_all(&*heap, larger.chain(small), self.limit) };
        match (failed, blocks.len() < REQUESTS) {
            (true, _) => Sample::Missing,
            (false, true) => Sample::Cut(value),
            (false, false) => Sample::Full(value),
        }
    }
}

/// The cost of the searches of one free list, counted by smalloc itself.
struct Steps {
    mean_hops: f64,
    mean_probes: f64,
    most: usize,
}

fn steps<L: FreeList>(count: usize) -> Option<Steps> {
    const COUNTED: usize = 100;
    let heap = Box::new(SmallocGlobal::<L>::with_region_size(REGION));
    make_holes(&*heap, count, Duration::MAX)?;
    let (mut hops, mut probes, mut most) = (0, 0, 0);
    for _ in 0..COUNTED {
        let (_, status) = heap.smalloc(LARGER);
        if !status.success {
            return None;
        }
        hops += status.hops;
        probes += status.probes;
        most = most.max(status.hops);
    }
    let mean = |sum: usize| sum as f64 / COUNTED as f64;
    Some(Steps { mean_hops: mean(hops), mean_probes: mean(probes), most })
}

fn print_steps<L: FreeList>() {
    for count in BLOCKS {
        match steps::<L>(count) {
            Some(Steps { mean_hops, mean_probes, most }) => {
                println!("{:<10} {count:>10} {mean_hops:>12.1} {mean_probes:>12.1} {most:>12}", L::NAME);
            }
            None => println!("{:<10} {count:>10}: a request failed", L::NAME),
        }
    }
}

/// Steps and times against the number of blocks.
///
/// # Errors
///
/// If a CSV file cannot be written.
pub fn run(options: &Options) -> io::Result<()> {
    println!("\n## cheese: steps of a search (hops = free segments stepped over + probes of the index)");
    println!(
        "{:<10} {:>10} {:>12} {:>12} {:>12}",
        "free list", "blocks", "mean hops", "mean probes", "most hops"
    );
    print_steps::<Indexed>();
    print_steps::<Linked>();
    let mut names = options.only.clone();
    if !options.chosen {
        names.insert(1, "smalloc-linked");
    }
    let mut table = Comparison::new("cheese", "ns per request", &names, &options.base);
    for count in BLOCKS {
        let cheese = Cheese { count, limit: options.limit };
        table.push(format!("{count} blocks"), compare(&names, options.rounds_or(5), &cheese));
    }
    table.finish(options.out.as_deref())
}
