//! Several threads on one heap: larson's pattern, in which sets of live blocks move from thread to thread, and
//! producers with consumers, where every block is freed by another thread than the one that allocated it.

use std::alloc::{GlobalAlloc, Layout};
use std::collections::VecDeque;
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::allocators::{self, Kind, Visitor};
use crate::child;
use crate::clean::free_all;
use crate::footprint::Resident;
use crate::options::Options;
use crate::report::{Comparison, Sample, compare};
use crate::rng::Rng;

/// The size of the region in bytes.
const REGION: usize = 256 << 20;

/// Blocks are aligned as most Rust types are.
const ALIGN: usize = 8;

/// The parameters of larson's pattern.
#[derive(Clone, Copy)]
pub struct Pattern {
    /// The sizes of the blocks, in bytes, evenly spread.
    sizes: (usize, usize),
    /// Live blocks of a set.
    set: usize,
    /// The number of sets of blocks, but at least one more than there are threads. If there are many, the heap does not
    /// grow with the number of threads, so the comparison with one thread shows the contention and not the caches.
    sets: usize,
    /// Pairs of free and alloc that a thread makes on a set before it hands it on.
    batch: usize,
    /// Pairs of one round, over all threads.
    pairs: usize,
    /// Whether every byte of a block is written, or only its first word.
    whole: bool,
}

/// Small sets that are handed on often.
const EXCHANGE: Pattern =
    Pattern { sizes: (16, 1000), set: 200, sets: 128, batch: 200, pairs: 400_000, whole: false };

/// Sets as large as larson's, which are handed on as rarely.
pub const LARSON: Pattern =
    Pattern { sizes: (10, 500), set: 1000, sets: 0, batch: 5000, pairs: 1_600_000, whole: false };

/// The sizes of the blocks that one thread allocates and another frees.
const SIZES: (usize, usize) = (16, 1000);

/// A live block, as a number so that threads can pass it on.
#[derive(Clone, Copy)]
struct Block {
    address: usize,
    size: usize,
}

impl Block {
    fn parts(self) -> (*mut u8, Layout) {
        (ptr::with_exposed_provenance_mut(self.address), layout(self.size))
    }
}

fn layout(size: usize) -> Layout {
    // SAFETY: sizes are small and the alignment is a power of two.
    unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
}

/// Allocates a block of a random size and writes its first word, or all of it. The address is 0 on failure.
#[inline]
fn new_block<A: GlobalAlloc>(heap: &A, rng: &mut Rng, sizes: (usize, usize), whole: bool) -> Block {
    let size = rng.range(sizes.0, sizes.1);
    // SAFETY: the size is at least that of a word, as are those of all blocks that are not null.
    unsafe {
        let address = heap.alloc(layout(size));
        if !address.is_null() {
            address.cast::<usize>().write_volatile(size);
            if whole {
                address.write_bytes(1, size);
            }
        }
        Block { address: address.expose_provenance(), size }
    }
}

#[inline]
fn free_block<A: GlobalAlloc>(heap: &A, block: Block) {
    if block.address != 0 {
        let (address, layout) = block.parts();
        // SAFETY: the block is live and belongs to this thread.
        unsafe { heap.dealloc(address, layout) };
    }
}

/// The state that the threads of larson's pattern share.
struct Larson<'a, A> {
    heap: &'a A,
    pattern: Pattern,
    /// Sets that no thread works on: taken from the front, put to the back.
    sets: Mutex<VecDeque<Vec<Block>>>,
    /// Batches that no thread has begun.
    left: AtomicUsize,
    /// Set when the time is up.
    stop: AtomicBool,
    start: Barrier,
}

/// The result of one thread.
struct Part {
    pairs: usize,
    whole: bool,
    time: Duration,
}

impl<A: GlobalAlloc + Sync> Larson<'_, A> {
    /// Replaces random blocks of a set.
    #[inline(never)]
    fn batch(&self, set: &mut [Block], rng: &mut Rng, part: &mut Part) {
        for _ in 0..self.pattern.batch {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let index = rng.below(set.len());
            free_block(self.heap, set[index]);
            set[index] = new_block(self.heap, rng, self.pattern.sizes, self.pattern.whole);
            part.whole &= set[index].address != 0;
            part.pairs += 1;
        }
    }

    fn take(&self) -> Vec<Block> {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets.pop_front().expect("there are more sets than threads")
    }

    fn put(&self, set: Vec<Block>) {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner).push_back(set);
    }

    /// One thread: batches on one set after the other, until all are made or the time is up.
    fn work(&self, mut rng: Rng) -> Part {
        let mut part = Part { pairs: 0, whole: true, time: Duration::ZERO };
        self.start.wait();
        let clock = Instant::now();
        let one_less = |left: usize| left.checked_sub(1);
        while self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            let mut set = self.take();
            self.batch(&mut set, &mut rng, &mut part);
            self.put(set);
        }
        part.time = clock.elapsed();
        part
    }

    /// Runs the threads and stops them when the time is up. A flag does that, because a thread that waits for a lock
    /// does not read a clock.
    fn run(&self, threads: usize, limit: Duration) -> Vec<Part> {
        thread::scope(|scope| {
            let spawn = |thread| scope.spawn(move || self.work(Rng::new(thread as u64)));
            let threads: Vec<_> = (0..threads).map(spawn).collect();
            let clock = Instant::now();
            while !threads.iter().all(|thread| thread.is_finished()) {
                thread::sleep(Duration::from_millis(5));
                if clock.elapsed() > limit {
                    self.stop.store(true, Ordering::Relaxed);
                }
            }
            threads.into_iter().filter_map(|thread| thread.join().ok()).collect()
        })
    }
}

/// One case of larson's pattern.
struct Exchange {
    pattern: Pattern,
    threads: usize,
    limit: Duration,
}

impl Visitor for Exchange {
    /// Million pairs per second.
    type Output = Sample;

    fn visit<K: Kind>(&self) -> Sample {
        let heap = K::create(REGION);
        let (parts, blocks) = self.run(&*heap);
        // SAFETY: the blocks of the sets are live, with their sizes beside them.
        unsafe { free_all(&*heap, blocks.into_iter().map(Block::parts), self.limit) };
        let pairs: usize = parts.iter().map(|part| part.pairs).sum();
        let time = parts.iter().map(|part| part.time).max().unwrap_or_default();
        let value = pairs as f64 / time.as_micros() as f64;
        match (parts.iter().all(|part| part.whole), pairs < self.pattern.pairs) {
            (false, _) => Sample::Missing,
            (true, false) => Sample::Full(value),
            (true, true) => Sample::Cut(value),
        }
    }
}

impl Exchange {
    /// The results of all threads, and the blocks that are live at the end.
    fn run<A: GlobalAlloc + Sync>(&self, heap: &A) -> (Vec<Part>, Vec<Block>) {
        let pattern = self.pattern;
        let mut rng = Rng::new(0);
        let mut block = || new_block(heap, &mut rng, pattern.sizes, pattern.whole);
        let mut set = || (0..pattern.set).map(|_| block()).collect();
        let larson = Larson {
            heap,
            pattern,
            sets: Mutex::new((0..pattern.sets.max(self.threads + 1)).map(|_| set()).collect()),
            left: AtomicUsize::new(pattern.pairs / pattern.batch),
            stop: AtomicBool::new(false),
            start: Barrier::new(self.threads),
        };
        let parts = larson.run(self.threads, self.limit);
        let sets = larson.sets.into_inner().unwrap_or_else(PoisonError::into_inner);
        (parts, sets.into_iter().flatten().collect())
    }
}

/// Memory that is resident after larson's pattern.
struct Crowd(Exchange);

impl Visitor for Crowd {
    /// Resident growth over the bytes that are live.
    type Output = io::Result<f64>;

    fn visit<K: Kind>(&self) -> io::Result<f64> {
        let exchange = &self.0;
        // Memory of the threads and the sets themselves is resident before: the system's allocator keeps it.
        drop(Exchange { pattern: Pattern { pairs: 0, ..LARSON }, ..*exchange }.run(&std::alloc::System));
        let resident = Resident::open()?;
        // SAFETY: this only changes how the process's memory is backed: the readings count small pages.
        unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
        let before = resident.read()?;
        let heap = K::create(REGION);
        let (parts, blocks) = exchange.run(&*heap);
        if parts.iter().any(|part| !part.whole) {
            return Err(io::Error::other("a request failed"));
        }
        let live: usize = blocks.iter().map(|block| block.size).sum();
        Ok(resident.read()?.saturating_sub(before) as f64 / live as f64)
    }
}

/// Larson's pattern in a process of its own: `allocator`, the threads, and the longest time in milliseconds.
///
/// # Errors
///
/// If the arguments are not these or a request fails.
pub fn larson_child(arguments: &[String]) -> io::Result<()> {
    let [allocator, threads, limit] = arguments else {
        return Err(io::Error::other("the child takes an allocator, threads and a time"));
    };
    let threads = threads.parse().map_err(io::Error::other)?;
    let limit = Duration::from_millis(limit.parse().map_err(io::Error::other)?);
    let pattern = Pattern { whole: true, ..LARSON };
    println!("{}", allocators::visit(allocator, &Crowd(Exchange { pattern, threads, limit }))?);
    Ok(())
}

/// Memory that is resident after larson's pattern, each sample from a process of its own.
///
/// # Errors
///
/// If a process cannot be started or a CSV file cannot be written.
fn run_larson_footprint(options: &Options) -> io::Result<()> {
    let unit = "resident growth over live bytes";
    let mut table = Comparison::new("larson-footprint", unit, &options.only, &options.base).with_decimals(3);
    // Every byte is written, and no round may be cut short.
    let limit = (10 * options.limit).as_millis() as usize;
    for threads in options.threads.iter().copied() {
        let measure = |allocator: &&str| {
            (0..options.rounds_or(5))
                .map(|_| child::number("larson-child", allocator, &[threads, limit]))
                .collect()
        };
        let samples: io::Result<Vec<Vec<Sample>>> = options.only.iter().map(measure).collect();
        table.push(format!("{threads} threads"), samples?);
    }
    table.finish(options.out.as_deref())
}

/// Small sets with each number of threads, absolute and over one thread.
///
/// # Errors
///
/// If a CSV file cannot be written.
pub fn run_threads(options: &Options) -> io::Result<()> {
    run_pattern(["threads", "threads-scaling"], EXCHANGE, options)
}

/// Larson's sets with each number of threads, and the memory that is resident after them.
///
/// # Errors
///
/// If a CSV file cannot be written.
pub fn run_larson(options: &Options) -> io::Result<()> {
    run_pattern(["larson", "larson-scaling"], LARSON, options)?;
    run_larson_footprint(options)
}

fn run_pattern([title, scaling]: [&'static str; 2], pattern: Pattern, options: &Options) -> io::Result<()> {
    let unit = "million free+alloc pairs per second, more is better";
    let mut table = Comparison::new(title, unit, &options.only, &options.base).with_decimals(2);
    for threads in options.threads.iter().copied() {
        let exchange = Exchange { pattern, threads, limit: options.limit };
        table.push(format!("{threads} threads"), compare(&options.only, options.rounds_or(5), &exchange));
    }
    table.finish(options.out.as_deref())?;
    let unit = "pairs per second over those of the first line, more is better";
    table.over_first(scaling, unit).finish(options.out.as_deref())
}

/// Blocks that are sent together: a channel costs more than an allocation.
const LOAD: usize = 256;

/// Loads on their way between one producer and its consumer.
const LOADS: usize = 16;

/// Blocks of one round, over all producers.
const BLOCKS: usize = 400_000;

/// The two ends of a lane. Empty loads travel back, so that no load is allocated while timing.
struct Lane {
    full_in: SyncSender<Vec<Block>>,
    full_out: Receiver<Vec<Block>>,
    empty_in: SyncSender<Vec<Block>>,
    empty_out: Receiver<Vec<Block>>,
}

impl Lane {
    fn new() -> Self {
        let (full_in, full_out) = sync_channel(LOADS);
        let (empty_in, empty_out) = sync_channel(LOADS);
        for _ in 0..LOADS {
            empty_in.send(Vec::with_capacity(LOAD)).expect("both ends are here");
        }
        Self { full_in, full_out, empty_in, empty_out }
    }
}

/// Allocates `loads` loads and sends them. Returns false if a request fails.
fn produce<A: GlobalAlloc>(
    heap: &A,
    loads: usize,
    mut rng: Rng,
    full: &SyncSender<Vec<Block>>,
    empty: &Receiver<Vec<Block>>,
) -> bool {
    for _ in 0..loads {
        let Ok(mut load) = empty.recv() else { return false };
        load.extend((0..LOAD).map(|_| new_block(heap, &mut rng, SIZES, false)));
        let whole = load.iter().all(|block| block.address != 0);
        if full.send(load).is_err() || !whole {
            return false;
        }
    }
    true
}

/// Frees incoming blocks until the producer has ended.
fn consume<A: GlobalAlloc>(heap: &A, full: &Receiver<Vec<Block>>, empty: &SyncSender<Vec<Block>>) {
    while let Ok(mut load) = full.recv() {
        load.drain(..).for_each(|block| free_block(heap, block));
        // The producer ends first, and then needs no empty load.
        let _ = empty.send(load);
    }
}

/// So many producers, each with a consumer of its own.
struct Remote {
    lanes: usize,
}

impl Visitor for Remote {
    /// Million blocks per second.
    type Output = Sample;

    fn visit<K: Kind>(&self) -> Sample {
        let heap = K::create(REGION);
        let loads = BLOCKS / LOAD / self.lanes;
        let start = Instant::now();
        let whole = thread::scope(|scope| {
            let heap = &*heap;
            let mut producers = Vec::new();
            for lane in 0..self.lanes {
                let Lane { full_in, full_out, empty_in, empty_out } = Lane::new();
                let rng = Rng::new(lane as u64);
                producers.push(scope.spawn(move || produce(heap, loads, rng, &full_in, &empty_out)));
                scope.spawn(move || consume(heap, &full_out, &empty_in));
            }
            producers.into_iter().all(|producer| producer.join().unwrap_or(false))
        });
        let blocks = (loads * LOAD * self.lanes) as f64;
        if whole { Sample::Full(blocks / start.elapsed().as_micros() as f64) } else { Sample::Missing }
    }
}

/// Producers and consumers.
///
/// # Errors
///
/// If a CSV file cannot be written.
pub fn run_remote(options: &Options) -> io::Result<()> {
    let unit = "million blocks per second, more is better";
    let mut table = Comparison::new("remote", unit, &options.only, &options.base).with_decimals(2);
    for lanes in [1, 4, 16] {
        let samples = compare(&options.only, options.rounds_or(5), &Remote { lanes });
        table.push(format!("{lanes} producer{}", if lanes > 1 { "s" } else { "" }), samples);
    }
    table.finish(options.out.as_deref())
}
