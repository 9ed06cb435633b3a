//! Files of tests.

use std::path::PathBuf;
use std::{env, fs};

/// A folder for the files of one test, which is removed with it.
pub struct Folder(PathBuf);

impl Folder {
    /// `name` is different in each test of a program.
    pub fn new(name: &str) -> Self {
        let program = env!("CARGO_CRATE_NAME");
        let path = env::temp_dir().join(format!("smalloc-{program}-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a name in Unicode").to_owned()
    }

    /// A file with these contents.
    pub fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, contents).expect("a file can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // An error leaves files behind in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}
