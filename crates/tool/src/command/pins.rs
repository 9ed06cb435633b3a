//! `smalloc pins`: tells which blocks keep free memory from going back to the system.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::builder::ValueParser;
use clap::{ValueHint, value_parser};
use smalloc_terminal::{Bytes, Count, parse_size};

use super::progress::Progress;
use crate::input::{Input, Sites};
use crate::output::{complain, print};
use crate::replay::{Kind, Lives, Replay};
use crate::report::{Pins, group_name};

const EXAMPLES: &str = "\
The system takes back whole pages. The free bytes of a page that is free in part are shared equally among the blocks
that lie on it: these keep them from going back.

Examples:
  SMALLOC_RECORD=program.rec SMALLOC_SITES=1 ./program && smalloc pins program.rec
  smalloc pins program.rec --at 1000000 --by stack --rows 5";

/// Tell which blocks keep free memory from going back to the system.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A trace that `smalloc replay` reads; - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    trace: PathBuf,
    /// After call N, counted from 1 [default: at the end]
    #[arg(long, value_name = "N", overrides_with = "at", value_parser = value_parser!(u64).range(1..))]
    at: Option<u64>,
    /// How blocks are grouped [default: by site, or by size if the trace has no call stacks]
    #[arg(long, value_name = "KIND", overrides_with = "by")]
    by: Option<Kind>,
    /// The number of groups to list
    #[arg(long, value_name = "N", overrides_with = "rows", default_value_t = 20, value_parser = value_parser!(u32).range(1..))]
    rows: u32,
    /// The size of the heap, such as 512M or 2G [default: that of the recording, or 32G]
    #[arg(long, value_name = "SIZE", overrides_with = "region", value_parser = ValueParser::new(parse_size))]
    region: Option<usize>,
    /// Which region, from 0 on, of a recording of several
    #[arg(long, value_name = "N", overrides_with = "of")]
    of: Option<u16>,
}

/// Replays the trace up to the call and prints a sentence for each group of blocks.
///
/// # Errors
///
/// If the trace cannot be read so far, or has fewer calls. The end of a readable part is printed nevertheless.
pub fn run(args: &Args) -> Result<()> {
    let mut input = Input::open(&args.trace)?;
    input.choose(args.of)?;
    input.name_sites();
    let mut replay = Replay::new(&input, &[], args.region, None)?;
    replay.keep_lives();
    replay.stop_after(args.at);
    let progress = Progress::new(input.position());
    let unread = replay.run(&mut input, |call| progress.called(call))?;
    drop(progress);
    if let Some(at) = args.at.filter(|&at| at > replay.calls()) {
        unread.iter().for_each(|error| complain("pins", error));
        bail!("--at {at}: there are only {} calls", Count(replay.calls()));
    }
    let lives = replay.take_lives().context("the lives of blocks were kept")?;
    let kind = match (args.by, input.sites()) {
        (Some(Kind::Site | Kind::Stack), None) => bail!("--by: the trace has no call stacks"),
        (Some(kind), _) => kind,
        (None, Some(_)) => Kind::Site,
        (None, None) => Kind::Size,
    };
    print(text(&lives, input.sites(), kind, replay.calls(), args.rows as usize)?)?;
    unread.map_or(Ok(()), Err)
}

fn text(lives: &Lives, sites: Option<&Sites>, kind: Kind, call: u64, rows: usize) -> Result<String> {
    let mut out = String::new();
    let pins = Pins::at_end(lives, kind);
    if pins.top.0 == 0 {
        writeln!(out, "After call {}, nothing is in use.", Count(call))?;
        return Ok(out);
    }
    let name = |group| group_name(kind, group, sites, &lives.threads);
    let these = |blocks: usize| {
        if blocks == 1 { "This 1 block".into() } else { format!("These {} blocks", Count::from(blocks)) }
    };
    writeln!(
        out,
        "After call {}, {} of the {} below top are free. {} of them lie on pages that are in use in part.",
        Count(call),
        pins.free,
        pins.top,
        pins.kept
    )?;
    for pin in pins.groups.iter().take(rows) {
        let keep = if pin.blocks == 1 { "keeps" } else { "keep" };
        writeln!(out, "{} of {} {keep} {}.", these(pin.blocks), name(pin.group), pin.kept)?;
    }
    if pins.groups.len() > rows {
        writeln!(
            out,
            "Further {} groups keep less (--rows shows more).",
            Count::from(pins.groups.len() - rows)
        )?;
    }
    if let Some(highest) = pins.highest {
        let (lie, them) = if highest.blocks == 1 { ("lies", "it") } else { ("lie", "them") };
        let (these, name, keeps) = (these(highest.blocks), name(highest.group), highest.kept);
        writeln!(out, "{these} of {name} {lie} highest: without {them} top would be {keeps} lower.")?;
    }
    if let Some(sites) = sites.filter(|sites| sites.is_sample() && kind.is_of_stacks()) {
        let interval = Bytes(usize::try_from(sites.interval).unwrap_or(usize::MAX));
        writeln!(out, "The stack of one request in {interval} is known: these numbers are estimates.")?;
    }
    Ok(out)
}
