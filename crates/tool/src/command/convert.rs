//! `smalloc convert`: replays a trace, and writes it in the format of another tool.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::{ValueHint, value_parser};
use smalloc_terminal::Count;

use super::heap::HeapArgs;
use super::progress::Progress;
use crate::convert::{Format, Replayed, Value};
use crate::input::Input;
use crate::output::{complain, name, replace_file};
use crate::replay::Replay;

const EXAMPLES: &str = "\
Where the trace has no call stacks, blocks are grouped by size. A call stands for a microsecond.

Examples:
  smalloc convert program.rec --to perfetto -o program.pftrace       # open at https://ui.perfetto.dev
  smalloc convert program.rec --to firefox -o program.json           # open at https://profiler.firefox.com
  smalloc convert heaptrack.raw.zst --to dhat -o dhat.out.json       # open in valgrind's dh_view.html
  smalloc convert heaptrack.raw.zst --to pprof -o heap.pb.gz && go tool pprof -http=: heap.pb.gz
  smalloc convert heaptrack.raw.zst --to folded -o - | inferno-flamegraph --countname bytes > flames.svg";

/// Write a trace in the format of another tool.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A trace that `smalloc replay` reads; - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    trace: PathBuf,
    /// The format
    #[arg(long, value_name = "FORMAT", overrides_with = "to")]
    to: Format,
    /// The file that is written, or replaced once all of it is there; - is standard output
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::FilePath, overrides_with = "output")]
    output: PathBuf,
    /// The number of folded stacks
    #[arg(long, value_name = "NUMBER", overrides_with = "value", default_value = "peak")]
    value: Value,
    /// The heap map for Perfetto is as it is after call N [default: at the end]
    #[arg(long, value_name = "N", overrides_with = "at", value_parser = value_parser!(u64).range(1..))]
    at: Option<u64>,
    #[command(flatten)]
    heap: HeapArgs,
}

/// Replays the trace and writes the file.
///
/// # Errors
///
/// If the trace cannot be read to its end, or the file cannot be written. A part of a trace is converted nevertheless.
pub fn run(args: &Args) -> Result<()> {
    let mut input = Input::open(&args.trace)?;
    input.choose(args.heap.of)?;
    input.name_sites();
    let mut replay = Replay::new(&input, &[], args.heap.region, args.at)?;
    replay.keep_lives();
    let progress = Progress::new(input.position());
    let unread = replay.run(&mut input, |call| progress.called(call))?;
    drop(progress);
    if replay.snapshot().is_none() {
        unread.iter().for_each(|error| complain("convert", error));
        let (at, calls) = (args.at.unwrap_or(0), Count(replay.calls()));
        return Err(anyhow!("--at {at}: there are only {calls} calls"));
    }
    let lives = replay.take_lives().context("the lives of blocks were kept")?;
    let name = name(&args.trace);
    let (sites, at) = (input.sites(), args.at);
    let replayed = Replayed { name: &name, replay: &replay, lives: &lives, sites, at };
    replace_file(&args.output, &args.trace, |out| args.to.write(&replayed, args.value, out))
        .with_context(|| format!("--output: cannot write {}", args.output.display()))?;
    let dropped = lives.residue.dropped();
    if dropped > 0 && args.to.has_blocks() {
        let kept = Count::from(lives.all.len());
        let text =
            format!("{} blocks are left out, the smallest and shortest: {kept} are there", Count(dropped));
        complain("convert", &text);
    }
    unread.map_or(Ok(()), Err)
}
