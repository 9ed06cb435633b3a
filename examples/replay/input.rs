//! Opens a trace, and finds out from its first bytes what it is.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use smalloc::recording::{Head, MAGIC};

use super::call::{Event, Line};
use super::{android, heaptrack, mtrace, recording};
use crate::common::Outcome;

/// What a line longer than this is shown as, in characters.
const SHOWN: usize = 60;
/// Bytes of the longest line.
const LONGEST: u64 = 1 << 20;
/// As many bytes tell one format from another.
const SNIFFED: u64 = 512;

const FORMATS: &str =
    "smalloc's recordings, and the texts of memory_replay, heaptrack --raw and mtrace, plain or gzipped";

/// A trace that is being read.
pub(crate) struct Input {
    name: String,
    format: Format,
    /// What was not replayed because it is no call, by what it is.
    pub(crate) others: BTreeMap<&'static str, u64>,
}

enum Format {
    Recording(recording::Reader),
    Text(Text),
}

struct Text {
    input: Box<dyn BufRead>,
    line: u64,
    bytes: Vec<u8>,
    syntax: Syntax,
}

enum Syntax {
    Android,
    Heaptrack,
    Mtrace(mtrace::Reader),
}

impl Input {
    /// Opens a file, or standard input for `-`.
    pub(crate) fn open(path: &Path) -> Outcome<Self> {
        let name = path.display().to_string();
        let raw: Box<dyn Read> = if name == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).map_err(|error| format!("cannot read {name}: {error}"))?)
        };
        let format = Format::of(raw).map_err(|error| format!("{name}: {error}"))?;
        Ok(Self { name, format, others: BTreeMap::new() })
    }

    /// The head, if it is a recording of smalloc.
    pub(crate) fn head(&self) -> Option<&Head> {
        match &self.format {
            Format::Recording(reader) => Some(reader.head()),
            Format::Text(_) => None,
        }
    }

    /// Chooses one region of a recording; without a choice it is the only one.
    pub(crate) fn choose(&mut self, of: Option<u16>) -> Outcome {
        let regions = self.head().map_or(1, |head| head.regions);
        let chosen = match of {
            Some(region) if u32::from(region) < regions => region,
            None if regions == 1 => 0,
            _ if regions == 1 => return Err(format!("{}: it has one region, number 0", self.name).into()),
            _ => {
                let last = regions.saturating_sub(1);
                return Err(
                    format!("{}: it has {regions} regions: choose one, --of 0 to {last}", self.name).into()
                );
            }
        };
        if let Format::Recording(reader) = &mut self.format {
            reader.choose(chosen);
        }
        Ok(())
    }

    /// What the file is.
    pub(crate) fn format(&self) -> &'static str {
        match &self.format {
            Format::Recording(_) => "a recording of smalloc",
            Format::Text(Text { syntax: Syntax::Android, .. }) => "a trace for memory_replay",
            Format::Text(Text { syntax: Syntax::Heaptrack, .. }) => "a trace of heaptrack",
            Format::Text(Text { syntax: Syntax::Mtrace(_), .. }) => "a trace of mtrace",
        }
    }

    /// The next call; none at the end.
    pub(crate) fn next(&mut self) -> Outcome<Option<Event>> {
        let next = match &mut self.format {
            Format::Recording(reader) => reader.next(),
            Format::Text(text) => text.next(&mut self.others),
        };
        next.map_err(|error| format!("{}: {error}", self.name).into())
    }
}

impl Format {
    fn of(raw: Box<dyn Read>) -> Outcome<Self> {
        let (head, input) = sniff(raw)?;
        let (head, input) = if head.starts_with(b"\x1f\x8b") {
            sniff(Box::new(MultiGzDecoder::new(input)))?
        } else {
            (head, input)
        };
        if head.starts_with(&MAGIC) {
            return Ok(Self::Recording(recording::Reader::new(input)?));
        }
        let syntax = Syntax::of(&head)?;
        Ok(Self::Text(Text { input, line: 0, bytes: Vec::new(), syntax }))
    }
}

/// The first bytes of an input, and the whole of it.
fn sniff(mut raw: Box<dyn Read>) -> io::Result<(Vec<u8>, Box<dyn BufRead>)> {
    let mut head = Vec::new();
    raw.by_ref().take(SNIFFED).read_to_end(&mut head)?;
    let whole = io::Cursor::new(head.clone()).chain(raw);
    Ok((head, Box::new(BufReader::with_capacity(1 << 16, whole))))
}

impl Syntax {
    fn of(head: &[u8]) -> Outcome<Self> {
        if head.is_empty() {
            return Err("the file is empty".into());
        }
        if head.starts_with(b"\x28\xb5\x2f\xfd") {
            return Err("the file is packed by zstd; `zstd -dc FILE | replay -` reads it".into());
        }
        let text = String::from_utf8_lossy(head);
        let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        if line.starts_with("= Start") || line.starts_with("@ ") {
            Ok(Self::Mtrace(mtrace::Reader::default()))
        } else if android::line(line).is_some() {
            Ok(Self::Android)
        } else if ["v ", "+ ", "- "].iter().any(|start| line.starts_with(start)) {
            Ok(Self::Heaptrack)
        } else {
            Err(format!("line 1: {} is of no format that can be read, which are {FORMATS}", shown(line))
                .into())
        }
    }

    /// An error where the text cannot end.
    fn end(&self) -> Outcome {
        match self {
            Self::Mtrace(reader) if reader.is_amid() => Err("it ends in the midst of a realloc".into()),
            _ => Ok(()),
        }
    }

    fn read(&mut self, line: &str) -> Result<Line, &'static str> {
        match self {
            Self::Android => android::line(line).ok_or("not a line of memory_replay"),
            Self::Heaptrack => heaptrack::line(line),
            Self::Mtrace(reader) => reader.line(line).ok_or("not a line of mtrace"),
        }
    }
}

impl Text {
    fn next(&mut self, others: &mut BTreeMap<&'static str, u64>) -> Outcome<Option<Event>> {
        loop {
            self.bytes.clear();
            self.line += 1;
            let number = self.line;
            let read = self.input.by_ref().take(LONGEST).read_until(b'\n', &mut self.bytes);
            let read = read.map_err(|error| format!("line {number}: {error}"))?;
            if read == 0 {
                return self.syntax.end().map(|()| None);
            }
            if read as u64 == LONGEST {
                return Err(format!("line {number}: it has {LONGEST} bytes and more").into());
            }
            let text = String::from_utf8_lossy(&self.bytes);
            let text = text.trim();
            let line = if text.is_empty() { Ok(Line::Other("empty lines")) } else { self.syntax.read(text) };
            match line.map_err(|why| format!("line {number}: {}: {why}", shown(text)))? {
                Line::Call(call) => return Ok(Some(Event { call, told: None })),
                Line::Other(what) => *others.entry(what).or_default() += 1,
            }
        }
    }
}

/// A line as an error shows it.
fn shown(line: &str) -> String {
    let mut short: String = line.chars().take(SHOWN).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    format!("{short:?}")
}
