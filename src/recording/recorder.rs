//! Writing a recording. Nothing here allocates, and `errno` is the caller's to keep.

use super::format::{End, Head, MAGIC, Record};
use crate::region::InitError;
use crate::system::append_file::AppendFile;
use crate::system::environment;
use crate::system::errno::Reason;
use crate::system::fatal::say;
use crate::system::path::Path;
use core::fmt;

/// What a recording came to; see [`SmallocGlobal::stop_recording`](crate::SmallocGlobal::stop_recording).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// How many records are in it.
    pub records: u64,
    /// Whether every call until now is in it. If not, there was no room for more: the disk is full, the file may not be
    /// larger, or the program has closed it.
    pub complete: bool,
}

/// Why there is no recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// This heap is being recorded already.
    AlreadyRecording,
    /// Another heap or another process is being recorded to that file.
    InUse,
    /// There is a file, and it is no recording: it stays as it is.
    OtherFile,
    /// The path holds a zero byte, or is longer than the system's paths.
    BadPath,
    /// The file cannot be made, mapped or written to, for the reason of this `errno`.
    System {
        /// The system's error number.
        errno: i32,
    },
    /// There is no region to record.
    NoRegion(InitError),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRecording => f.write_str("the heap is being recorded already"),
            Self::InUse => f.write_str("another heap or process is being recorded to that file"),
            Self::OtherFile => f.write_str("there is a file that is no recording"),
            Self::BadPath => f.write_str("no file can have that path"),
            Self::System { errno } => Reason(*errno).fmt(f),
            Self::NoRegion(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RecordError {}

/// What a heap is recorded by, if it is.
pub(crate) struct Recorder {
    log: Option<AppendFile>,
    head: Head,
    /// Records written; how many there were once the log has been closed.
    records: u64,
    /// Whether a recording has ended by itself, and nobody has been told.
    ended: bool,
}

impl Recorder {
    pub(crate) const OFF: Self = Self { log: None, head: Head::NONE, records: 0, ended: false };

    /// Whether calls are to be recorded.
    pub(crate) fn is_on(&self) -> bool {
        self.log.is_some()
    }

    /// Begins a recording in an empty log, unless there is one.
    pub(crate) fn begin(&mut self, mut log: AppendFile, head: Head) -> Result<(), RecordError> {
        if self.is_on() {
            return Err(RecordError::AlreadyRecording);
        }
        for entry in head.to_entries() {
            log.push(entry).map_err(|errno| RecordError::System { errno })?;
        }
        *self = Self { log: Some(log), head, records: 0, ended: false };
        Ok(())
    }

    /// Adds a record. False when the recording has ended, with this call or before it.
    pub(crate) fn write(&mut self, record: Record) -> bool {
        let Some(log) = &mut self.log else { return false };
        if log.is_copy() {
            // The file is the parent's. This process's part of it is taken down.
            self.log = None;
            return false;
        }
        let record = Record { thread: thread(), ..record };
        match log.push(record.to_entry()) {
            Ok(()) => {
                self.records = self.records.wrapping_add(1);
                true
            }
            Err(errno) => {
                self.close(End::NoRoom);
                self.ended = true;
                let why = match errno {
                    libc::ENOSPC | libc::EDQUOT => "the disk is full",
                    libc::EFBIG => "the file may not be larger",
                    libc::EBADF => "the program has closed the file",
                    _ => "the file cannot grow",
                };
                // The system's own words may come from a file, which takes memory to read.
                say(format_args!("recording stopped after {} records: {why} (errno {errno})", self.records));
                false
            }
        }
    }

    /// Ends the recording. None if there is none, or if the one that ended by itself has been told of before.
    pub(crate) fn stop(&mut self) -> Option<Recorded> {
        if self.log.as_ref().is_some_and(AppendFile::is_copy) {
            self.log = None;
        }
        let complete = self.is_on();
        self.close(End::Stopped);
        let ended = core::mem::replace(&mut self.ended, false);
        (complete || ended).then_some(Recorded { records: self.records, complete })
    }

    fn close(&mut self, end: End) {
        if let Some(log) = self.log.take() {
            log.finish(&self.head.ended(end, self.records).to_entries());
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

/// The system's number of this thread.
fn thread() -> u32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::gettid() as u32 }
}

/// Makes the file of a recording, or replaces an older recording.
pub(crate) fn create(path: &[u8]) -> Result<AppendFile, RecordError> {
    create_at(&Path::new(path))
}

fn create_at(path: &Path) -> Result<AppendFile, RecordError> {
    let path = path.as_c().ok_or(RecordError::BadPath)?;
    AppendFile::create(path, u64::from_le_bytes(MAGIC)).map_err(|errno| match errno {
        libc::EWOULDBLOCK => RecordError::InUse,
        libc::EEXIST => RecordError::OtherFile,
        errno => RecordError::System { errno },
    })
}

/// The file that the environment variable `SMALLOC_RECORD` names, in which `%p` stands for the number of the process. None
/// where it is not set, cannot be made, or is being recorded to by another process, such as the parent.
pub(crate) fn from_environment() -> Option<AppendFile> {
    create_where_told(environment::RECORD.value()?)
}

/// Makes the file that a text with `%p` in it names. Apart, since a path takes pages of the stack, which a first call
/// that records nothing should not touch.
#[cold]
#[inline(never)]
fn create_where_told(value: &[u8]) -> Option<AppendFile> {
    let created = create_at(&Path::with_process(value));
    let text = value.escape_ascii();
    match &created {
        Ok(_) => {}
        Err(RecordError::InUse) => environment::RECORD.tell(format_args!(
            "not recording: another process already records to \"{text}\" (use %p for one file per process)"
        )),
        Err(error) => environment::RECORD
            .complain(format_args!("cannot record to \"{text}\": {error} (name a file that can be written)")),
    }
    created.ok()
}

#[cfg(test)]
#[path = "../../tests/unit/recording/recorder.rs"]
mod tests;
