//! Parses every Rust file under a directory into syntax trees and keeps them all: millions of small objects of many
//! sizes in one first-fit heap. Then drops half of the trees and parses those files again, into the holes.
//!
//! It is a program like any other but for the two lines that declare the heap.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use common::{MapFile, Outcome, Progress};
use lexopt::prelude::*;
use smalloc::{SmallocGlobal, SnapshotError, Stats};
use smalloc_terminal::{Bytes, Count, Report, parse_size};
use syn::visit::{self, Visit};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

/// syn descends once for each level of nesting, and generated sources nest deeply. The stack is mapped, not touched.
const STACK_SIZE: usize = 64 << 20;
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
        // The trees stay on the thread that made them; only the outcome's text leaves it.
        let thread = thread::Builder::new().stack_size(STACK_SIZE);
        let outcome =
            thread.spawn(move || parse_twice(&files, map).map_err(|error| error.to_string()))?.join();
        Ok(outcome.map_err(|_| "the parser panicked")??)
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
    let first = walk(&trees);
    phases.end("walk", &trees);
    trees.iter_mut().step_by(2).for_each(|tree| *tree = None);
    phases.end("drop every second", &trees);
    parse_missing(files, &mut trees)?;
    phases.end("parse them again", &trees);
    let second = walk(&trees);
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
    println!("The second walk met exactly the same. Before the trees were dropped, the heap was:");
    println!("\n{}", Report(&full));
    map.map_or(Ok(()), |(file, snapshot)| file.draw(&snapshot))
}

/// The sources that were read, and how many of them gave no tree.
#[derive(Default)]
struct Sources {
    bytes: usize,
    unreadable: u64,
    not_rust: u64,
}

/// Parses each file that has no tree. A file that cannot be read or parsed stays without one, and is counted.
fn parse_missing(files: &[PathBuf], trees: &mut [Option<syn::File>]) -> Outcome<Sources> {
    let mut sources = Sources::default();
    let mut progress = Progress::new("parsing", files.len());
    for (parsed, (file, tree)) in files.iter().zip(trees).enumerate() {
        progress.step(1);
        if tree.is_some() {
            continue;
        }
        let Ok(source) = fs::read_to_string(file) else {
            sources.unreadable += 1;
            continue;
        };
        common::ensure_room(&HEAP.stats(), source.len() * BYTES_PER_SOURCE_BYTE, parsed, files.len())?;
        *tree = syn::parse_file(&source).ok();
        sources.bytes += source.len();
        sources.not_rust += u64::from(tree.is_none());
    }
    Ok(sources)
}

/// The nodes that a walk over all trees meets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Census {
    files: u64,
    items: u64,
    statements: u64,
    expressions: u64,
    patterns: u64,
    types: u64,
    idents: u64,
    depth: u64,
    deepest: u64,
}

/// Walks all trees and counts their nodes.
fn walk(trees: &[Option<syn::File>]) -> Census {
    let mut census = Census::default();
    let mut progress = Progress::new("walking", trees.len());
    for tree in trees {
        if let Some(tree) = tree {
            census.visit_file(tree);
        }
        progress.step(1);
    }
    census
}

impl<'ast> Visit<'ast> for Census {
    fn visit_file(&mut self, node: &'ast syn::File) {
        self.files += 1;
        visit::visit_file(self, node);
    }

    fn visit_item(&mut self, node: &'ast syn::Item) {
        self.items += 1;
        visit::visit_item(self, node);
    }

    fn visit_stmt(&mut self, node: &'ast syn::Stmt) {
        self.statements += 1;
        visit::visit_stmt(self, node);
    }

    fn visit_expr(&mut self, node: &'ast syn::Expr) {
        self.expressions += 1;
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
        visit::visit_expr(self, node);
        self.depth -= 1;
    }

    fn visit_pat(&mut self, node: &'ast syn::Pat) {
        self.patterns += 1;
        visit::visit_pat(self, node);
    }

    fn visit_type(&mut self, node: &'ast syn::Type) {
        self.types += 1;
        visit::visit_type(self, node);
    }

    fn visit_ident(&mut self, _: &'ast syn::Ident) {
        self.idents += 1;
    }
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
        "\nParsed {} files of {}; left out {} that are not Rust of today and {} that cannot be read.",
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
