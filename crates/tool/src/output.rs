//! Standard output, standard error, and files.

use std::fmt::Display;
use std::fs::Permissions;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Result, ensure};
use tempfile::Builder;
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

/// Writes a file of that path: beside it at first, and in its place once all of it is there. Standard output for `-`; a
/// device or a pipe is written to as it is. An error leaves the file as it was.
///
/// # Errors
///
/// If the file cannot be written, is `input`, or `write` fails.
pub(crate) fn replace_file(
    path: &Path,
    input: &Path,
    write: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<()> {
    if path.as_os_str() == "-" {
        return to_stream(io::stdout().lock(), write);
    }
    let before = path.metadata().ok();
    if before.as_ref().is_some_and(|file| !file.is_file()) {
        return to_stream(std::fs::File::options().write(true).open(path)?, write);
    }
    if let (Some(before), Ok(input)) = (&before, input.metadata()) {
        ensure!((before.dev(), before.ino()) != (input.dev(), input.ino()), "it is the trace");
    }
    // A link stays, and the file that it leads to is replaced.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As for any new file, the process's mask takes from these permissions.
    let permissions = before.map_or(Permissions::from_mode(0o666), |before| before.permissions());
    let mut file = Builder::new().prefix(".smalloc-").permissions(permissions).tempfile_in(folder)?;
    let mut out = BufWriter::new(file.as_file_mut());
    write(&mut out)?;
    out.flush()?;
    drop(out);
    file.persist(path)?;
    Ok(())
}

fn to_stream(stream: impl Write, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut out = BufWriter::new(stream);
    write(&mut out)?;
    Ok(out.flush()?)
}
