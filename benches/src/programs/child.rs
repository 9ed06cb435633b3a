//! The measured programs: the work of the examples `ast`, `words` and `cache`, with any global allocator.

#![allow(dead_code, reason = "the examples also print numbers, which these programs do not")]

#[path = "../../../examples/cache/cache.rs"]
mod cache;
#[path = "../../../examples/common/mod.rs"]
mod common;
#[path = "../../../examples/words/counts.rs"]
mod counts;
#[path = "../../../examples/ast/trees.rs"]
mod trees;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use cache::{Cache, Heap, Load};
use common::{Outcome, find_files, has_extension};
use counts::Counts;

/// The most files that are read.
const MOST_FILES: usize = 400;

/// Does the work that the arguments name, `ast PATH...`, `words PATH...` or `cache REQUESTS THREADS`, with `heap`,
/// which is the program's global allocator. Without a path, the sources that cargo has on this machine are read.
pub(crate) fn main<A: Heap>(heap: &'static A) -> ExitCode {
    common::main(|| run(heap))
}

fn run<A: Heap>(heap: &'static A) -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first().map(|(program, rest)| (program.as_str(), rest)) {
        Some(("ast", paths)) => ast(rust_files(paths)?),
        Some(("words", paths)) => words(&rust_files(paths)?),
        Some(("cache", [requests, threads])) => cache(heap, requests.parse()?, threads.parse()?),
        _ => Err("the arguments are ast PATH..., words PATH... or cache REQUESTS THREADS".into()),
    }
}

fn rust_files(paths: &[String]) -> Outcome<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
    find_files(&paths, MOST_FILES, |path| has_extension(path, &["rs"]))
}

/// Parses the files, walks the trees, drops every second one, and parses those again.
fn ast(files: Vec<PathBuf>) -> Outcome {
    let work = move || {
        let mut trees: Vec<Option<syn::File>> = Vec::new();
        trees.resize_with(files.len(), || None);
        parse_missing(&files, &mut trees)?;
        let first = trees::walk(&trees, || {});
        trees.iter_mut().step_by(2).for_each(|tree| *tree = None);
        parse_missing(&files, &mut trees)?;
        if trees::walk(&trees, || {}) == first { Ok(()) } else { Err("the walks differ") }
    };
    Ok(trees::on_large_stack(work)??)
}

fn parse_missing(files: &[PathBuf], trees: &mut [Option<syn::File>]) -> Result<(), &'static str> {
    trees::parse_missing(files, trees, |_, _| Ok(())).map(drop)
}

/// Counts the words of the files in two maps.
fn words(files: &[PathBuf]) -> Outcome {
    Counts::of(files, |_, _| Ok::<(), Box<dyn Error>>(()))?.agreed()?;
    Ok(())
}

/// Serves `requests` requests to a cache with so many threads.
fn cache<A: Heap>(heap: &'static A, requests: usize, threads: usize) -> Outcome {
    let load = Load { threads, ..Load::default() };
    let tally = cache::serve(&Cache::new(heap, &load), &mut cache::clients(&load), requests)?;
    if tally.refused == 0 { Ok(()) } else { Err(format!("{} requests found no room", tally.refused).into()) }
}
