//! Writing a recording, without allocating. The caller preserves `errno`.

use super::format::{End, Head, MAGIC, Record};
use super::line::Line;
#[cfg(feature = "sites")]
use super::line::{Object, TEXT_BYTES};
use crate::region::InitError;
use crate::system::append_file::{AppendFile, Entry};
use crate::system::environment;
use crate::system::errno::Reason;
use crate::system::fatal::say;
use crate::system::path::Path;
use core::fmt;

/// The result of a recording; see [`SmallocGlobal::stop_recording`](crate::SmallocGlobal::stop_recording).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recorded {
    /// The number of records, without those of call sites.
    pub records: u64,
    /// Whether all calls were recorded. If not, there was no room for more: the disk is full, the file has reached its
    /// size limit, or the program has closed it.
    pub complete: bool,
}

/// The recording could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RecordError {
    /// This heap is already being recorded.
    AlreadyRecording,
    /// Another heap or process already records to that file.
    InUse,
    /// The file exists and is not a recording. It is left unchanged.
    OtherFile,
    /// The path contains a zero byte or is too long.
    BadPath,
    /// The file cannot be created, mapped or written.
    System {
        /// The system's error number.
        errno: i32,
    },
    /// The heap has no region and could not map one.
    NoRegion(InitError),
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AlreadyRecording => f.write_str("the heap is already being recorded"),
            Self::InUse => f.write_str("another heap or process already records to that file"),
            Self::OtherFile => f.write_str("the file exists and is not a recording"),
            Self::BadPath => f.write_str("the path is not valid"),
            Self::System { errno } => Reason(*errno).fmt(f),
            Self::NoRegion(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RecordError {}

/// The recorder of a heap, on or off.
pub(crate) struct Recorder {
    log: Option<AppendFile>,
    head: Head,
    /// Records written by the current or the last recording, without those of call sites.
    records: u64,
    /// Records of call sites.
    site_records: u64,
    /// Loaded objects that have been written.
    #[cfg(feature = "sites")]
    objects: usize,
    /// The recording ended on its own, and `stop` has not reported it yet.
    ended: bool,
}

impl Recorder {
    pub(crate) const OFF: Self = Self {
        log: None,
        head: Head::NONE,
        records: 0,
        site_records: 0,
        #[cfg(feature = "sites")]
        objects: 0,
        ended: false,
    };

    pub(crate) fn is_on(&self) -> bool {
        self.log.is_some()
    }

    /// Starts a recording in an empty log, unless one is running.
    pub(crate) fn begin(&mut self, mut log: AppendFile, head: Head) -> Result<(), RecordError> {
        if self.is_on() {
            return Err(RecordError::AlreadyRecording);
        }
        for entry in head.to_entries() {
            log.push(entry).map_err(|errno| RecordError::System { errno })?;
        }
        *self = Self { log: Some(log), head, ..Self::OFF };
        Ok(())
    }

    /// Appends a record of a call, made with the call stack of this number, 0 for none. False if the recording has
    /// ended, now or earlier.
    pub(crate) fn write(&mut self, record: Record, stack: u32) -> bool {
        if stack != 0 && !self.write_site(Line::Stack { frame: stack }) {
            return false;
        }
        let record = || Record { thread: thread(), ..record }.to_entry();
        let written = self.push(record);
        self.records = self.records.wrapping_add(written.into());
        written
    }

    /// Appends a record of call sites. False if the recording has ended, now or earlier.
    pub(crate) fn write_site(&mut self, line: Line) -> bool {
        let written = self.push(|| line.to_entry());
        self.site_records = self.site_records.wrapping_add(written.into());
        written
    }

    /// Loaded objects that have been written.
    #[cfg(feature = "sites")]
    pub(crate) fn objects(&self) -> usize {
        self.objects
    }

    /// Appends a loaded object with its build ID and its path.
    #[cfg(feature = "sites")]
    pub(crate) fn write_object(&mut self, object: Object, build_id: &[u8], path: &[u8]) {
        self.objects = self.objects.wrapping_add(1);
        self.write_site(Line::Object(object));
        let mut bytes = build_id.iter().chain(path).peekable();
        while bytes.peek().is_some() {
            let mut text = [0; TEXT_BYTES];
            text.iter_mut().zip(&mut bytes).for_each(|(to, &from)| *to = from);
            self.write_site(Line::Text(text));
        }
    }

    fn push(&mut self, entry: impl FnOnce() -> Entry) -> bool {
        let Some(log) = &mut self.log else { return false };
        if log.is_copy() {
            // A forked child: the file belongs to the parent. Unmap this process's window.
            self.log = None;
            return false;
        }
        match log.push(entry()) {
            Ok(()) => true,
            Err(errno) => {
                self.close(End::NoRoom);
                self.ended = true;
                let why = match errno {
                    libc::ENOSPC | libc::EDQUOT => "the disk is full",
                    libc::EFBIG => "the file may not be larger",
                    libc::EBADF => "the program has closed the file",
                    _ => "the file cannot grow",
                };
                // strerror may read a file and allocate, so the message has its own words.
                say(format_args!("recording stopped after {} records: {why} (errno {errno})", self.records));
                false
            }
        }
    }

    /// Ends the recording. None if there is none, or if one that ended on its own was already reported.
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
            let records = self.records.wrapping_add(self.site_records);
            log.finish(&self.head.ended(end, records).to_entries());
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}

fn thread() -> u32 {
    // SAFETY: the call has no arguments and cannot fail.
    unsafe { libc::gettid() as u32 }
}

/// Creates the file of a recording, or truncates an older recording.
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

/// Creates the file named by the environment variable `SMALLOC_RECORD`, in which `%p` stands for the process number.
/// None if it is not set, cannot be created, or belongs to another process, such as the parent.
pub(crate) fn from_environment() -> Option<AppendFile> {
    create_from_variable(environment::RECORD.value()?)
}

/// Creates the file at a path that may contain `%p`. Outlined, since the path takes pages of stack that a first call
/// should not touch if it records nothing.
#[cold]
#[inline(never)]
fn create_from_variable(value: &[u8]) -> Option<AppendFile> {
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
