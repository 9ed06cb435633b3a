//! Measurements that need a process of their own: this program runs itself, with the decoded
//! calls in a file, and reads one number back.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use crate::report::Sample;
use crate::trace::Trace;

/// The calls of a trace in a file for children, removed when dropped.
pub struct Calls(PathBuf);

impl Calls {
    /// Writes the file.
    ///
    /// # Errors
    ///
    /// If the folder for temporary files cannot be written.
    pub fn store(trace: &Trace) -> io::Result<Self> {
        let calls =
            Self(env::temp_dir().join(format!("smalloc-bench-{}-{}.calls", process::id(), trace.name)));
        trace.store(&calls.0)?;
        Ok(calls)
    }

    /// The path of the file.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        // A temporary file that stays behind does no harm.
        let _ = fs::remove_file(&self.0);
    }
}

/// Runs this program with `command`, the allocator, the calls and `numbers`, and reads the number that it prints. A
/// child that fails says why on standard error, and its sample is missing.
///
/// # Errors
///
/// If the child cannot be started or prints something else.
pub fn measure(command: &str, allocator: &str, calls: &Calls, numbers: &[usize]) -> io::Result<Sample> {
    let mut child = Command::new(env::current_exe()?);
    run(child.args([command, allocator]).arg(calls.path()), allocator, numbers)
}

/// [`measure`] for a child that needs no calls.
///
/// # Errors
///
/// As for [`measure`].
pub fn number(command: &str, allocator: &str, numbers: &[usize]) -> io::Result<Sample> {
    run(Command::new(env::current_exe()?).args([command, allocator]), allocator, numbers)
}

fn run(child: &mut Command, allocator: &str, numbers: &[usize]) -> io::Result<Sample> {
    let output = child.args(numbers.iter().map(usize::to_string)).output()?;
    if !output.status.success() {
        eprintln!("{allocator}: {}", String::from_utf8_lossy(&output.stderr).trim());
        return Ok(Sample::Missing);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map(Sample::Full).map_err(io::Error::other)
}

/// The arguments of a child as [`measure`] passes them on: the allocator, the decoded calls and
/// `COUNT` numbers.
///
/// # Errors
///
/// If there are others, or the file cannot be read.
pub fn arguments<const COUNT: usize>(arguments: &[String]) -> io::Result<(&str, Trace, [usize; COUNT])> {
    let [allocator, calls, rest @ ..] = arguments else {
        return Err(io::Error::other("a child takes an allocator and a file of calls"));
    };
    let numbers: Result<Vec<usize>, _> = rest.iter().map(|number| number.parse()).collect();
    let numbers = numbers.map_err(io::Error::other)?.try_into();
    let numbers = numbers.map_err(|_| io::Error::other(format!("a child takes {COUNT} numbers")))?;
    Ok((allocator, Trace::load(Path::new(calls))?, numbers))
}
