//! Shows the heap of a running program, from another terminal: what it holds, its peaks and holes, calls a second, hops.
//!
//! The program says to which file it publishes, with `HEAP.publish_to(path)` or the environment variable `SMALLOC_LIVE`:
//!
//! ```sh
//! SMALLOC_LIVE=/tmp/heap.live cargo run --release --example ast
//! cargo run --release --example live -- /tmp/heap.live
//! ```

mod common;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use common::{Bytes, Count, Outcome};
use smalloc::{Live, LiveError, Published};

const HELP: &str = "\
Shows the heap of a running program that publishes to FILE: see SmallocGlobal::publish_to, or start it with the
environment variable SMALLOC_LIVE=FILE.

    cargo run --release --example live -- [OPTIONS] FILE

    --interval SECONDS   time between two looks (1)
    --once               look once and end
    --wait               wait for FILE if it is not there yet

On a terminal the numbers stay in place. Else, each look is a line. Ends when the program has ended.
";

struct Options {
    file: PathBuf,
    interval: Duration,
    once: bool,
    wait: bool,
}

fn main() -> std::process::ExitCode {
    common::main(run)
}

fn options() -> Outcome<Options> {
    use lexopt::prelude::*;
    let mut options =
        Options { file: PathBuf::new(), interval: Duration::from_secs(1), once: false, wait: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("interval") => options.interval = parser.value()?.parse_with(parse_seconds)?,
            Long("once") => options.once = true,
            Long("wait") => options.wait = true,
            Short('h') | Long("help") => common::help(HELP),
            Value(file) if options.file.as_os_str().is_empty() => options.file = file.into(),
            argument => return Err(argument.unexpected().into()),
        }
    }
    if options.file.as_os_str().is_empty() {
        return Err(lexopt::Error::from("which file? The one to which the program publishes").into());
    }
    Ok(options)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=3600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "it must be a number of seconds from 0.01 to 3600".into())
}

fn open(options: &Options) -> Outcome<Live> {
    loop {
        match Live::open(options.file.as_os_str().as_encoded_bytes()) {
            Err(LiveError::System { errno: libc::ENOENT }) if options.wait => {
                thread::sleep(Duration::from_millis(50))
            }
            opened => return opened.map_err(|error| format!("{}: {error}", options.file.display()).into()),
        }
    }
}

fn run() -> Outcome {
    let options = options()?;
    let live = open(&options)?;
    let name = program_name(&live);
    let terminal = io::stdout().is_terminal() && !options.once;
    let mut screen = Screen { terminal, lines: 0 };
    let mut last: Option<(Instant, Published)> = None;
    loop {
        // Asked for first: what a program wrote before its end is seen then.
        let ended = !runs(&live);
        let (now, published) = (Instant::now(), live.read());
        let rates = Rates::between(last.as_ref(), now, &published);
        if terminal || options.once {
            screen.show(&block(&live, &name, &published, rates))?;
        } else {
            screen.show(&line(&live, &published, rates))?;
        }
        if !published.whole {
            println!(
                "The program stands still, or was killed, while it wrote these: they may not fit together."
            );
        }
        if ended || published.stopped {
            let what = if ended { "has ended" } else { "has stopped publishing" };
            println!("The program {what}; these are its last numbers.");
            return Ok(());
        }
        if options.once {
            return Ok(());
        }
        last = Some((now, published));
        thread::sleep(options.interval);
    }
}

// ---- the process -------------------------------------------------------------------------------------------------

/// Whether the process that publishes is still there, and is not another one that got its number later.
fn runs(live: &Live) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{}/stat", live.process())) else { return false };
    // The name stands in brackets and may have any; 20 fields behind it is when the process started.
    let fields = status.rsplit_once(')').map_or("", |(_, fields)| fields);
    let state = fields.split_whitespace().next().unwrap_or("Z");
    let ticks = fields.split_whitespace().nth(19).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0);
    // SAFETY: the call has no conditions.
    let a_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    !matches!(state, "Z" | "X") && ticks / a_second <= live.began().as_secs_f64() + 0.05
}

fn program_name(live: &Live) -> String {
    let name = fs::read_to_string(format!("/proc/{}/comm", live.process())).unwrap_or_default();
    if name.trim().is_empty() { "?".to_owned() } else { name.trim().to_owned() }
}

fn uptime() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is valid for writes.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

// ---- the numbers -------------------------------------------------------------------------------------------------

/// What happened in a second, between two looks; none at the first.
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
        let told = published.at.saturating_sub(earlier.at).as_secs_f64().max(0.001);
        let rate = |count: u64, seconds: f64| (count as f64 / seconds).round() as u64;
        Some(Self {
            calls: rate(calls, looked),
            allocs: rate(delta.allocs, told),
            frees: rate(delta.frees, told),
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
    fn show(&mut self, text: &str) -> Outcome {
        let mut out = io::stdout().lock();
        if self.terminal {
            if self.lines > 0 {
                write!(out, "\x1b[{}A", self.lines)?;
            }
            // Each line clears what the last text had there, the last one all below.
            for line in text.lines() {
                writeln!(out, "{line}\x1b[K")?;
            }
            write!(out, "\x1b[J")?;
            self.lines = text.lines().count();
        } else {
            out.write_all(text.as_bytes())?;
        }
        out.flush()?;
        Ok(())
    }
}
