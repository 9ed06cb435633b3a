//! Parses every Rust file under a directory into syntax trees and keeps them all: millions of small objects of many
//! sizes in one first-fit heap. Then drops half of the trees and parses those files again, into the holes.
//!
//! Apart from the two lines that declare the heap, it is an ordinary program.

#[path = "../common/mod.rs"]
mod common;
mod trees;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use common::{MapFile, Outcome, Progress};
use lexopt::prelude::*;
use smalloc::{SmallocGlobal, SnapshotError, Stats};
use smalloc_terminal::{Bytes, Count, Report, parse_size};
use trees::{Census, Sources, walk};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

/// While syn parses, it takes 35 times as many bytes as the source has; for tables of short numbers up to 125 times.
const BYTES_PER_SOURCE_BYTE: usize = 128;

const HELP: &str = "\
Parse Rust files, keep all trees, walk them, drop half, parse again.

usage: ast [OPTIONS] [PATH...]

  PATH             files or directories to read; default: the sources that
                   cargo has on this machine, or else those of this crate
  --limit N        parse no more than N files, or `all` [default: 2500]
  --map FILE       draw the heap in FILE, as SVG, or - on the terminal:
                   before the trees are dropped
  --region SIZE    the size of the heap, such as 512M or 2G
  -h, --help       print this

The heap's numbers at the end count from the program's first allocation.
";

struct Options {
    paths: Vec<PathBuf>,
    limit: usize,
    map: Option<PathBuf>,
    region: Option<usize>,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options { paths: Vec::new(), limit: 2_500, map: None, region: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => common::help(HELP),
            Long("limit") => options.limit = parser.value()?.parse_with(common::parse_limit)?,
            Long("map") => options.map = Some(parser.value()?.into()),
            Long("region") => options.region = Some(parser.value()?.parse_with(parse_size)?),
            Value(path) => options.paths.push(path.into()),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    common::main(|| {
        let options = options()?;
        common::use_region(options.region, HEAP.stats().region_size)?;
        let files =
            common::find_files(&options.paths, options.limit, |path| common::has_extension(path, &["rs"]))?;
        let map = options.map.map(MapFile::create).transpose()?;
        // The trees stay on the thread that made them; only the text of the outcome is returned.
        Ok(trees::on_large_stack(move || parse_twice(&files, map).map_err(|error| error.to_string()))??)
    })
}

/// The whole job: parse, walk, drop half, parse that half again, walk, draw, drop all.
fn parse_twice(files: &[PathBuf], map: Option<MapFile>) -> Outcome {
    let mut trees: Vec<Option<syn::File>> = Vec::new();
    trees.resize_with(files.len(), || None);
    let mut phases = Phases::new();

    let sources = parse_missing(files, &mut trees)?;
    phases.end("parse all", &trees);
    if trees.iter().flatten().next().is_none() {
        return Err(format!("none of {} files is Rust that can be read", files.len()).into());
    }
    let first = walk_all(&trees);
    phases.end("walk", &trees);
    trees.iter_mut().step_by(2).for_each(|tree| *tree = None);
    phases.end("drop every second", &trees);
    parse_missing(files, &mut trees)?;
    phases.end("parse them again", &trees);
    let second = walk_all(&trees);
    phases.end("walk", &trees);
    let full = HEAP.stats();
    let map = map.map(|file| Ok::<_, SnapshotError>((file, HEAP.snapshot()?))).transpose()?;
    trees.clear();
    phases.end("drop all", &trees);

    report(&sources, &first);
    if first != second {
        return Err(format!("the second walk met something else: {second:?}").into());
    }
    HEAP.check()?;
    println!("The second walk counted exactly the same. Before the trees were dropped, the heap was:");
    println!("\n{}", Report(&full));
    map.map_or(Ok(()), |(file, snapshot)| file.draw(&snapshot))
}

/// Parses each file that has no tree, with a progress bar, as long as the heap has room for the next one.
fn parse_missing(files: &[PathBuf], trees: &mut [Option<syn::File>]) -> Outcome<Sources> {
    let mut progress = Progress::new("parsing", files.len());
    trees::parse_missing(files, trees, |file, bytes| {
        progress.reach(file);
        common::ensure_room(&HEAP.stats(), bytes * BYTES_PER_SOURCE_BYTE, file, files.len())
    })
}

/// Walks all trees, with a progress bar.
fn walk_all(trees: &[Option<syn::File>]) -> Census {
    let mut progress = Progress::new("walking", trees.len());
    walk(trees, || progress.step(1))
}

/// Prints a line about the heap after each phase of the job.
struct Phases {
    started: Instant,
    before: Stats,
}

impl Phases {
    fn new() -> Self {
        println!(
            "{:<18}{:>8}{:>8}{:>14}{:>11}{:>11}{:>10}{:>11}{:>7}",
            "phase", "seconds", "trees", "allocations", "in use", "top", "holes", "hops mean", "p99"
        );
        Self { started: Instant::now(), before: HEAP.stats() }
    }

    /// Prints the line of the phase that ends here; the next one begins.
    fn end(&mut self, phase: &str, trees: &[Option<syn::File>]) {
        let seconds = self.started.elapsed().as_secs_f64();
        let stats = HEAP.stats();
        let delta = stats.since(&self.before);
        let trees = trees.iter().flatten().count();
        println!(
            "{phase:<18}{seconds:>8.2}{trees:>8}{:>14}{:>11}{:>11}{:>10}{:>11.2}{:>7}",
            Count(delta.allocs),
            Bytes(stats.used_bytes),
            Bytes(stats.top),
            Count::from(stats.holes()),
            delta.hops.mean(),
            delta.hops.quantile(0.99),
        );
        *self = Self { started: Instant::now(), before: stats };
    }
}

/// Prints what was read and what the trees are made of.
fn report(sources: &Sources, census: &Census) {
    println!(
        "\nParsed {} files of {}; skipped {} that syn cannot parse and {} that could not be read.",
        Count(census.files),
        Bytes(sources.bytes),
        Count(sources.not_rust),
        Count(sources.unreadable),
    );
    println!(
        "The trees hold {} items, {} statements, {} expressions (nested up to {} deep),\n\
         {} patterns, {} types and {} names.",
        Count(census.items),
        Count(census.statements),
        Count(census.expressions),
        census.deepest,
        Count(census.patterns),
        Count(census.types),
        Count(census.idents),
    );
}
