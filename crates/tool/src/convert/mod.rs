//! A replay in the formats of other tools. Each module writes one.
//!
//! No trace tells when its calls were made, so the time in all of them is the number of the call: a microsecond a call
//! where the format knows units.

mod dhat;
mod firefox;
mod folded;
mod frames;
mod perfetto;
mod pprof;

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;

use crate::input::Sites;
use crate::replay::{Kind, Lives, Replay, Tally};
pub(crate) use folded::Value;
pub(crate) use frames::Frames;

/// The nanoseconds that stand for one call.
const CALL: u64 = 1000;

/// A format of another tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Perfetto: memory, holes and hops over time, sites as tracks, and the heap map as slices.
    Perfetto,
    /// The viewer of DHAT: bytes, blocks and lifetimes by call stack.
    Dhat,
    /// Folded stacks, as flame graphs are made of.
    Folded,
    /// pprof: allocated and live objects and bytes by call stack.
    Pprof,
    /// Firefox Profiler: each allocation and each free, by call stack and over time.
    Firefox,
}

/// A trace that has been replayed to its end, and what its blocks came to.
pub(crate) struct Replayed<'a> {
    /// The name of the trace.
    pub(crate) name: &'a str,
    pub(crate) replay: &'a Replay,
    pub(crate) lives: &'a Lives,
    pub(crate) sites: Option<&'a Sites>,
    /// The call after which the heap map is drawn; none is the end.
    pub(crate) at: Option<u64>,
}

impl Format {
    /// Writes the file. `value` is the number that folded stacks have.
    pub(crate) fn write(self, of: &Replayed<'_>, value: Value, out: &mut dyn Write) -> Result<()> {
        match self {
            Self::Perfetto => perfetto::write(of, out),
            Self::Dhat => dhat::write(of, out),
            Self::Folded => folded::write(of, value, out),
            Self::Pprof => pprof::write(of, out),
            Self::Firefox => firefox::write(of, out),
        }
    }

    /// Whether the file has every block, and not only sums.
    pub(crate) fn has_blocks(self) -> bool {
        self == Self::Firefox
    }
}

impl Replayed<'_> {
    /// How blocks are grouped: by call stack, or by size if the trace has no stacks.
    pub(crate) fn kind(&self) -> Kind {
        if self.sites.is_some() { Kind::Stack } else { Kind::Size }
    }

    /// The groups that have blocks, each with its number.
    fn groups(&self) -> impl Iterator<Item = (usize, &Tally)> {
        self.lives.tallies.of(self.kind()).iter().enumerate().filter(|(_, tally)| tally.blocks > 0)
    }
}
