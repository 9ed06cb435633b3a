//! Counts the words of text files in a `HashMap<String, u64>` and in a `BTreeMap<String, u64>`: millions of short
//! strings that live for one look-up, and many that stay. Both maps must agree.

#[path = "../common/mod.rs"]
mod common;
mod counts;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use common::{MapFile, Outcome, Progress};
use counts::Counts;
use lexopt::prelude::*;
use smalloc::SmallocGlobal;
use smalloc_terminal::{Bytes, Count, Report, parse_size};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

/// File name extensions of texts.
const TEXT: [&str; 5] = ["md", "txt", "rst", "tex", "html"];
/// File name extensions of sources, which contain words too.
const SOURCES: [&str; 6] = ["rs", "toml", "c", "h", "py", "sh"];

/// Both maps together take this much for a text whose words are all short and new.
const BYTES_PER_TEXT_BYTE: usize = 64;

const HELP: &str = "\
Count the words of text files, in a hash map and in a B-tree.

usage: words [OPTIONS] [PATH...]

  PATH             files or directories to read; default: the sources that
                   cargo has on this machine, or else those of this crate
  --top N          print the N most frequent words [default: 10]
  --limit N        read no more than N files, or `all` [default: 5000]
  --map FILE       draw the heap with both maps in FILE, as SVG, or - on the
                   terminal
  --region SIZE    the size of the heap, such as 512M or 2G
  -h, --help       print this

A word is a run of letters, digits and apostrophes that begins with a letter,
in lower case.
In directories, files named *.md, *.txt, *.rst, *.tex, *.html, *.rs, *.toml,
*.c, *.h, *.py and *.sh are read; a file that is named here is read in any case.
";

struct Options {
    paths: Vec<PathBuf>,
    top: usize,
    limit: usize,
    map: Option<PathBuf>,
    region: Option<usize>,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options { paths: Vec::new(), top: 10, limit: 5_000, map: None, region: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => common::help(HELP),
            Long("top") => options.top = parser.value()?.parse_with(common::parse_count)?,
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
        let files = common::find_files(&options.paths, options.limit, is_text)?;
        let map = options.map.map(MapFile::create).transpose()?;
        let counts = count(&files)?;
        let words = counts.agreed()?;
        report(&counts, words);
        print_top(&counts.tree, options.top, words);
        println!("\n{}", Report(&HEAP.stats()));
        map.map_or(Ok(()), |file| file.draw(&HEAP.snapshot()?))?;
        Ok(HEAP.check()?)
    })
}

fn is_text(path: &Path) -> bool {
    common::has_extension(path, &TEXT) || common::has_extension(path, &SOURCES)
}

/// Counts the words of all files, with a progress bar, as long as the heap has room for the next one.
fn count(files: &[PathBuf]) -> Outcome<Counts> {
    let mut progress = Progress::new("counting", files.len());
    Counts::of(files, |file, bytes| {
        progress.reach(file);
        // A hash map that grows holds its old and its new table for a while.
        let stats = HEAP.stats();
        common::ensure_room(&stats, stats.used_bytes + bytes * BYTES_PER_TEXT_BYTE, file, files.len())
    })
}

/// Prints the numbers of files and words, and the time of each map.
fn report(counts: &Counts, words: u64) {
    println!(
        "Read {} in {} files; skipped {} that are not UTF-8 text or could not be read.\n",
        Bytes(counts.bytes),
        Count(counts.files),
        Count(counts.not_text),
    );
    println!("{:<10}{:>14}{:>12}{:>10}{:>14}", "map", "words", "different", "seconds", "ns per word");
    for (map, different, time) in
        [("HashMap", counts.hash.len(), counts.hash_time), ("BTreeMap", counts.tree.len(), counts.tree_time)]
    {
        let (seconds, each) = (time.as_secs_f64(), time.as_nanos() / u128::from(words.max(1)));
        println!("{map:<10}{:>14}{:>12}{seconds:>10.2}{each:>14}", Count(words), Count::from(different));
    }
    println!("Both maps hold the same counts.");
}

/// Prints the most frequent words; among equals, the first in the alphabet.
fn print_top(counts: &BTreeMap<String, u64>, top: usize, words: u64) {
    let mut ranking: Vec<(&String, u64)> = counts.iter().map(|(word, &count)| (word, count)).collect();
    ranking.sort_by_key(|&(_, count)| Reverse(count));
    println!("\n{:>12}  {:>7}  word", "times", "share");
    for (word, count) in ranking.into_iter().take(top) {
        println!("{:>12}  {:>5.2} %  {word}", Count(count), 100.0 * count as f64 / words as f64);
    }
}
