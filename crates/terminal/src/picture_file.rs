//! The file of a picture.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// A file that a picture will be written to. It is opened before the work begins, so that a path that cannot be written
/// is reported at once. It keeps its contents until there is a picture.
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

    /// Whether the path leads to this file. False for a device or a pipe.
    pub fn is_same_as(&self, path: &Path) -> bool {
        let (Ok(own), Ok(other)) = (self.0.metadata(), path.metadata()) else { return false };
        own.is_file() && (own.dev(), own.ino()) == (other.dev(), other.ino())
    }

    /// Replaces the contents. A device or a pipe, which cannot be truncated, just receives the picture.
    ///
    /// # Errors
    ///
    /// If the picture could not be written completely.
    pub fn replace(&self, picture: &[u8]) -> io::Result<()> {
        if self.0.metadata()?.is_file() {
            self.0.set_len(0)?;
        }
        (&self.0).write_all(picture)
    }
}
