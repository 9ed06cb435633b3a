//! Standard output and standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;

use thiserror::Error;

/// Why something could not be printed.
#[derive(Debug, Error)]
pub(crate) enum PrintError {
    /// The reader has seen enough, as `head` has: no error, and no reason to go on.
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

/// Tells on standard error what is wrong with a subcommand.
pub(crate) fn complain(command: &str, error: &dyn Display) {
    // If standard error is closed, there is no one to tell.
    let _ = writeln!(io::stderr(), "smalloc {command}: {error:#}");
}

/// The name of a trace, for pictures and pages.
pub(crate) fn name(trace: &Path) -> String {
    match trace.file_name().unwrap_or(trace.as_os_str()).to_string_lossy() {
        name if name == "-" => "standard input".to_owned(),
        name => name.replace(char::is_control, " "),
    }
}
