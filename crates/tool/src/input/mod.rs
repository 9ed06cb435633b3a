//! Reads traces. The first bytes of a file tell its packing and its format; its name is ignored.
//!
//! [`Input`] stands between the formats and the rest: it returns [`Event`]s for every format.

mod android;
mod call;
mod heaptrack;
mod lines;
mod mtrace;
mod recording;
mod same;
mod shown;
mod sites;
mod text;
mod unpack;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use encoding_rs_io::DecodeReaderBytesBuilder;
use smalloc::recording::{Head, MAGIC};

pub(crate) use call::MALLOC_ALIGN;
pub use call::{Call, Event, Origin, Recorded};
use same::Same;
pub use sites::Sites;
pub use unpack::Position;
use unpack::Unpacked;

/// All formats that can be read, for messages.
const FORMATS: &str = "smalloc's recordings, and the texts of memory_replay, heaptrack --raw and mtrace, \
                       plain or packed by gzip, zip, xz, zstd or bzip2";

/// A trace that is being read.
pub struct Input {
    name: String,
    format: Format,
    position: Position,
    others: BTreeMap<&'static str, u64>,
    same: Same,
}

enum Format {
    Recording(Box<recording::Reader>),
    Text(text::Text),
}

impl Input {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    ///
    /// If it cannot be opened or unpacked, or is in no format that can be read.
    pub fn open(path: &Path) -> Result<Self> {
        if path.as_os_str() == "-" {
            return Self::of("standard input".to_owned(), Box::new(io::stdin()), None);
        }
        let name = path.display().to_string().replace(char::is_control, "\u{fffd}");
        let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
        let size = file.metadata().ok().filter(|file| file.is_file()).map(|file| file.len());
        Self::of(name, Box::new(file), size)
    }

    fn of(name: String, file: Box<dyn Read>, size: Option<u64>) -> Result<Self> {
        let unpacked = unpack::unpack(file, size).with_context(|| name.clone())?;
        let position = unpacked.position.clone();
        let format = Format::of(unpacked).with_context(|| name.clone())?;
        Ok(Self { name, format, position, others: BTreeMap::new(), same: Same::default() })
    }

    /// The head, if this is a recording of smalloc.
    pub fn head(&self) -> Option<&Head> {
        match &self.format {
            Format::Recording(reader) => Some(reader.head()),
            Format::Text(_) => None,
        }
    }

    /// Chooses one region of a recording, by its number. Without a choice there must be only one.
    ///
    /// # Errors
    ///
    /// If there is no such region, or several and no choice.
    pub fn choose(&mut self, of: Option<u16>) -> Result<()> {
        let regions = self.head().map_or(1, |head| head.regions);
        let chosen = match of {
            Some(region) if u32::from(region) < regions => region,
            None if regions == 1 => 0,
            _ if regions == 1 => bail!("{}: it has one region, number 0", self.name),
            _ => {
                let last = regions.saturating_sub(1);
                bail!("{}: it has {regions} regions: choose one, --of 0 to {last}", self.name)
            }
        };
        if let Format::Recording(reader) = &mut self.format {
            reader.choose(chosen);
        }
        Ok(())
    }

    /// The kind of the file, as in "a trace of mtrace".
    pub fn format(&self) -> &'static str {
        match &self.format {
            Format::Recording(_) => "a recording of smalloc",
            Format::Text(text) => text.syntax.format(),
        }
    }

    /// A sentence, without its full stop, about the calls that traces of this format lack; none if they are complete.
    pub fn remark(&self) -> Option<&'static str> {
        match &self.format {
            Format::Recording(_) => None,
            Format::Text(text) => text.syntax.remark(),
        }
    }

    /// Finds the sites of the call stacks that are read from now on, if the trace has any. This opens the program's
    /// files.
    pub fn name_sites(&mut self) {
        match &mut self.format {
            Format::Recording(reader) => reader.name_sites(),
            Format::Text(text) => text.syntax.name_sites(),
        }
    }

    /// The call sites so far, for the numbers in [`Origin`]; none if the trace has no call stacks.
    pub fn sites(&self) -> Option<&Sites> {
        self.format.sites()
    }

    /// The kinds of lines so far that are not calls, in the plural, and the number of each.
    pub fn others(&self) -> &BTreeMap<&'static str, u64> {
        &self.others
    }

    /// The position in the file, which keeps up with further reads.
    pub fn position(&self) -> Position {
        self.position.clone()
    }

    /// The next call; none at the end.
    ///
    /// # Errors
    ///
    /// If the rest of the file cannot be read: it is damaged, cut off, or not of the format that it began with.
    pub fn next_event(&mut self) -> Result<Option<Event>> {
        let next = match &mut self.format {
            Format::Recording(reader) => reader.next(),
            Format::Text(text) => text.next(&mut self.others),
        };
        let mut event = next.with_context(|| self.name.clone())?;
        if let (Some(event), Some(sites)) = (&mut event, self.format.sites()) {
            event.origin.stack = self.same.first(event.origin.stack, sites);
        }
        Ok(event)
    }
}

impl Format {
    fn sites(&self) -> Option<&Sites> {
        match self {
            Self::Recording(reader) => reader.sites(),
            Self::Text(text) => text.syntax.sites(),
        }
    }

    fn of(file: Unpacked) -> Result<Self> {
        if file.head.starts_with(&MAGIC) {
            return Ok(Self::Recording(Box::new(recording::Reader::new(file.bytes)?)));
        }
        // A text may begin with a mark that tells its encoding. Otherwise it is read unchanged.
        let decoder = DecodeReaderBytesBuilder::new().utf8_passthru(true).strip_bom(true).build(file.bytes);
        let (head, text) = unpack::sniff(Box::new(BufReader::new(decoder)))?;
        ensure!(!head.is_empty(), "the file is empty");
        Ok(Self::Text(text::Text::new(&head, text)?))
    }
}
