//! `profile.proto`, which `go tool pprof` and the profilers that grew from it read, compressed by gzip.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::frames::parts;
use super::{Frames, Replayed};

/// The values of each sample, and their units. Readers that look for no default take the last.
const VALUES: [(&str, &str); 4] = [
    ("alloc_objects", "count"),
    ("alloc_space", "bytes"),
    ("inuse_objects", "count"),
    ("inuse_space", "bytes"),
];

/// Functions that readers leave out with all that they call. They call nothing of the program.
const DROPPED: &str = "<?alloc::(alloc|raw_vec)::.*|__(rust|rdl|rg)_(alloc|alloc_zeroed|realloc)|operator new.*|\
                       malloc|calloc|realloc";

/// The messages, as far as they are used. Every text is an index of the table of strings.
#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "7")]
    drop_frames: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
    #[prost(int64, repeated, tag = "13")]
    comment: Vec<i64>,
    #[prost(int64, tag = "14")]
    default_sample_type: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    r#type: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    /// The innermost first.
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

/// The system's name, tag 3, stays empty. If it equals the name, Go cuts from that all that stands in angle brackets.
#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// The table of strings, of which the first is empty.
struct Strings {
    all: Vec<String>,
    numbers: HashMap<String, i64>,
}

impl Strings {
    fn new() -> Self {
        let mut strings = Self { all: Vec::new(), numbers: HashMap::new() };
        strings.number("");
        strings
    }

    fn number(&mut self, text: &str) -> i64 {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        let number = self.all.len() as i64;
        self.all.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }
}

/// Writes the file.
pub(super) fn write(of: &Replayed<'_>, out: &mut dyn Write) -> Result<()> {
    let mut strings = Strings::new();
    let sample_type =
        VALUES.map(|(name, unit)| ValueType { r#type: strings.number(name), unit: strings.number(unit) });
    let mut frames = Frames::new(of);
    let samples = of.groups().map(|(group, tally)| Sample {
        // Numbers begin at 1.
        location_id: frames.of_group(group).into_iter().map(|frame| frame as u64 + 1).collect(),
        value: [tally.blocks, tally.bytes, tally.live_blocks, tally.live_bytes]
            .map(u64::cast_signed)
            .to_vec(),
    });
    let sample = samples.collect();
    let (mut location, mut function) = (Vec::new(), Vec::new());
    let mut functions: HashMap<(i64, i64), u64> = HashMap::new();
    for (name, id) in frames.names.iter().zip(1..) {
        let parts = parts(name);
        let (name, filename) = (strings.number(parts.function), strings.number(parts.file));
        let function_id = *functions.entry((name, filename)).or_insert_with(|| {
            let id = function.len() as u64 + 1;
            function.push(Function { id, name, filename });
            id
        });
        location.push(Location { id, line: vec![Line { function_id, line: parts.line.into() }] });
    }
    let [.., space] = &sample_type;
    let profile = Profile {
        default_sample_type: space.r#type,
        drop_frames: strings.number(DROPPED),
        // Every byte is counted.
        period_type: Some(ValueType { r#type: strings.number("space"), unit: strings.number("bytes") }),
        period: 1,
        comment: vec![strings.number(of.name)],
        sample_type: sample_type.to_vec(),
        sample,
        location,
        function,
        string_table: strings.all,
    };
    let mut packed = GzEncoder::new(out, Compression::default());
    packed.write_all(&profile.encode_to_vec())?;
    packed.finish()?;
    Ok(())
}
