//! The life of a cache server: several threads ask for keys, of which few are asked for often and most are not; what is
//! missing is made, with a size of its own, and what was not asked for lately makes room.
//!
//! The table that it prints shows what such a life does to a heap: how many holes there are, and how many hops an
//! allocation takes to find its place among them.

mod common;

use std::alloc::Layout;
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::process::ExitCode;
use std::ptr::NonNull;
use std::slice;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use common::{Outcome, Progress};
use lexopt::prelude::*;
use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal, Zipf};
use smalloc::{FreeList, Indexed, Linked, SmallocGlobal, Stats};
use smalloc_terminal::{Bytes, Count, List, Report, parse_size};

/// The program's heap, in which the values live too.
#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

/// Other heaps, for values only: with `--list linked`, and with `--regions`.
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::new();
static TWO: SmallocGlobal<Indexed, 2> = SmallocGlobal::new();
static FOUR: SmallocGlobal<Indexed, 4> = SmallocGlobal::new();
static EIGHT: SmallocGlobal<Indexed, 8> = SmallocGlobal::new();
static SIXTEEN: SmallocGlobal<Indexed, 16> = SmallocGlobal::new();

/// The parts of the cache that are locked on their own.
const SHARDS: usize = 16;
/// The rows of the table.
const ROUNDS: usize = 16;
/// Far more threads than there are shards only wait.
const MOST_THREADS: usize = 256;
/// The largest value, in bytes.
const LARGEST: f64 = 262_144.0;
/// Bytes of the tables for a key, at most: a slot in a table that is less than half full, and a place in the queue.
const BYTES_PER_KEY: usize = 128;

const HELP: &str = "\
Run a cache with several threads, and watch the holes and the hops of its heap.

usage: cache [OPTIONS]

  --operations N   how many requests to serve [default: 4000000]
  --threads N      how many threads serve them [default: 4]
  --keys N         how many keys there are [default: 500000]
  --capacity SIZE  how much the values may take before the cache throws some out
                   [default: 64M]
  --list LIST      the free list of the values' heap: linked or indexed; linked
                   takes thousands of hops, so ask for fewer operations
                   [default: indexed]
  --regions N      how many regions the values' heap has, each with a lock of its
                   own: 1, 2, 4, 8 or 16 [default: 1]
  --region SIZE    the size of the heap, such as 512M or 2G
  --seed N         what the random keys and sizes begin with [default: 1]
  -h, --help       print this

Keys are drawn from a Zipf distribution, sizes from a log-normal one around 256
bytes. In a hundred requests, five replace a value and three remove one. With
one thread, the same options give the same heap.
";

struct Options {
    operations: usize,
    threads: usize,
    keys: usize,
    capacity: usize,
    list: List,
    regions: usize,
    region: Option<usize>,
    seed: u64,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        operations: 4_000_000,
        threads: 4,
        keys: 500_000,
        capacity: 64 << 20,
        list: List::Indexed,
        regions: 1,
        region: None,
        seed: 1,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => common::help(HELP),
            Long("operations") => options.operations = parser.value()?.parse_with(common::parse_count)?,
            Long("threads") => options.threads = parser.value()?.parse_with(parse_threads)?,
            Long("keys") => options.keys = parser.value()?.parse_with(common::parse_count)?,
            Long("capacity") => options.capacity = parser.value()?.parse_with(parse_size)?,
            Long("list") => options.list = parser.value()?.parse()?,
            Long("regions") => options.regions = parser.value()?.parse_with(common::parse_count)?,
            Long("region") => options.region = Some(parser.value()?.parse_with(parse_size)?),
            Long("seed") => options.seed = parser.value()?.parse_with(common::parse_seed)?,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(options)
}

fn parse_threads(text: &str) -> Result<usize, String> {
    match common::parse_count(text)? {
        threads @ 1..=MOST_THREADS => Ok(threads),
        _ => Err(format!("there can be {MOST_THREADS} threads at most")),
    }
}

fn main() -> ExitCode {
    common::main(|| {
        let options = options()?;
        common::use_region(options.region, HEAP.stats().region_size)?;
        ensure_room(&options)?;
        match (options.list, options.regions) {
            (List::Indexed, 1) => live(&HEAP, &options),
            (List::Indexed, 2) => live(&TWO, &options),
            (List::Indexed, 4) => live(&FOUR, &options),
            (List::Indexed, 8) => live(&EIGHT, &options),
            (List::Indexed, 16) => live(&SIXTEEN, &options),
            (List::Linked, 1) => live(&LINKED, &options),
            (List::Linked, _) => Err("the linked list is here with one region only".into()),
            _ => Err("there can be 1, 2, 4, 8 or 16 regions".into()),
        }
    })
}

/// Makes sure that a full cache leaves an eighth of the heap to the rest of the program.
fn ensure_room(options: &Options) -> Outcome {
    let stats = HEAP.stats();
    let free = stats.free_bytes;
    let tables = options.keys.saturating_mul(BYTES_PER_KEY);
    let need = tables.saturating_add(options.capacity);
    if need <= free - free / 8 {
        return Ok(());
    }
    Err(format!(
        "a heap of {} is too small for {} of values and the tables of {} keys; \
         try a larger --region, a smaller --capacity or fewer --keys",
        Bytes(stats.region_size),
        Bytes(options.capacity),
        Count::from(options.keys),
    )
    .into())
}

/// Lives through all rounds and prints a line for each.
fn live<L: FreeList, const R: usize>(heap: &'static SmallocGlobal<L, R>, options: &Options) -> Outcome {
    let cache = Cache::new(heap, options);
    let mut clients: Vec<Client> = (0..options.threads).map(|number| Client::new(number, options)).collect();
    print_head();
    let mut tally = Tally::default();
    let mut before = heap.stats();
    let (rounds, mut served) = (ROUNDS.min(options.operations), 0);
    let mut progress = Progress::new("serving", rounds);
    for round in 1..=rounds {
        let share = options.operations * round / rounds - served;
        served += share;
        let start = Instant::now();
        let now = serve(&cache, &mut clients, share)?;
        let (time, stats) = (start.elapsed(), heap.stats());
        progress.hide();
        print_row(served, &now, &stats, &before, time / share.max(1) as u32);
        progress.step(1);
        tally.add(&now);
        before = stats;
    }
    drop(progress);
    heap.check()?;
    report(&tally, &cache);
    if R > 1 {
        print_regions(heap);
    }
    println!("\n{}", Report(&before));
    Ok(())
}

/// Serves `requests` requests with all clients at once, the first of them on this thread: a single client then has the
/// heap to itself, without the end of a thread in the midst of its calls.
fn serve<L: FreeList, const R: usize>(
    cache: &Cache<L, R>,
    clients: &mut [Client],
    requests: usize,
) -> Outcome<Tally> {
    let threads = clients.len();
    let share = |number: usize| requests * (number + 1) / threads - requests * number / threads;
    let (first, others) = clients.split_first_mut().ok_or("there is no client")?;
    let mut tallies = Vec::with_capacity(threads);
    thread::scope(|scope| {
        let mut handles = Vec::with_capacity(threads);
        for (number, client) in (1..).zip(others) {
            let share = share(number);
            handles.push(scope.spawn(move || client.serve(cache, share)));
        }
        tallies.push(first.serve(cache, share(0)));
        tallies.extend(handles.into_iter().map(|handle| handle.join().expect("a client does not panic")));
    });
    let mut sum = Tally::default();
    tallies.iter().for_each(|tally| sum.add(tally));
    match sum.damaged {
        0 => Ok(sum),
        damaged => Err(format!("{damaged} values were not what had been stored").into()),
    }
}

/// The outcomes of clients' requests.
#[derive(Clone, Copy, Default)]
struct Tally {
    asked: u64,
    hits: u64,
    refused: u64,
    damaged: u64,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.hits += other.hits;
        self.refused += other.refused;
        self.damaged += other.damaged;
    }

    fn hit_percent(&self) -> f64 {
        100.0 * self.hits as f64 / self.asked.max(1) as f64
    }
}

/// A thread's part of the load.
struct Client {
    rng: Xoshiro256PlusPlus,
    keys: Zipf<f64>,
    sizes: LogNormal<f64>,
}

impl Client {
    fn new(number: usize, options: &Options) -> Self {
        let rng = Xoshiro256PlusPlus::seed_from_u64(options.seed.wrapping_add(number as u64));
        let keys = Zipf::new(options.keys as f64, 1.0).expect("there is a key");
        let sizes = LogNormal::new(256f64.ln(), 1.0).expect("the deviation is a positive number");
        Self { rng, keys, sizes }
    }

    fn serve<L: FreeList, const R: usize>(&mut self, cache: &Cache<L, R>, requests: usize) -> Tally {
        let mut tally = Tally::default();
        for _ in 0..requests {
            let key = self.keys.sample(&mut self.rng) as u64;
            match self.rng.random_range(0..100) {
                0..5 => self.store(cache, key, &mut tally),
                5..8 => cache.remove(key),
                _ => self.ask(cache, key, &mut tally),
            }
        }
        tally
    }

    /// Asks for a key's value, and makes it if it is not there.
    fn ask<L: FreeList, const R: usize>(&mut self, cache: &Cache<L, R>, key: u64, tally: &mut Tally) {
        tally.asked += 1;
        match cache.get(key) {
            Some(whole) => {
                tally.hits += 1;
                tally.damaged += u64::from(!whole);
            }
            None => self.store(cache, key, tally),
        }
    }

    /// Makes a value and stores it. The allocation is made outside of the shard's lock.
    fn store<L: FreeList, const R: usize>(&mut self, cache: &Cache<L, R>, key: u64, tally: &mut Tally) {
        let size = self.sizes.sample(&mut self.rng).clamp(1.0, LARGEST) as usize;
        match Value::new(cache.heap, key, size) {
            Some(value) => cache.put(key, value),
            None => tally.refused += 1,
        }
    }
}

/// The values of keys, up to a number of bytes.
struct Cache<L: FreeList + 'static, const R: usize> {
    heap: &'static SmallocGlobal<L, R>,
    shards: Vec<Mutex<Shard<L, R>>>,
}

impl<L: FreeList, const R: usize> Cache<L, R> {
    fn new(heap: &'static SmallocGlobal<L, R>, options: &Options) -> Self {
        let keys = options.keys.div_ceil(SHARDS);
        let shard = || Mutex::new(Shard::new(keys, options.capacity / SHARDS));
        Self { heap, shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Does something with the shard of a key, alone.
    fn with_shard<T>(&self, key: u64, action: impl FnOnce(&mut Shard<L, R>) -> T) -> T {
        let shard = &self.shards[key as usize % SHARDS];
        action(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether the value of a key is what was stored; none if it is not there.
    fn get(&self, key: u64) -> Option<bool> {
        self.with_shard(key, |shard| {
            let slot = shard.slots.get_mut(&key)?;
            slot.touched = true;
            slot.value.as_ref().map(|value| value.is_of(key))
        })
    }

    fn put(&self, key: u64, value: Value<L, R>) {
        self.with_shard(key, |shard| shard.put(key, value));
    }

    fn remove(&self, key: u64) {
        self.with_shard(key, |shard| shard.remove(key));
    }

    /// How many values there are, and how many bytes they asked for.
    fn size(&self) -> (usize, usize) {
        let sizes = self.shards.iter().map(|shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (shard.slots.values().filter(|slot| slot.value.is_some()).count(), shard.bytes)
        });
        sizes.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1))
    }
}

/// A part of the cache. The queue holds each key that has a slot once, in the order in which they are thrown out; a key
/// that was asked for in the meantime goes round once more.
struct Shard<L: FreeList + 'static, const R: usize> {
    /// Its hashes are the same in each run, so that the table grows at the same moment.
    slots: HashMap<u64, Slot<L, R>, BuildHasherDefault<DefaultHasher>>,
    queue: VecDeque<u64>,
    bytes: usize,
    capacity: usize,
}

/// The place of a key. It stays until its turn comes, with or without a value.
struct Slot<L: FreeList + 'static, const R: usize> {
    value: Option<Value<L, R>>,
    touched: bool,
}

impl<L: FreeList, const R: usize> Shard<L, R> {
    fn new(keys: usize, capacity: usize) -> Self {
        let slots = HashMap::with_capacity_and_hasher(keys, BuildHasherDefault::new());
        Self { slots, queue: VecDeque::with_capacity(keys), bytes: 0, capacity }
    }

    fn put(&mut self, key: u64, value: Value<L, R>) {
        self.remove(key);
        while self.bytes + value.size > self.capacity && self.throw_out() {}
        self.bytes += value.size;
        let slot = self.slots.entry(key).or_insert_with(|| {
            self.queue.push_back(key);
            Slot { value: None, touched: false }
        });
        slot.value = Some(value);
    }

    fn remove(&mut self, key: u64) {
        let value = self.slots.get_mut(&key).and_then(|slot| slot.value.take());
        self.bytes -= value.map_or(0, |value| value.size);
    }

    /// Throws out the first key of the queue that was not asked for since its last turn; false if there is none.
    fn throw_out(&mut self) -> bool {
        while let Some(key) = self.queue.pop_front() {
            match self.slots.get_mut(&key) {
                Some(slot) if slot.touched => {
                    slot.touched = false;
                    self.queue.push_back(key);
                }
                _ => {
                    self.remove(key);
                    self.slots.remove(&key);
                    return true;
                }
            }
        }
        false
    }
}

/// A value: bytes in a heap, each of which tells the key.
struct Value<L: FreeList + 'static, const R: usize> {
    heap: &'static SmallocGlobal<L, R>,
    payload: NonNull<u8>,
    size: usize,
}

// SAFETY: a value owns its bytes, and its heap takes them back from any thread.
unsafe impl<L: FreeList, const R: usize> Send for Value<L, R> {}

impl<L: FreeList, const R: usize> Value<L, R> {
    /// Allocates a value; none if the heap has no room for it.
    fn new(heap: &'static SmallocGlobal<L, R>, key: u64, size: usize) -> Option<Self> {
        let (payload, _) = heap.smalloc(Layout::array::<u8>(size).ok()?);
        let payload = payload?;
        // SAFETY: the payload has `size` bytes, and no one else knows of it.
        unsafe { payload.write_bytes(key as u8, size) };
        Some(Self { heap, payload, size })
    }

    /// Whether the value is the one that was stored for this key, as far as its ends show.
    fn is_of(&self, key: u64) -> bool {
        // SAFETY: the payload has `size` bytes, which `new` wrote.
        let bytes = unsafe { slice::from_raw_parts(self.payload.as_ptr(), self.size) };
        bytes.first() == Some(&(key as u8)) && bytes.last() == Some(&(key as u8))
    }
}

impl<L: FreeList, const R: usize> Drop for Value<L, R> {
    fn drop(&mut self) {
        // SAFETY: the payload is from this heap, and its only owner goes away.
        unsafe { self.heap.sfree(self.payload) };
    }
}

fn print_head() {
    println!(
        "{:>12}{:>8}{:>11}{:>11}{:>9}{:>11}{:>10}{:>11}{:>6}{:>8}{:>9}{:>11}",
        "requests",
        "hits",
        "in use",
        "top",
        "holes",
        "in holes",
        "largest",
        "hops mean",
        "p99",
        "max",
        "waits",
        "ns each"
    );
}

/// Prints what the heap is like after a round, and what the round's allocations took.
fn print_row(served: usize, tally: &Tally, stats: &Stats, before: &Stats, each: Duration) {
    let round = stats.since(before);
    println!(
        "{:>12}{:>6.1} %{:>11}{:>11}{:>9}{:>11}{:>10}{:>11.2}{:>6}{:>8}{:>9}{:>11}",
        Count::from(served),
        tally.hit_percent(),
        Bytes(stats.used_bytes),
        Bytes(stats.top),
        Count::from(stats.holes()),
        Bytes(stats.hole_bytes),
        Bytes(stats.largest_hole),
        round.hops.mean(),
        round.hops.quantile(0.99),
        round.hops.max(),
        Count(round.contended),
        each.as_nanos(),
    );
}

/// Prints what each region holds, and how it came to it.
fn print_regions<L: FreeList, const R: usize>(heap: &SmallocGlobal<L, R>) {
    println!(
        "\n{:>6}{:>13}{:>11}{:>9}{:>11}{:>11}{:>8}{:>13}",
        "region", "in use", "top", "holes", "in holes", "hops mean", "waits", "handed over"
    );
    for (number, stats) in (0..R).filter_map(|number| Some((number, heap.region_stats(number)?))) {
        println!(
            "{number:>6}{:>13}{:>11}{:>9}{:>11}{:>11.2}{:>8}{:>13}",
            Bytes(stats.used_bytes),
            Bytes(stats.top),
            Count::from(stats.holes()),
            Bytes(stats.hole_bytes),
            stats.hops.mean(),
            Count(stats.contended),
            Count(stats.handed_over),
        );
    }
    println!();
}

fn report<L: FreeList, const R: usize>(tally: &Tally, cache: &Cache<L, R>) {
    let (values, bytes) = cache.size();
    println!(
        "\n{} values of {} are in the cache, with the {} free list; {} found no room.",
        Count::from(values),
        Bytes(bytes),
        L::NAME,
        Count(tally.refused),
    );
    println!(
        "{:.1} % of {} questions were answered from it, each with the right value.",
        tally.hit_percent(),
        Count(tally.asked)
    );
}
