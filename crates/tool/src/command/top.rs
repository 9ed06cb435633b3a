//! `smalloc top`: shows the heap of a running program on another terminal.
//!
//! The program publishes its numbers to a file, by `HEAP.publish_to(path)` or the environment variable `SMALLOC_LIVE`.

use std::fs;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueHint;
use clap::builder::ValueParser;
use rustix::io::Errno;
use rustix::time::ClockId;
use smalloc::{Live, LiveError, Published};
use smalloc_terminal::{Bytes, Count};

use crate::output::{PrintError, print};

const EXAMPLES: &str = "\
On a terminal the numbers stay in place. Else, each look is a line. Ends when the program has ended.

Examples:
  SMALLOC_LIVE=/tmp/heap.live ./program & smalloc top --wait /tmp/heap.live
  smalloc top --once /tmp/heap.live
  smalloc top --interval 0.5 /tmp/heap.live | cat";

/// Show the heap of a running program: what it holds, its peaks and holes, calls a second, hops.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The file to which the program publishes: start it with the environment variable SMALLOC_LIVE=FILE, or see
    /// SmallocGlobal::publish_to
    #[arg(value_hint = ValueHint::FilePath)]
    file: PathBuf,
    /// Time between two updates
    #[arg(long, value_name = "SECONDS", default_value = "1", overrides_with = "interval")]
    #[arg(value_parser = ValueParser::new(parse_seconds))]
    interval: Duration,
    /// Print once and end
    #[arg(long, overrides_with = "once")]
    once: bool,
    /// Wait for FILE if it is not there yet
    #[arg(long, overrides_with = "wait")]
    wait: bool,
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "it must be a number of seconds from 0.01 to 3600".into())
}

/// Shows the numbers until the program ends.
///
/// # Errors
///
/// If the file does not exist, or is not a page that a heap publishes to.
pub fn run(args: &Args) -> Result<()> {
    let live = open(args)?;
    let name = program_name(&live);
    let terminal = io::stdout().is_terminal() && !args.once;
    let mut screen = Screen { terminal, lines: 0 };
    let mut last: Option<(Instant, Published)> = None;
    loop {
        // Checked first, so that the numbers which a program wrote before its end are still shown.
        let ended = !runs(&live);
        let (now, published) = (Instant::now(), live.read());
        let rates = Rates::between(last.as_ref(), now, &published);
        if terminal || args.once {
            screen.show(&block(&live, &name, &published, rates))?;
        } else {
            screen.show(&line(&live, &published, rates))?;
        }
        if !published.whole {
            print(
                "The program stands still, or was killed, while it wrote these: they may not fit together.\n",
            )?;
        }
        if ended || published.stopped {
            let what = if ended { "has ended" } else { "has stopped publishing" };
            print(format!("The program {what}; these are its last numbers.\n"))?;
            return Ok(());
        }
        if args.once {
            return Ok(());
        }
        last = Some((now, published));
        thread::sleep(args.interval);
    }
}

fn open(args: &Args) -> Result<Live> {
    loop {
        match Live::open(args.file.as_os_str().as_encoded_bytes()) {
            Err(LiveError::System { errno }) if args.wait && errno == Errno::NOENT.raw_os_error() => {
                thread::sleep(Duration::from_millis(50));
            }
            opened => return opened.with_context(|| args.file.display().to_string()),
        }
    }
}

// ---- the process -------------------------------------------------------------------------------------------------

/// Whether the publishing process still runs, and is not another one that got its number later.
fn runs(live: &Live) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{}/stat", live.process())) else { return false };
    // The name stands in brackets and may contain any characters; 20 fields behind it is the time at which the process
    // started.
    let fields = status.rsplit_once(')').map_or("", |(_, fields)| fields);
    let state = fields.split_whitespace().next().unwrap_or("Z");
    let ticks = fields.split_whitespace().nth(19).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    let a_second = rustix::param::clock_ticks_per_second() as f64;
    !matches!(state, "Z" | "X") && ticks / a_second <= live.began().as_secs_f64() + 0.05
}

fn program_name(live: &Live) -> String {
    let name = fs::read_to_string(format!("/proc/{}/comm", live.process())).unwrap_or_default();
    if name.trim().is_empty() { "?".to_owned() } else { name.trim().to_owned() }
}

fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

// ---- the numbers -------------------------------------------------------------------------------------------------

/// Calls per second between two updates. The first update has none.
#[derive(Clone, Copy)]
struct Rates {
    calls: u64,
    allocs: u64,
    frees: u64,
}

impl Rates {
    fn between(last: Option<&(Instant, Published)>, now: Instant, published: &Published) -> Option<Self> {
        let (then, earlier) = last?;
        let calls = published.calls.saturating_sub(earlier.calls);
        let delta = published.stats.since(&earlier.stats);
        let looked = now.duration_since(*then).as_secs_f64().max(0.001);
        let seconds = published.at.saturating_sub(earlier.at).as_secs_f64().max(0.001);
        let rate = |count: u64, seconds: f64| (count as f64 / seconds).round() as u64;
        Some(Self {
            calls: rate(calls, looked),
            allocs: rate(delta.allocs, seconds),
            frees: rate(delta.frees, seconds),
        })
    }
}

fn block(live: &Live, name: &str, published: &Published, rates: Option<Rates>) -> String {
    let since = uptime().saturating_sub(live.began()).as_secs_f64();
    let (used, top) = (Bytes(published.used_bytes), Bytes(published.top));
    let calls = match rates {
        Some(Rates { calls, allocs, frees }) => {
            format!("{} a second: {} allocs, {} frees", Count(calls), Count(allocs), Count(frees))
        }
        None => format!("{} since", Count(published.calls)),
    };
    let behind = match published.calls_since {
        0 => String::new(),
        calls => format!(" {} calls ago", Count(calls)),
    };
    format!(
        "process {} ({name}), list {}, publishing for {since:.1} s\n  now         used {used}, top {top}\n  \
         calls       {calls}\n\n{}\n{}",
        live.process(),
        live.list(),
        published.stats,
        if behind.is_empty() { String::new() } else { format!("  (the block:{behind})\n") },
    )
}

fn line(live: &Live, published: &Published, rates: Option<Rates>) -> String {
    let since = uptime().saturating_sub(live.began()).as_secs_f64();
    let stats = &published.stats;
    format!(
        "{since:8.1} s  used {:>9}  top {:>9}  holes {:>9}, largest {:>9}  calls {:>14}  a second {:>12}\n",
        Bytes(published.used_bytes),
        Bytes(published.top),
        Count::from(stats.holes()),
        Bytes(stats.largest_hole),
        Count(published.calls),
        rates.map_or("-".to_owned(), |rates| Count(rates.calls).to_string()),
    )
}

// ---- the terminal ------------------------------------------------------------------------------------------------

struct Screen {
    terminal: bool,
    /// Lines of the last text, which the next one replaces.
    lines: usize,
}

impl Screen {
    fn show(&mut self, text: &str) -> Result<(), PrintError> {
        if !self.terminal {
            return print(text);
        }
        let mut all = String::new();
        if self.lines > 0 {
            all += &format!("\x1b[{}A", self.lines);
        }
        // Each line clears the rest of the old line, the last one everything below.
        text.lines().for_each(|line| all += &format!("{line}\x1b[K\n"));
        all += "\x1b[J";
        self.lines = text.lines().count();
        print(all)
    }
}
