//! `smalloc replay`: replays a trace on a heap, reports the outcome, and draws pictures.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, anyhow, ensure};
use clap::{Arg, ArgAction, ArgMatches, FromArgMatches, ValueHint, value_parser};
use smalloc::Snapshot;
use smalloc::recording::{End, Head};
use smalloc_terminal::{Count, PictureFile, Report, map_text};

use super::heap::{HeapArgs, ListArgs};
use super::progress::Progress;
use crate::input::Input;
use crate::output::{complain, name, print};
use crate::picture::Picture;
use crate::replay::Replay;

const EXAMPLES: &str = "\
A recording of smalloc is compared with its replay, call by call: the offsets, and with the list that was recorded the \
hops. With another --region it is not.

Examples:
  smalloc replay program.rec --list both
  smalloc replay trace.txt.gz --raster address.png --hops hops.svg --memory memory.svg
  smalloc replay program.rec --at 100000 --map -
  ssh server cat trace.zst | smalloc replay -";

/// Replay a trace of allocations on a heap, report the outcome, and draw it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A recording of smalloc, or the text of Android's memory_replay, of `heaptrack --raw` or of glibc's mtrace, plain
    /// or packed by gzip, zip, xz, zstd or bzip2; - is standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    trace: PathBuf,
    #[command(flatten)]
    list: ListArgs,
    #[command(flatten)]
    heap: HeapArgs,
    #[command(flatten)]
    pictures: Pictures,
    /// Draw map and holes as they are after call N [default: at the end]
    #[arg(long, value_name = "N", overrides_with = "at", value_parser = value_parser!(u64).range(1..))]
    at: Option<u64>,
}

/// The requested pictures, in the order of their options, each of which may be repeated.
#[derive(Debug)]
struct Pictures(Vec<(Picture, PathBuf)>);

impl clap::Args for Pictures {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(Picture::ALL.map(|picture| {
            let help = match picture {
                Picture::Raster => "Draw address over time, as PNG",
                Picture::Hops => "Draw hops and holes over time, as SVG",
                Picture::Memory => "Draw live and used bytes, top and footprint over time, as SVG",
                Picture::Map => "Draw where the segments lie, as SVG; - is the terminal",
                Picture::Holes => "Draw the sizes of the holes, as SVG",
            };
            let argument = Arg::new(picture.option()).long(picture.option()).help(help).value_name("FILE");
            let argument = argument.value_hint(ValueHint::FilePath).value_parser(value_parser!(PathBuf));
            argument.action(ArgAction::Append)
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Pictures {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut asked = Vec::new();
        for picture in Picture::ALL {
            let places = matches.indices_of(picture.option()).into_iter().flatten();
            let paths = matches.get_many::<PathBuf>(picture.option()).into_iter().flatten();
            asked.extend(places.zip(paths).map(|(place, path)| (place, picture, path.clone())));
        }
        asked.sort_by_key(|&(place, ..)| place);
        Ok(Self(asked.into_iter().map(|(_, picture, path)| (picture, path)).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A picture that is to be drawn.
struct Canvas<'a> {
    picture: Picture,
    path: &'a Path,
    /// None for a map on the terminal.
    file: Option<PictureFile>,
}

impl<'a> Canvas<'a> {
    /// Opens its file. `others` are the pictures that have one already.
    fn open(picture: Picture, path: &'a Path, trace: &Path, others: &[Self]) -> Result<Self> {
        if picture == Picture::Map && path.as_os_str() == "-" {
            return Ok(Self { picture, path, file: None });
        }
        let unwritable = || unwritable(picture, path);
        let format = picture.format();
        ensure!(
            !is_other_image(path, format),
            "{}: it is drawn as {} (name it {})",
            unwritable(),
            format.to_uppercase(),
            path.with_extension(format).display()
        );
        let file = PictureFile::open(path).with_context(unwritable)?;
        ensure!(!file.is_same_as(trace), "{}: it is the trace", unwritable());
        for other in others {
            ensure!(
                !(other.file.is_some() && file.is_same_as(other.path)),
                "{}: --{} is drawn there",
                unwritable(),
                other.picture.option()
            );
        }
        Ok(Self { picture, path, file: Some(file) })
    }

    /// Draws the picture, if it has a file.
    fn draw(&self, replay: &Replay, snapshot: &Snapshot, name: &str) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let picture = self.picture.draw(replay, snapshot, name)?;
        file.replace(&picture).with_context(|| unwritable(self.picture, self.path))
    }

    /// Prints the path of the picture, or shows it.
    fn tell(&self, snapshot: &Snapshot) -> Result<()> {
        let text = match self.file {
            None => format!("\n{}", map_text(snapshot)?),
            Some(_) => {
                format!("The picture for --{} is in {}.\n", self.picture.option(), self.path.display())
            }
        };
        Ok(print(text)?)
    }
}

/// Whether the name of a file says that it is an image of another format.
fn is_other_image(path: &Path, format: &str) -> bool {
    let Some(extension) = path.extension() else { return false };
    let is = |name: &&str| extension.eq_ignore_ascii_case(name);
    !is(&format) && ["bmp", "gif", "jpeg", "jpg", "pdf", "png", "svg", "svgz", "webp"].iter().any(is)
}

fn unwritable(picture: Picture, path: &Path) -> String {
    format!("--{}: cannot write {}", picture.option(), path.display())
}

/// Replays the trace, draws the pictures and prints the report.
///
/// # Errors
///
/// If the trace cannot be read to its end, the replay differs from its recording, or a picture cannot be written. All
/// other pictures and the report are done nevertheless.
pub fn run(args: &Args) -> Result<()> {
    let mut canvases = Vec::new();
    for (picture, path) in &args.pictures.0 {
        canvases.push(Canvas::open(*picture, path, &args.trace, &canvases)?);
    }
    let mut input = Input::open(&args.trace)?;
    input.choose(args.heap.of)?;
    let mut replay = Replay::new(&input, args.list.lists(), args.heap.region, args.at)?;
    let progress = Progress::new(input.position());
    let unread = replay.run(&mut input, |call| progress.called(call))?;
    drop(progress);
    let Some(snapshot) = replay.snapshot() else {
        unread.iter().for_each(|error| complain("replay", error));
        let (at, calls) = (args.at.unwrap_or(0), Count(replay.calls()));
        return Err(anyhow!("--at {at}: there are only {calls} calls"));
    };
    // The pictures are written first: the reader of the report may leave before its end, as `head` does.
    let name = name(&args.trace);
    let drawn: Vec<_> = canvases.iter().map(|canvas| canvas.draw(&replay, snapshot, &name)).collect();
    let mut wrong: Vec<Error> = Vec::new();
    print(report(&replay, &input, unread.is_some())?)?;
    wrong.extend(unread);
    for (canvas, drawn) in canvases.iter().zip(drawn) {
        match drawn {
            Ok(()) => canvas.tell(snapshot)?,
            Err(error) => wrong.push(error),
        }
    }
    let last = wrong.pop();
    wrong.iter().for_each(|error| complain("replay", error));
    last.map_or(Ok(()), Err)
}

/// Prints the report. `cut` if the trace could not be read to its end.
fn report(replay: &Replay, input: &Input, cut: bool) -> Result<String> {
    let mut out = String::new();
    writeln!(out, "Replayed {} calls of {}.", Count(replay.calls()), input.format())?;
    if cut {
        writeln!(out, "The rest of it cannot be read: all that follows is of these calls.")?;
    }
    let (most, call) = replay.peak_live();
    writeln!(out, "Live at most: {most} after call {}; at the end: {}.", Count(call), replay.live())?;
    for (what, count) in replay.skipped().iter().chain(input.others()) {
        writeln!(out, "Not replayed as they are: {} {what}.", Count(*count))?;
    }
    if let Some(remark) = input.remark() {
        writeln!(out, "Not in the trace: {remark}.")?;
    }
    if let Some(head) = input.head() {
        report_head(&mut out, head, replay, cut)?;
    }
    let stats = replay.stats();
    if stats.len() > 1 {
        writeln!(out, "Both lists gave every block the same place.")?;
    }
    for (list, stats) in &stats {
        write!(out, "\n{list}:\n\n{}", Report(stats))?;
    }
    Ok(out)
}

/// The end of a recording, and the result of the comparison.
fn report_head(out: &mut String, head: &Head, replay: &Replay, cut: bool) -> Result<()> {
    match head.end {
        End::Open if cut => {}
        End::Open => writeln!(out, "The recording ended with its process.")?,
        End::Stopped => writeln!(out, "The recording was stopped by its program.")?,
        End::NoRoom => writeln!(out, "The recording is cut off: there was no room for more of it.")?,
    }
    match replay.compared() {
        Err(why) => writeln!(out, "Not compared with the recording: {why}.")?,
        Ok(compared) => writeln!(
            out,
            "The same as recorded: the offsets of {} requests, the hops of {}.",
            Count(compared.offsets),
            Count(compared.hops)
        )?,
    }
    Ok(())
}
