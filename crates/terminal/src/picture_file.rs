//! The file of a picture.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::path::Path;

/// A file that a picture will be written to. It is opened before the work begins, so that a path that cannot be written
/// is reported at once, and keeps its contents until there is a picture.
pub struct PictureFile(File);

impl PictureFile {
    /// Opens the file, or creates it empty.
    ///
    /// # Errors
    ///
    /// If it cannot be opened for writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::options().write(true).create(true).truncate(false).open(path).map(Self)
    }

    /// The file's metadata, which tell whether two paths name the same file.
    ///
    /// # Errors
    ///
    /// If the system does not tell them.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.0.metadata()
    }

    /// Replaces the contents. A device or a pipe, which cannot be truncated, just receives the picture.
    ///
    /// # Errors
    ///
    /// If not all of it could be written.
    pub fn replace(&self, picture: &[u8]) -> io::Result<()> {
        if self.metadata()?.is_file() {
            self.0.set_len(0)?;
        }
        (&self.0).write_all(picture)
    }
}
