//! Two workloads of talc's own suite, from their description: random actions, here with a fixed number of them and a
//! seed, and heap efficiency, the share of a region in use at the first failure.

use std::alloc::{GlobalAlloc, Layout};
use std::io;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::allocators::{Kind, Visitor, WITHOUT_REGION, bytes_beside};
use crate::clean::free_all;
use crate::options::Options;
use crate::report::{Comparison, Sample, compare};
use crate::rng::Rng;

/// The size of the region in both workloads, in bytes.
const REGION: usize = 128 << 20;

/// The largest sizes of the random actions, in bytes.
const MAX_SIZES: [usize; 5] = [200, 1_000, 3_000, 10_000, 30_000];

/// Random actions of one round, over all threads.
const ACTIONS: usize = 400_000;

/// The clock is read after this many actions.
const BATCH: usize = 1_000;

/// Below this many live blocks, an action that would free one allocates.
const FEW: usize = 300;

/// A live block.
#[derive(Clone, Copy)]
struct Block {
    address: *mut u8,
    layout: Layout,
}

/// Small sizes are more frequent than large ones.
fn random_layout(rng: &mut Rng, max: usize) -> Layout {
    let cap = rng.range(16, max);
    let size = rng.range(4, cap);
    // Three of four are aligned to 8 bytes, and each further factor of two is a quarter as rare.
    let align = 8 << ((rng.next_u64() as u16 | 1 << 15).trailing_zeros() / 2);
    // SAFETY: the alignment is a power of two of at most 1024, and the size is small.
    unsafe { Layout::from_size_align_unchecked(size, align) }
}

/// The blocks of one thread, and its actions.
struct Actor<'a, A> {
    heap: &'a A,
    rng: Rng,
    live: Vec<Block>,
}

impl<A: GlobalAlloc> Actor<'_, A> {
    fn alloc(&mut self, max: usize) -> bool {
        let layout = random_layout(&mut self.rng, max);
        // SAFETY: the size is at least 4, and so is the block that is written to.
        let address = unsafe { self.heap.alloc(layout) };
        if address.is_null() {
            return false;
        }
        // SAFETY: as above.
        unsafe { address.write_volatile(1) };
        self.live.push(Block { address, layout });
        true
    }

    fn free(&mut self) {
        let index = self.rng.below(self.live.len());
        let block = self.live.swap_remove(index);
        // SAFETY: the block was live until it was taken out of the table.
        unsafe { self.heap.dealloc(block.address, block.layout) };
    }

    fn realloc(&mut self, max: usize) -> bool {
        let index = self.rng.below(self.live.len());
        let size = self.rng.range(1, max);
        let block = &mut self.live[index];
        // SAFETY: the block is live and its layout is beside it; the size is neither 0 nor large.
        unsafe {
            let address = self.heap.realloc(block.address, block.layout, size);
            if address.is_null() {
                return false;
            }
            block.address = address;
            block.layout = Layout::from_size_align_unchecked(size, block.layout.align());
        }
        true
    }

    /// Three of seven actions allocate, three free, one resizes.
    #[inline(never)]
    fn random_actions(&mut self, count: usize, max: usize) -> bool {
        let mut whole = true;
        for _ in 0..count {
            let action = self.rng.below(7);
            if action < 3 || self.live.len() < FEW {
                whole &= self.alloc(max);
            } else if action < 6 {
                self.free();
            } else {
                whole &= self.realloc(3 * max);
            }
        }
        whole
    }

    fn free_all(&mut self, limit: Duration) {
        let blocks = self.live.drain(..).map(|block| (block.address, block.layout));
        // SAFETY: the blocks of the table are live, with their layouts beside them.
        unsafe { free_all(self.heap, blocks, limit) };
    }
}

/// One case of the random actions.
struct Actions {
    max: usize,
    threads: usize,
    limit: Duration,
}

/// The result of one thread.
struct Part {
    done: usize,
    whole: bool,
    time: Duration,
}

impl Actions {
    fn part<A: GlobalAlloc>(&self, heap: &A, thread: usize, start: &Barrier) -> Part {
        let rng = Rng::new((self.max * 64 + thread) as u64);
        let mut actor = Actor { heap, rng, live: Vec::with_capacity(1 << 14) };
        let mut part = Part { done: 0, whole: true, time: Duration::ZERO };
        let share = ACTIONS / self.threads;
        start.wait();
        let clock = Instant::now();
        while part.done < share && clock.elapsed() < self.limit {
            part.whole &= actor.random_actions(BATCH, self.max);
            part.done += BATCH;
        }
        part.time = clock.elapsed();
        actor.free_all(self.limit);
        part
    }
}

impl Visitor for Actions {
    type Output = Sample;

    fn visit<K: Kind>(&self) -> Sample {
        let heap = K::create(REGION);
        let start = Barrier::new(self.threads);
        let parts: Vec<Part> = thread::scope(|scope| {
            let (heap, start) = (&*heap, &start);
            let spawn = |thread| scope.spawn(move || self.part(heap, thread, start));
            let threads: Vec<_> = (0..self.threads).map(spawn).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let done: usize = parts.iter().map(|part| part.done).sum();
        let time = parts.iter().map(|part| part.time).max().unwrap_or_default();
        let value = time.as_nanos() as f64 / done as f64;
        if !parts.iter().all(|part| part.whole) {
            Sample::Missing
        } else if done < ACTIONS {
            Sample::Cut(value)
        } else {
            Sample::Full(value)
        }
    }
}

/// Random actions with each largest size, on one thread and on four.
///
/// # Errors
///
/// If a CSV file cannot be written.
pub fn run_actions(options: &Options) -> io::Result<()> {
    let mut table = Comparison::new("random-actions", "ns per action", &options.only, &options.base);
    for threads in [1, 4] {
        for max in MAX_SIZES {
            let actions = Actions { max, threads, limit: options.limit };
            let samples = compare(&options.only, options.rounds_or(5), &actions);
            table.push(
                format!("up to {max} B, {threads} thread{}", if threads > 1 { "s" } else { "" }),
                samples,
            );
        }
    }
    table.finish(options.out.as_deref())
}

/// Rounds of filling a region.
struct Efficiency {
    rounds: usize,
    limit: Duration,
    /// Whether bookkeeping beside the region counts as part of it.
    with_beside: bool,
}

impl Efficiency {
    /// Fills the heap to the first failure and returns the bytes that are live then, or none if the time is up. Half of
    /// the actions allocate, one in ten frees, four in ten resize.
    fn fill<A: GlobalAlloc>(&self, actor: &mut Actor<'_, A>, start: Instant) -> Option<usize> {
        for count in 0usize.. {
            let action = actor.rng.below(10);
            let served = match action {
                _ if actor.live.is_empty() => actor.alloc(10_000),
                0..=4 => actor.alloc(10_000),
                5 => {
                    actor.free();
                    true
                }
                _ => actor.realloc(100_000),
            };
            if !served {
                break;
            }
            if count.is_multiple_of(BATCH) && start.elapsed() > self.limit {
                return None;
            }
        }
        Some(actor.live.iter().map(|block| block.layout.size()).sum())
    }
}

impl Visitor for Efficiency {
    type Output = Sample;

    fn visit<K: Kind>(&self) -> Sample {
        let heap = K::create(REGION);
        let (mut live, mut rounds) = (0, 0);
        let (start, mut beside) = (Instant::now(), 0);
        let limit = self.limit * self.rounds as u32;
        for round in 0..self.rounds {
            let mut actor = Actor { heap: &*heap, rng: Rng::new(round as u64), live: Vec::new() };
            let filled = self.fill(&mut actor, Instant::now());
            beside = beside.max(bytes_beside(&*heap));
            actor.free_all(self.limit);
            let Some(bytes) = filled else { break };
            live += bytes;
            rounds += 1;
            if start.elapsed() > limit {
                break;
            }
        }
        let beside = if self.with_beside { beside } else { 0 };
        let value = 100.0 * live as f64 / (rounds * (REGION + beside)) as f64;
        match rounds {
            0 => Sample::Missing,
            _ if rounds < self.rounds => Sample::Cut(value),
            _ => Sample::Full(value),
        }
    }
}

/// The share of a region of 128 MiB that is live when the first request fails.
///
/// # Errors
///
/// If a CSV file cannot be written.
pub fn run_efficiency(options: &Options) -> io::Result<()> {
    let mut names = options.only.clone();
    names.retain(|name| !WITHOUT_REGION.contains(name));
    let unit = "live bytes in % of the region at the first failure, more is better";
    let mut table = Comparison::new("efficiency", unit, &names, &options.base);
    for (with_beside, name) in [(false, "of the region"), (true, "with what lies beside")] {
        // The same seeds give the same result, so the rounds are different fills and not repetitions.
        let fills = Efficiency { rounds: options.rounds_or(10), limit: options.limit, with_beside };
        table.push(name, compare(&names, 1, &fills));
    }
    table.finish(options.out.as_deref())
}
