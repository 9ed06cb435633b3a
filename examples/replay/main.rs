//! Replays a trace on a heap: a recording of smalloc, which must come to the same call by call, or what other tools
//! have recorded of any program. Says what became of it, and draws it.

mod android;
mod bitmap;
mod call;
mod charts;
#[path = "../common/mod.rs"]
mod common;
mod heaptrack;
mod input;
mod mtrace;
mod player;
mod raster;
mod recording;
mod script;
mod series;

use std::error::Error;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use common::{Bytes, Count, List, Outcome};
use input::Input;
use lexopt::prelude::*;
use raster::Raster;
use script::{Change, Script, Step};
use series::{Series, Sizes};
use smalloc::recording::{End, Head};
use smalloc::{MapOptions, Snapshot};

/// The region for a trace that does not tell its size.
const REGION: usize = 32 << 30;

const HELP: &str = "\
Replay a trace of allocations on a heap, say what became of it, and draw it.

usage: replay [OPTIONS] FILE

  FILE             a recording of smalloc, or the text of Android's
                   memory_replay, of `heaptrack --raw` or of glibc's mtrace,
                   plain or gzipped; - is standard input
  --list LIST      linked, indexed or both [default: that of the recording,
                   or indexed]
  --region SIZE    the size of the heap [default: that of the recording, or
                   32G, of which only what is used takes memory]
  --of N           which region, from 0 on, of a recording of several
  --raster FILE    draw address over time, as PNG
  --hops FILE      draw hops and holes over time, as SVG
  --memory FILE    draw live and used bytes, top and footprint over time, as SVG
  --map FILE       draw where the segments lie, as SVG; - is the terminal
  --holes FILE     draw the sizes of the holes, as SVG
  --at N           draw map and holes as they are after call N [default: at
                   the end]
  -h, --help       print this

A recording of smalloc is compared with its replay, call by call: the offsets,
and with the list that was recorded the hops. With another --region it is not.
";

/// The pictures that can be asked for, by their options.
const PICTURES: [&str; 5] = ["raster", "hops", "memory", "map", "holes"];

struct Options {
    trace: PathBuf,
    lists: Vec<List>,
    region: Option<usize>,
    of: Option<u16>,
    pictures: Vec<Picture>,
    at: Option<u64>,
}

/// A picture, whose file is made before the work begins, so that a path that cannot be written is told at once. What is in
/// it stays until there is a picture.
struct Picture {
    option: &'static str,
    path: PathBuf,
    /// None for a map on the terminal.
    file: Option<File>,
}

impl Picture {
    /// `others` are pictures that have a file already.
    fn create(option: &'static str, path: PathBuf, trace: &Path, others: &[Self]) -> Outcome<Self> {
        if option == "map" && path.as_os_str() == "-" {
            return Ok(Self { option, path, file: None });
        }
        let refused = |error| format!("--{option}: cannot write {}: {error}", path.display());
        let file = common::open_to_write(&path).map_err(|error| refused(error.to_string()))?;
        let own = file.metadata()?;
        let is_own =
            |other: fs::Metadata| own.is_file() && (other.dev(), other.ino()) == (own.dev(), own.ino());
        if trace.metadata().is_ok_and(is_own) {
            return Err(refused("it is the trace".into()).into());
        }
        let mut files = others.iter().filter_map(|other| Some((other.option, other.file.as_ref()?)));
        if let Some((other, _)) = files.find(|(_, file)| file.metadata().is_ok_and(is_own)) {
            return Err(refused(format!("--{other} is drawn there")).into());
        }
        Ok(Self { option, path, file: Some(file) })
    }

    /// Draws it, if it has a file.
    fn write(&self, replay: &Replay, name: &str) -> Outcome {
        let Some(file) = &self.file else { return Ok(()) };
        common::write_over(file, &replay.draw(self.option, name)?).map_err(|error| {
            format!("--{}: cannot write {}: {error}", self.option, self.path.display()).into()
        })
    }

    /// Says where the picture is, or shows it.
    fn tell(&self, snapshot: Option<&Snapshot>) -> Outcome {
        match snapshot {
            Some(snapshot) if self.file.is_none() => common::print_map(snapshot),
            _ => {
                println!("The picture for --{} is in {}.", self.option, self.path.display());
                Ok(())
            }
        }
    }
}

fn options() -> Outcome<Options> {
    let mut trace = None;
    let (mut lists, mut region, mut of, mut pictures, mut at) = (Vec::new(), None, None, Vec::new(), None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => common::help(HELP),
            Long("list") => lists = parser.value()?.parse_with(parse_lists)?,
            Long("region") => region = Some(parser.value()?.parse_with(common::parse_size)?),
            Long("of") => of = Some(parser.value()?.parse_with(parse_region)?),
            Long("at") => at = Some(parser.value()?.parse_with(common::parse_count)? as u64),
            Long(name) => match PICTURES.into_iter().find(|&option| option == name) {
                Some(option) => pictures.push((option, parser.value()?)),
                None => return Err(argument.unexpected().into()),
            },
            Value(path) if trace.is_none() => trace = Some(PathBuf::from(path)),
            _ => return Err(argument.unexpected().into()),
        }
    }
    let trace = trace.ok_or_else(|| lexopt::Error::from("which trace is missing"))?;
    let mut created = Vec::new();
    for (option, path) in pictures {
        created.push(Picture::create(option, path.into(), &trace, &created)?);
    }
    Ok(Options { trace, lists, region, of, pictures: created, at })
}

fn parse_region(text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| "it is the number of a region, from 0 on".into())
}

fn parse_lists(text: &str) -> Result<Vec<List>, String> {
    match text {
        "both" => Ok(vec![List::Linked, List::Indexed]),
        one => one.parse().map(|list| vec![list]).map_err(|_| "it is linked, indexed or both".into()),
    }
}

fn main() -> ExitCode {
    common::main(|| {
        let options = options()?;
        let mut input = Input::open(&options.trace)?;
        input.choose(options.of)?;
        let head = input.head().copied();
        let region = options.region.or(head.map(|head| head.region_size)).unwrap_or(REGION);
        let heaps = heaps(&options.lists, head.as_ref(), region)?;
        // What was asked for may be more or less than a heap can have.
        let region = heaps.first().map_or(region, |heap| heap.stats().region_size);
        let comparable = head.as_ref().filter(|head| incomparable(head, region).is_none());
        let mut replay = Replay::new(Script::new(heaps, comparable), options.at);
        let unread = replay.run(&mut input)?;
        let name = options.trace.file_name().unwrap_or(options.trace.as_os_str()).to_string_lossy();
        let name = if name == "-" { "standard input".into() } else { name.replace(char::is_control, " ") };
        // The pictures come first: whoever reads the report may leave before its end, as `head` does.
        let drawn: Vec<Outcome> =
            options.pictures.iter().map(|picture| picture.write(&replay, &name)).collect();
        replay.report(&input, head.as_ref(), region, unread.is_some());
        let told = options.pictures.iter().zip(drawn);
        let told = told.map(|(picture, drawn)| drawn.and_then(|()| picture.tell(replay.snapshot.as_ref())));
        let mut wrong: Vec<_> = unread.into_iter().chain(told.filter_map(Outcome::err)).collect();
        let last = wrong.pop();
        wrong.iter().for_each(|error| common::complain(&**error));
        last.map_or(Ok(()), Err)
    })
}

/// A heap for each list that is asked for.
fn heaps(lists: &[List], head: Option<&Head>, region: usize) -> Outcome<Vec<Box<dyn player::Player>>> {
    let recorded = head.and_then(|head| head.list().parse().ok()).unwrap_or(List::Indexed);
    let lists = if lists.is_empty() { &[recorded] } else { lists };
    let heaps = lists.iter().map(|&list| Ok(player::player(list, region)?));
    heaps.collect()
}

/// Why a recording is not compared with its replay; none if it is.
fn incomparable(head: &Head, region: usize) -> Option<String> {
    if head.hardened {
        return Some("it was made with the feature `hardened`, which places differently".into());
    }
    let recorded = head.region_size;
    (region != recorded)
        .then(|| format!("its heap was of {}, this one is of {}", Bytes(recorded), Bytes(region)))
}

/// A replay, and what is drawn of it.
struct Replay {
    script: Script,
    raster: Raster,
    series: Series,
    at: Option<u64>,
    snapshot: Option<Snapshot>,
}

impl Replay {
    fn new(script: Script, at: Option<u64>) -> Self {
        let series = Series::new(script.players.len());
        Self { script, raster: Raster::new(), series, at, snapshot: None }
    }

    /// Goes through the trace. What of it cannot be read ends it, and is returned, if anything was replayed until then.
    fn run(&mut self, input: &mut Input) -> Outcome<Option<Box<dyn Error>>> {
        let mut step = Step::default();
        let mut unread = None;
        loop {
            let event = match input.next() {
                Ok(Some(event)) => event,
                Ok(None) => break,
                Err(error) if self.script.calls == 0 => return Err(error),
                Err(error) => {
                    unread = Some(error);
                    break;
                }
            };
            let before = self.script.calls;
            self.script.play(event, &mut step)?;
            step.changes.iter().for_each(|&change| self.raster.change(change));
            let call = self.script.calls;
            let reached = step.changes.iter().filter(|change| change.in_use).map(Change::end).max();
            let sizes = Sizes {
                live: self.script.live,
                used: self.script.used,
                top: reached.unwrap_or(0),
                ..Sizes::default()
            };
            if call == before {
                self.series.start(sizes);
                continue;
            }
            self.raster.tick();
            let player = &self.script.players[0];
            self.series.tick(call, &step.hops, sizes, || Sizes::of(&player.stats()));
            if self.at == Some(call) {
                self.snapshot = Some(player.snapshot()?);
            }
        }
        self.series.finish(Sizes::of(&self.script.players[0].stats()));
        for player in &self.script.players {
            player.check()?;
        }
        match self.at {
            Some(at) if self.snapshot.is_none() => {
                unread.iter().for_each(|error| common::complain(&**error));
                return Err(format!("--at {at}: there are only {} calls", Count(self.script.calls)).into());
            }
            Some(_) => {}
            None => self.snapshot = Some(self.script.players[0].snapshot()?),
        }
        Ok(unread)
    }

    fn report(&self, input: &Input, head: Option<&Head>, region: usize, cut: bool) {
        let script = &self.script;
        println!("Replayed {} calls of {}.", Count(script.calls), input.format());
        if cut {
            println!("The rest of it cannot be read: all that follows is of these calls.");
        }
        println!(
            "Live at most: {} after call {}; at the end: {}.",
            Bytes(script.peak_live.0),
            Count(script.peak_live.1),
            Bytes(script.live)
        );
        for (what, count) in script.skipped.iter().chain(&input.others) {
            println!("Not replayed as they are: {} {what}.", Count(*count));
        }
        if let Some(head) = head {
            print_head(head, region, &script.compared, cut);
        }
        if script.players.len() > 1 {
            println!("Both lists gave every block the same place.");
        }
        for player in &script.players {
            println!("\n{}:", player.list());
            common::print_heap(&player.stats());
        }
    }

    /// What a picture's file is to hold.
    fn draw(&self, option: &str, name: &str) -> Outcome<Vec<u8>> {
        let mut text = String::new();
        match (option, &self.snapshot) {
            ("raster", _) => {
                let mut bytes = Vec::new();
                self.raster.clone().write(name, &mut bytes)?;
                return Ok(bytes);
            }
            ("hops", _) => {
                let players = self.script.players.iter();
                let stats: Vec<_> = players.map(|player| (player.list(), player.stats())).collect();
                text = charts::hops(&self.series, &stats, name)?;
            }
            ("memory", _) => text = charts::memory(&self.series, name)?,
            ("map", Some(snapshot)) => snapshot.write_map_svg(&mut text, MapOptions::svg())?,
            ("holes", Some(snapshot)) => snapshot.write_holes_svg(&mut text)?,
            _ => {}
        }
        Ok(text.into_bytes())
    }
}

/// How a recording ended, and what came of the comparison.
fn print_head(head: &Head, region: usize, compared: &script::Compared, cut: bool) {
    match head.end {
        End::Open if cut => {}
        End::Open => println!("The recording ended with its process."),
        End::Stopped => println!("The recording was stopped by its program."),
        End::NoRoom => println!("The recording is cut off: there was no room for more of it."),
    }
    match incomparable(head, region) {
        Some(why) => println!("Not compared with the recording: {why}."),
        None => println!(
            "The same as recorded: the offsets of {} requests, the hops of {}.",
            Count(compared.offsets),
            Count(compared.hops)
        ),
    }
}
