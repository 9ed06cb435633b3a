//! The life of a cache server: several threads request keys, few of them often and most of them rarely. Missing values
//! are created, each with a size of its own, and values that were not requested lately are evicted.
//!
//! The printed table shows the effect on a heap: the number of holes, and the hops that an allocation takes to find its
//! place among them.

mod cache;
#[path = "../common/mod.rs"]
mod common;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use cache::{Cache, Load, Tally};
use common::{Outcome, Progress};
use lexopt::prelude::*;
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

/// The rows of the table.
const ROUNDS: usize = 16;
/// Far more threads than shards would only wait.
const MOST_THREADS: usize = 256;
/// Bytes of the tables for a key, at most: a slot in a table that is less than half full, and a place in the queue.
const BYTES_PER_KEY: usize = 128;

const HELP: &str = "\
Run a cache with several threads, and watch the holes and the hops of its heap.

usage: cache [OPTIONS]

  --operations N   how many requests to serve [default: 4000000]
  --threads N      how many threads serve them [default: 4]
  --keys N         how many keys there are [default: 500000]
  --capacity SIZE  the size of all values above which the cache evicts some
                   [default: 64M]
  --list LIST      the free list of the values' heap: linked or indexed; linked
                   takes thousands of hops, so ask for fewer operations
                   [default: indexed]
  --regions N      how many regions the values' heap has, each with a lock of its
                   own: 1, 2, 4, 8 or 16 [default: 1]
  --region SIZE    the size of the heap, such as 512M or 2G
  --seed N         the seed of the random keys and sizes [default: 1]
  -h, --help       print this

Keys are drawn from a Zipf distribution, sizes from a log-normal one around 256
bytes. In a hundred requests, five replace a value and three remove one. With
one thread, the same options give the same heap.
";

struct Options {
    operations: usize,
    load: Load,
    list: List,
    regions: usize,
    region: Option<usize>,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options {
        operations: 4_000_000,
        load: Load::default(),
        list: List::Indexed,
        regions: 1,
        region: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => common::help(HELP),
            Long("operations") => options.operations = parser.value()?.parse_with(common::parse_count)?,
            Long("threads") => options.load.threads = parser.value()?.parse_with(parse_threads)?,
            Long("keys") => options.load.keys = parser.value()?.parse_with(common::parse_count)?,
            Long("capacity") => options.load.capacity = parser.value()?.parse_with(parse_size)?,
            Long("list") => options.list = parser.value()?.parse()?,
            Long("regions") => options.regions = parser.value()?.parse_with(common::parse_count)?,
            Long("region") => options.region = Some(parser.value()?.parse_with(parse_size)?),
            Long("seed") => options.load.seed = parser.value()?.parse_with(common::parse_seed)?,
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
    let tables = options.load.keys.saturating_mul(BYTES_PER_KEY);
    let need = tables.saturating_add(options.load.capacity);
    if need <= free - free / 8 {
        return Ok(());
    }
    Err(format!(
        "a heap of {} is too small for {} of values and the tables of {} keys; \
         try a larger --region, a smaller --capacity or fewer --keys",
        Bytes(stats.region_size),
        Bytes(options.load.capacity),
        Count::from(options.load.keys),
    )
    .into())
}

/// Runs all rounds and prints a line for each.
fn live<L: FreeList, const R: usize>(heap: &'static SmallocGlobal<L, R>, options: &Options) -> Outcome {
    let cache = Cache::new(heap, &options.load);
    let mut clients = cache::clients(&options.load);
    print_head();
    let mut tally = Tally::default();
    let mut before = heap.stats();
    let (rounds, mut served) = (ROUNDS.min(options.operations), 0);
    let mut progress = Progress::new("serving", rounds);
    for round in 1..=rounds {
        let share = options.operations * round / rounds - served;
        served += share;
        let start = Instant::now();
        let now = cache::serve(&cache, &mut clients, share)?;
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

/// Prints the state of the heap after a round, and the cost of the round's allocations.
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

/// Prints the contents and the counters of each region.
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

fn report<L: FreeList, const R: usize>(tally: &Tally, cache: &Cache<SmallocGlobal<L, R>>) {
    let (values, bytes) = cache.size();
    println!(
        "\n{} values of {} are in the cache, with the {} free list; {} found no room.",
        Count::from(values),
        Bytes(bytes),
        L::NAME,
        Count(tally.refused),
    );
    println!(
        "{:.1} % of {} requests were answered from it, each with the right value.",
        tally.hit_percent(),
        Count(tally.asked)
    );
}
