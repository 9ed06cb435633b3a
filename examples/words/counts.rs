//! The work of the example `words`, apart from its heap: counts the words of files in two kinds of maps. `smalloc-bench
//! programs` does the same work with other allocators.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The words of all files, counted twice.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) hash: HashMap<String, u64>,
    pub(crate) tree: BTreeMap<String, u64>,
    pub(crate) hash_time: Duration,
    pub(crate) tree_time: Duration,
    pub(crate) bytes: usize,
    pub(crate) files: u64,
    pub(crate) not_text: u64,
}

impl Counts {
    /// Counts the words of `files`. Files that are not UTF-8, or that cannot be read, are counted and left out.
    ///
    /// `before` is called with the file's index and its length in bytes before its words are counted, and its error
    /// ends the work.
    pub(crate) fn of(
        files: &[PathBuf],
        mut before: impl FnMut(usize, usize) -> Result<(), Box<dyn Error>>,
    ) -> Result<Self, Box<dyn Error>> {
        let mut counts = Self::default();
        for (index, file) in files.iter().enumerate() {
            let Ok(text) = fs::read_to_string(file) else {
                counts.not_text += 1;
                continue;
            };
            before(index, text.len())?;
            counts.add(&text);
        }
        match counts.files {
            0 => Err(format!("none of {} files is UTF-8 text that can be read", counts.not_text).into()),
            _ => Ok(counts),
        }
    }

    /// Counts the words of one text in both maps. As in most programs, each word first becomes a key of its own.
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

    /// The number of words, after a check that both maps agree.
    pub(crate) fn agreed(&self) -> Result<u64, String> {
        for (word, count) in &self.tree {
            let other = self.hash.get(word).copied().unwrap_or(0);
            if other != *count {
                return Err(format!("the maps differ: {word:?} is {other} in one and {count} in the other"));
            }
        }
        if self.hash.len() != self.tree.len() {
            return Err(format!("the maps differ: {} and {} words", self.hash.len(), self.tree.len()));
        }
        Ok(self.tree.values().sum())
    }
}

/// The words of a text: runs of letters, digits and apostrophes that begin with a letter, in lower case.
fn words(text: &str) -> impl Iterator<Item = String> + '_ {
    let runs = text.split(|letter: char| !letter.is_alphanumeric() && letter != '\'');
    let words = runs.map(|run| run.trim_matches('\'')).filter(|run| run.starts_with(char::is_alphabetic));
    words.map(str::to_lowercase)
}
