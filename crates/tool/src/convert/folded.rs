//! Folded stacks: a line for each stack, its frames from the outside in with semicolons between them, and a number.

use std::io::Write;

use anyhow::Result;
use clap::ValueEnum;

use super::{Frames, Replayed};
use crate::replay::Tally;

/// The number behind a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Value {
    /// Bytes in use when the program had the most.
    Peak,
    /// Bytes in use at the end.
    End,
    /// Bytes of all blocks.
    Total,
    /// All blocks.
    Blocks,
}

impl Value {
    fn of(self, tally: &Tally, peaks: u64) -> u64 {
        match self {
            Self::Peak => tally.at_peak(peaks).bytes,
            Self::End => tally.live_bytes,
            Self::Total => tally.bytes,
            Self::Blocks => tally.blocks,
        }
    }
}

/// Writes the stacks whose number is not 0.
pub(super) fn write(of: &Replayed<'_>, value: Value, out: &mut dyn Write) -> Result<()> {
    let mut frames = Frames::new(of);
    for (group, tally) in of.groups() {
        let number = value.of(tally, of.lives.tallies.peaks);
        if number > 0 {
            let stack = frames.of_group(group);
            let names = stack.iter().rev().map(|&frame| foldable(&frames.names[frame]));
            writeln!(out, "{} {number}", names.collect::<Vec<_>>().join(";"))?;
        }
    }
    Ok(())
}

/// A name without the characters that part frames and lines. Rust's array types have semicolons.
fn foldable(name: &str) -> String {
    name.replace(';', ",").replace(char::is_control, " ")
}
