//! Standard output and standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use thiserror::Error;

/// The reason why something could not be printed.
#[derive(Debug, Error)]
pub(crate) enum PrintError {
    /// The reader has read enough, as `head` has: not an error, but a reason to stop.
    #[error("nobody reads standard output any more")]
    ReaderLeft,
    #[error("failed printing to stdout: {0}")]
    Failed(#[from] io::Error),
}

/// Prints to standard output at once.
pub(crate) fn print(text: impl AsRef<[u8]>) -> Result<(), PrintError> {
    let mut out = io::stdout().lock();
    let printed = out.write_all(text.as_ref()).and_then(|()| out.flush());
    printed.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => PrintError::ReaderLeft,
        _ => PrintError::Failed(error),
    })
}

/// Reports an error of a subcommand on standard error.
pub(crate) fn complain(command: &str, error: &dyn Display) {
    // If standard error is closed, the message is lost.
    let _ = writeln!(io::stderr(), "smalloc {command}: {error:#}");
}

/// The name of a trace, for pictures and pages.
pub(crate) fn name(trace: &Path) -> String {
    match trace.file_name().unwrap_or(trace.as_os_str()).to_string_lossy() {
        name if name == "-" => "standard input".to_owned(),
        name => name.replace(char::is_control, " "),
    }
}
