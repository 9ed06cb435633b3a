//! Whole programs: processor time and peak resident memory of the examples' work, with each allocator as the global
//! one.
//!
//! A global allocator is chosen at compile time, so there is a binary for each in `src/bin`. Each run is a process of
//! its own, and the system's statistics of it are read: user and system time, and the most memory that was resident at
//! one time, the program's own code included.

use std::env;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::options::Options;
use crate::report::{Comparison, Sample, Session, interleave};

/// The allocators for which there is a binary.
const ALLOCATORS: [&str; 4] = ["smalloc", "system", "mimalloc", "jemalloc"];

/// The name of each line, and the arguments of the binaries. The first two also get the paths of the command line.
const PROGRAMS: [(&str, &[&str]); 4] = [
    ("ast", &["ast"]),
    ("words", &["words"]),
    ("cache, 1 thread", &["cache", "1000000", "1"]),
    ("cache, 4 threads", &["cache", "1000000", "4"]),
];

const MIB: f64 = (1 << 20) as f64;

/// Resources that a process has used, once it has ended.
#[derive(Clone, Copy)]
struct Usage {
    /// User and system time of all its threads.
    time: Duration,
    /// The most resident memory, in bytes.
    resident: usize,
}

impl Usage {
    /// Runs `command` to its end.
    ///
    /// # Errors
    ///
    /// If it cannot be started, or does not succeed.
    fn of(command: &mut Command) -> io::Result<Self> {
        let process = command.stdout(Stdio::null()).spawn()?.id().cast_signed();
        let mut status = 0;
        // SAFETY: a structure of numbers, for which zeros are valid.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both may be written, and the process is a child that nothing else waits for.
        while unsafe { libc::wait4(process, &raw mut status, 0, &raw mut usage) } < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
        if !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0 {
            return Err(io::Error::other(format!("{command:?} did not succeed")));
        }
        let time = duration(usage.ru_utime) + duration(usage.ru_stime);
        Ok(Self { time, resident: usize::try_from(usage.ru_maxrss).map_err(io::Error::other)? << 10 })
    }
}

fn duration(time: libc::timeval) -> Duration {
    Duration::from_secs(time.tv_sec.cast_unsigned()) + Duration::from_micros(time.tv_usec.cast_unsigned())
}

/// Measures every program with every allocator that has a binary.
///
/// # Errors
///
/// If the binaries cannot be built, a program does not succeed, or a file cannot be written.
pub fn run(options: &Options) -> io::Result<()> {
    let only: Vec<&str> = options.only.iter().copied().filter(|name| ALLOCATORS.contains(name)).collect();
    if only.is_empty() {
        return Err(io::Error::other(format!("programs: the allocators are {}", ALLOCATORS.join(", "))));
    }
    let folder = env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default();
    let binary = |allocator: &str| folder.join(format!("programs-{allocator}"));
    build(&only)?;
    let mut time =
        Comparison::new("programs-time", "user and system time, s", &only, &options.base).with_decimals(3);
    let mut memory = Comparison::new("programs-memory", "peak resident memory, MiB", &only, &options.base);
    for (name, arguments) in PROGRAMS {
        let paths: &[String] = if arguments.len() == 1 { &options.arguments } else { &[] };
        let usages = measure(
            only.iter().map(|allocator| binary(allocator)),
            (arguments, paths),
            options.rounds_or(7),
        )?;
        let samples = |number: fn(&Usage) -> f64| {
            usages
                .iter()
                .map(|rounds| rounds.iter().map(|usage| Sample::Full(number(usage))).collect())
                .collect()
        };
        time.push(name, samples(|usage| usage.time.as_secs_f64()));
        memory.push(name, samples(|usage| usage.resident as f64 / MIB));
    }
    time.finish(options.out.as_deref())?;
    memory.finish(options.out.as_deref())
}

/// Builds the binaries of these allocators beside this one.
fn build(allocators: &[&str]) -> io::Result<()> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--quiet"]);
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    for allocator in allocators {
        cargo.args(["--bin", &format!("programs-{allocator}")]);
    }
    match cargo.status()? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("{cargo:?}: {status}"))),
    }
}

/// The resources that the binaries use for `arguments`, by binary, then by round.
fn measure(
    binaries: impl Iterator<Item = PathBuf>,
    (arguments, paths): (&[&str], &[String]),
    rounds: usize,
) -> io::Result<Vec<Vec<Usage>>> {
    let session = |binary: PathBuf| -> Session<'_, io::Result<Usage>> {
        Box::new(move || Usage::of(Command::new(&binary).args(arguments).args(paths)))
    };
    let mut sessions: Vec<_> = binaries.map(session).collect();
    interleave(&mut sessions, rounds).into_iter().map(|results| results.into_iter().collect()).collect()
}
