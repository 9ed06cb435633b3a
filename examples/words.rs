//! Counts the words of text files in a `HashMap<String, u64>` and in a `BTreeMap<String, u64>`: millions of short
//! strings that live for one look-up, and many that stay. Both maps must agree.

mod common;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use common::{MapFile, Outcome, Progress};
use lexopt::prelude::*;
use smalloc::SmallocGlobal;
use smalloc_terminal::{Bytes, Count, Report, parse_size};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

/// The extensions of files that people read.
const TEXT: [&str; 5] = ["md", "txt", "rst", "tex", "html"];
/// The extensions of sources, which have words too.
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
        let counts = Counts::of(&files)?;
        let words = counts.agreed()?;
        counts.report(words);
        print_top(&counts.tree, options.top, words);
        println!("\n{}", Report(&HEAP.stats()));
        map.map_or(Ok(()), |file| file.draw(&HEAP.snapshot()?))?;
        Ok(HEAP.check()?)
    })
}

fn is_text(path: &Path) -> bool {
    common::has_extension(path, &TEXT) || common::has_extension(path, &SOURCES)
}

/// The words of all files, counted twice.
#[derive(Default)]
struct Counts {
    hash: HashMap<String, u64>,
    tree: BTreeMap<String, u64>,
    hash_time: Duration,
    tree_time: Duration,
    bytes: usize,
    files: u64,
    not_text: u64,
}

impl Counts {
    /// Counts the words of `files`. A file that is not UTF-8, or cannot be read, is left out.
    fn of(files: &[PathBuf]) -> Outcome<Self> {
        let mut counts = Self::default();
        let mut progress = Progress::new("counting", files.len());
        for (read, file) in files.iter().enumerate() {
            progress.step(1);
            let Ok(text) = fs::read_to_string(file) else {
                counts.not_text += 1;
                continue;
            };
            // A hash map that grows holds its old and its new table for a while.
            let stats = HEAP.stats();
            common::ensure_room(
                &stats,
                stats.used_bytes + text.len() * BYTES_PER_TEXT_BYTE,
                read,
                files.len(),
            )?;
            counts.add(&text);
        }
        match counts.files {
            0 => Err(format!("none of {} files is UTF-8 text that can be read", counts.not_text).into()),
            _ => Ok(counts),
        }
    }

    /// Counts the words of one text in both maps, as most programs do it: each word becomes a key of its own first.
    fn add(&mut self, text: &str) {
        let start = Instant::now();
        for word in words(text) {
            *self.hash.entry(word).or_default() += 1;
        }
        self.hash_time += start.elapsed();
        let start = Instant::now();
        for word in words(text) {
            *self.tree.entry(word).or_default() += 1;
        }
        self.tree_time += start.elapsed();
        self.bytes += text.len();
        self.files += 1;
    }

    /// The number of words, once it is certain that both maps hold the same.
    fn agreed(&self) -> Outcome<u64> {
        for (word, count) in &self.tree {
            let other = self.hash.get(word).copied().unwrap_or(0);
            if other != *count {
                return Err(
                    format!("the maps differ: {word:?} is {other} in one and {count} in the other").into()
                );
            }
        }
        if self.hash.len() != self.tree.len() {
            return Err(format!("the maps differ: {} and {} words", self.hash.len(), self.tree.len()).into());
        }
        Ok(self.tree.values().sum())
    }

    /// Prints what was read and how long each map took for it.
    fn report(&self, words: u64) {
        println!(
            "Read {} in {} files; left out {} that are not UTF-8 text or cannot be read.\n",
            Bytes(self.bytes),
            Count(self.files),
            Count(self.not_text),
        );
        println!("{:<10}{:>14}{:>12}{:>10}{:>14}", "map", "words", "different", "seconds", "ns per word");
        for (map, different, time) in
            [("HashMap", self.hash.len(), self.hash_time), ("BTreeMap", self.tree.len(), self.tree_time)]
        {
            let (seconds, each) = (time.as_secs_f64(), time.as_nanos() / u128::from(words.max(1)));
            println!("{map:<10}{:>14}{:>12}{seconds:>10.2}{each:>14}", Count(words), Count::from(different));
        }
        println!("Both maps hold the same counts.");
    }
}

/// The words of a text: runs of letters, digits and apostrophes that begin with a letter, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let runs = text.split(|letter: char| !letter.is_alphanumeric() && letter != '\'');
    let words = runs.map(|run| run.trim_matches('\'')).filter(|run| run.starts_with(char::is_alphabetic));
    words.map(str::to_lowercase)
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
