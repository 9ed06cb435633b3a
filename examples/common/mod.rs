//! Code that the examples share: errors, options, the region's size, the files to read, and a progress bar.
//!
//! Each example uses a part of it.
#![allow(dead_code, reason = "no example uses all of it")]

use std::env;
use std::error::Error;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitCode};
use std::time::{Duration, Instant};

use smalloc::{MapOptions, Snapshot, Stats};
use smalloc_terminal::{Bytes, PictureFile};
use walkdir::{DirEntry, WalkDir};

/// The outcome of an example's `main` and its parts. The error is shown to the user as it is.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The variable from which a `SmallocGlobal` made by `new` takes its region's size.
const REGION_VARIABLE: &str = "SMALLOC_REGION";
/// The smallest `--region` in which an example can at least tell that it is too small.
const SMALLEST_REGION: usize = 1 << 20;
/// No system has larger pages than this by default.
const LARGEST_PAGE: usize = 64 << 10;
/// A larger number of files, keys or calls does not fit in memory, or is a typing error.
const LARGEST_COUNT: usize = 100_000_000;
/// The width of the progress bar, in characters.
const BAR_WIDTH: usize = 40;

// ---------------------------------------------------------------------------------------------- command line

/// Runs an example. An error is reported on one line, and the exit code is then 2.
pub(crate) fn main(run: impl FnOnce() -> Outcome) -> ExitCode {
    // A reader that leaves early, as `head` does, then ends the program quietly. Rust ignores the signal, so that
    // `println!` panics instead.
    // SAFETY: no other thread runs yet, and the default action calls no code of this program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // If the disk is full, `println!` panics too.
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| match info.payload().downcast_ref::<String>() {
        Some(message) if message.starts_with("failed printing to stdout") => {
            eprintln!("{}: {message}", program());
            process::exit(2);
        }
        _ => report(info),
    }));
    let Err(error) = run() else { return ExitCode::SUCCESS };
    eprintln!("{}: {error}", program());
    if error.is::<lexopt::Error>() {
        eprintln!("Its options: cargo run --release --example {} -- --help", program());
    }
    ExitCode::from(2)
}

/// Prints an example's help and ends the program.
pub(crate) fn help(text: &str) -> ! {
    print!("{text}");
    process::exit(0)
}

/// The name under which the program was started, without its directory.
fn program() -> String {
    let path = env::args_os().next().map(PathBuf::from).unwrap_or_default();
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Reads a number that is not 0, such as a number of files, threads or rounds.
pub(crate) fn parse_count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("it must be at least 1".into()),
        Ok(number) if number > LARGEST_COUNT => Err(format!("it can be {LARGEST_COUNT} at most")),
        Ok(number) => Ok(number),
        Err(_) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            Err(format!("it can be {LARGEST_COUNT} at most"))
        }
        Err(_) => Err("it must be a whole number".into()),
    }
}

/// Reads the seed of a generator of random numbers.
pub(crate) fn parse_seed(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "a seed is a whole number below 2^64".into())
}

/// Reads a number of files, which is not 0, or `all`.
pub(crate) fn parse_limit(text: &str) -> Result<usize, String> {
    if text == "all" { Ok(usize::MAX) } else { parse_count(text) }
}

/// Gives the program's global heap, whose region has `now` bytes, a region of `wanted` bytes, by starting the program
/// again.
///
/// The heap is mapped before `main` runs, because the runtime allocates before that. So an option comes too late for
/// it, and an environment variable does not. Returns when the program has been started again.
pub(crate) fn use_region(wanted: Option<usize>, now: usize) -> Outcome {
    let Some(wanted) = wanted else { return Ok(()) };
    if wanted < SMALLEST_REGION {
        let least = Bytes(SMALLEST_REGION);
        return Err(format!("--region: the heap of a program needs at least {least}").into());
    }
    let value = wanted.to_string();
    if env::var(REGION_VARIABLE).is_ok_and(|set| set == value) {
        // A region has whole pages; a difference of more than that is another region.
        let expected = wanted..=wanted.saturating_add(LARGEST_PAGE);
        let (now, wanted) = (Bytes(now), Bytes(wanted));
        return match expected.contains(&now.0) {
            true => Ok(()),
            false => Err(format!("--region: the heap could only get {now}, not {wanted}").into()),
        };
    }
    let itself = env::current_exe()?;
    let error = Command::new(itself).args(env::args_os().skip(1)).env(REGION_VARIABLE, value).exec();
    Err(format!("cannot start again with another region: {error}").into())
}

/// Reports that the heap is too small for a step that may take `need` bytes. Otherwise the program would end in the
/// middle of that step, with only the size of the failed allocation as a message.
pub(crate) fn ensure_room(stats: &Stats, need: usize, done: usize, total: usize) -> Outcome {
    if stats.free_bytes >= need {
        return Ok(());
    }
    let (size, free, need) = (Bytes(stats.region_size), Bytes(stats.free_bytes), Bytes(need));
    Err(format!(
        "the heap of {size} is too small: after {done} of {total} files {free} are free, and the next file may take \
         up to {need}; try a larger --region or a smaller --limit"
    )
    .into())
}

// --------------------------------------------------------------------------------------------------- files

/// The first `limit` files, in the order of their paths, that `wanted` accepts or that are roots themselves.
///
/// They lie in `roots`, or without roots in the sources that cargo keeps on this machine, or without those in the
/// sources of this crate.
pub(crate) fn find_files(
    roots: &[PathBuf],
    limit: usize,
    wanted: fn(&Path) -> bool,
) -> Outcome<Vec<PathBuf>> {
    let own = [PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    let cargo = cargo_sources();
    let choices: &[&[PathBuf]] = if roots.is_empty() { &[&cargo, &own] } else { &[roots] };
    for roots in choices {
        let files = files_below(roots, limit, wanted)?;
        if !files.is_empty() {
            return Ok(files);
        }
    }
    let places: Vec<_> = choices.concat().iter().map(|path| path.display().to_string()).collect();
    Err(format!("nothing to read in {}", places.join(", ")).into())
}

/// The directories in which cargo keeps the sources of dependencies.
fn cargo_sources() -> Vec<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(env::home_dir()?.join(".cargo"))).unwrap_or_default();
    let places = [home.join("registry/src"), home.join("git/checkouts")];
    places.into_iter().filter(|path| path.is_dir()).collect()
}

/// The first `limit` wanted files below `roots`. A root must exist. Files further down that cannot be read are left
/// out.
fn files_below(roots: &[PathBuf], limit: usize, wanted: fn(&Path) -> bool) -> Outcome<Vec<PathBuf>> {
    let mut files = Vec::new();
    for root in roots {
        fs::metadata(root).map_err(|error| format!("cannot read {}: {error}", root.display()))?;
        let entries = WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(is_source);
        let entries = entries.filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
        let entries = entries.filter(|entry| entry.depth() == 0 || wanted(entry.path()));
        files.extend(entries.map(DirEntry::into_path).take(limit - files.len()));
    }
    Ok(files)
}

/// Whether an entry can lead to sources: below a root, hidden directories and build output cannot.
fn is_source(entry: &DirEntry) -> bool {
    let name = entry.file_name().as_encoded_bytes();
    entry.depth() == 0 || !(entry.file_type().is_dir() && (name.starts_with(b".") || name == b"target"))
}

/// Whether a path's name ends in one of these.
pub(crate) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|extension| extensions.iter().any(|&one| extension == one))
}

/// A file for a picture of the heap, or the terminal.
pub(crate) struct MapFile {
    path: PathBuf,
    /// None for standard output.
    file: Option<PictureFile>,
}

impl MapFile {
    /// Opens the file. `-` is standard output.
    pub(crate) fn create(path: PathBuf) -> Outcome<Self> {
        let file = match path.as_os_str() == "-" {
            true => None,
            false => Some(PictureFile::open(&path).map_err(|error| unwritable(&path, &error))?),
        };
        Ok(Self { path, file })
    }

    /// Draws the heap at the time of `snapshot`.
    pub(crate) fn draw(self, snapshot: &Snapshot) -> Outcome {
        let Some(file) = self.file else {
            print!("\n{}", smalloc_terminal::map_text(snapshot)?);
            return Ok(());
        };
        let mut picture = String::new();
        snapshot.write_map_svg(&mut picture, MapOptions::svg())?;
        file.replace(picture.as_bytes()).map_err(|error| unwritable(&self.path, &error))?;
        println!("\nThe map of this heap is in {}.", self.path.display());
        Ok(())
    }
}

fn unwritable(path: &Path, error: &io::Error) -> String {
    format!("--map: cannot write {}: {error}", path.display())
}

// ----------------------------------------------------------------------------------------------- progress bar

/// A bar on stderr that shows the progress of a long task, if stderr is a terminal.
///
/// It appears after half a second, disappears when it is dropped, and never allocates: the heap that the example
/// describes is the same with and without it.
pub(crate) struct Progress {
    what: &'static str,
    total: usize,
    done: usize,
    started: Instant,
    next: Duration,
    terminal: bool,
    shown: bool,
}

impl Progress {
    /// A bar for a task of `total` steps.
    pub(crate) fn new(what: &'static str, total: usize) -> Self {
        let (started, next) = (Instant::now(), Duration::from_millis(500));
        Self { what, total, done: 0, started, next, terminal: io::stderr().is_terminal(), shown: false }
    }

    /// Advances the bar by `steps` steps.
    pub(crate) fn step(&mut self, steps: usize) {
        self.reach(self.done + steps);
    }

    /// Sets the bar to `done` steps.
    pub(crate) fn reach(&mut self, done: usize) {
        self.done = done;
        if self.terminal && self.started.elapsed() >= self.next {
            self.next = self.started.elapsed() + Duration::from_millis(100);
            self.shown = true;
            self.draw();
        }
    }

    /// Makes room for a line on stdout; the next step shows the bar again.
    pub(crate) fn hide(&mut self) {
        if self.shown {
            self.shown = false;
            // If the terminal is gone, only the bar is lost.
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }

    fn draw(&self) {
        let (done, total) = (self.done.min(self.total), self.total.max(1));
        let filled = done * BAR_WIDTH / total;
        let left = self.started.elapsed().as_secs_f64() * (total - done) as f64 / done.max(1) as f64;
        let _ = write!(
            io::stderr().lock(),
            "\r{:>10} [{:#<filled$}{:-<rest$}] {done} of {total}, {left:.0} s left\x1b[K",
            self.what,
            "",
            "",
            rest = BAR_WIDTH - filled,
        );
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.hide();
    }
}
