//! `smalloc report`: replays a trace, and writes a page that describes and draws where the memory went.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::ValueHint;
use smalloc_terminal::{Count, PictureFile};

use super::heap::{HeapArgs, ListArgs};
use super::progress::Progress;
use crate::input::Input;
use crate::output::print;
use crate::replay::Replay;
use crate::report::Report;

const EXAMPLES: &str = "\
The page is one file, opens in any browser, and loads nothing from the network.

Examples:
  SMALLOC_RECORD=program.rec ./program && smalloc report program.rec -o report.html
  heaptrack --raw ./program && smalloc report heaptrack.program.1234.raw.zst -o report.html";

/// Tell and draw where the memory of a program went, as one page of HTML.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A trace that `smalloc replay` reads; - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    trace: PathBuf,
    /// The page
    #[arg(short, long, value_name = "HTML", value_hint = ValueHint::FilePath, overrides_with = "output")]
    output: PathBuf,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    heap: HeapArgs,
}

/// Replays the trace, writes the page and prints the findings.
///
/// # Errors
///
/// If the trace cannot be read to its end, the replay differs from its recording, or the page cannot be written. If
/// only a part of a trace can be read, the page shows that part.
pub fn run(args: &Args) -> Result<()> {
    let unwritable = || format!("--output: cannot write {}", args.output.display());
    let file = PictureFile::open(&args.output).with_context(unwritable)?;
    ensure!(!file.is_same_as(&args.trace), "{}: it is the trace", unwritable());
    let mut input = Input::open(&args.trace)?;
    input.choose(args.heap.of)?;
    input.name_sites();
    let mut replay = Replay::new(&input, args.list.lists(), args.heap.region, None)?;
    replay.keep_lives();
    let progress = Progress::new(input.position());
    let unread = replay.run(&mut input, |call| progress.called(call))?;
    drop(progress);
    let lives = replay.take_lives().context("the lives of blocks were kept")?;
    let name = crate::output::name(&args.trace);
    let mut report = Report::new(name, &input, &replay, lives);
    file.replace(&report.page()?).with_context(unwritable)?;
    let mut text = format!("Replayed {} calls of {}.\n", Count(replay.calls()), input.format());
    for finding in report.findings() {
        text += &format!("- {}\n", finding.text);
    }
    text += &format!("The report is in {}.\n", args.output.display());
    print(text)?;
    unread.map_or(Ok(()), Err)
}
