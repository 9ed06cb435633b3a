//! A file that grows by one entry at a time and is written through a mapping: what is in it outlives the process,
//! however that ends, and no entry needs a call of the system.
//!
//! ```text
//! file    | entries that are done ...         | window: mapped     |
//!                                             | entries |  zeros   |
//! ```
//!
//! The file's blocks are taken window by window, before the window is mapped: where the disk is full, taking them is
//! an error, while writing to a mapping without blocks would end the process by `SIGBUS`.

use super::errno;
use super::mapping::Mapping;
use core::ffi::CStr;
use core::sync::atomic::{Ordering, compiler_fence};

/// Words of 64 bits in an entry.
const WORDS: usize = 4;
/// What is written at once. The first word is never 0.
pub(crate) type Entry = [u64; WORDS];

/// Bytes of the file that are mapped at a time: some ten thousand entries, and what a process that is killed leaves
/// behind its last entry at most. A multiple of every page size.
const WINDOW: usize = 1 << 20;
/// Entries in a window.
const ENTRIES: usize = WINDOW / size_of::<Entry>();

/// A file that is being written.
pub(crate) struct AppendFile {
    window: Window,
    /// Entries in the window so far.
    filled: usize,
    /// Where in the file the window begins.
    at: u64,
    mark: ForkMark,
    file: File,
}

impl AppendFile {
    /// Makes the file, or empties it if it is there and begins with `magic`. The error is the system's `errno`:
    /// `EWOULDBLOCK` if another recording is being written to that file, `EEXIST` if it is something else.
    pub(crate) fn create(path: &CStr, magic: u64) -> Result<Self, i32> {
        let mark = ForkMark::new()?;
        let file = File::create(path, magic)?;
        let window = file.window(0)?;
        Ok(Self { window, filled: 0, at: 0, mark, file })
    }

    /// Appends an entry. After an error, which is the system's `errno`, the log is as it was.
    #[inline]
    pub(crate) fn push(&mut self, entry: Entry) -> Result<(), i32> {
        if self.filled >= ENTRIES {
            let next = self.at.wrapping_add(WINDOW as u64);
            self.window = self.file.window(next)?;
            (self.at, self.filled) = (next, 0);
        }
        self.window.write(self.filled, entry);
        self.filled = self.filled.wrapping_add(1);
        Ok(())
    }

    /// Whether this is the copy of a process that has forked. The file is the parent's alone.
    #[inline]
    pub(crate) fn is_copy(&self) -> bool {
        self.mark.is_gone()
    }

    /// Cuts the file off behind the last entry, writes `head` over its first entries, and closes it.
    pub(crate) fn finish(self, head: &[Entry]) {
        let end = self.at.wrapping_add((self.filled.wrapping_mul(size_of::<Entry>())) as u64);
        self.file.finish(end, head);
    }
}

/// A part of the file in memory.
struct Window(Mapping);

impl Window {
    /// Writes entry number `index`, which is below [`ENTRIES`].
    #[inline]
    fn write(&self, index: usize, entry: Entry) {
        let [first, rest @ ..] = entry;
        // SAFETY: the caller's index lies in the window.
        let place = unsafe { self.0.entry::<u64>(index.wrapping_mul(WORDS)) };
        // SAFETY: an entry has words behind the first.
        let behind = unsafe { self.0.entry::<u64>(index.wrapping_mul(WORDS).wrapping_add(1)) };
        // SAFETY: the mapping is writable and aligned to pages, and the file has blocks for all of it.
        unsafe { behind.cast::<[u64; WORDS - 1]>().write(rest) };
        // A process that is killed in between leaves an entry that begins with 0, which is none.
        compiler_fence(Ordering::SeqCst);
        // SAFETY: as above.
        unsafe { place.write(first) };
    }
}

/// A page that reads as zero in a process that was forked from the one that made it.
///
/// The handlers of `pthread_atfork` would not do: they do not run for every kind of fork, nor for a heap that is no
/// static.
struct ForkMark(Mapping);

impl ForkMark {
    fn new() -> Result<Self, i32> {
        let mark = Self(Mapping::anonymous(1, 0)?);
        // SAFETY: the page is the mark's own.
        if unsafe { libc::madvise(mark.word().cast(), mark.0.bytes(), libc::MADV_WIPEONFORK) } != 0 {
            return Err(errno::get());
        }
        // SAFETY: the page is writable, and the mark's own.
        unsafe { mark.word().write_volatile(1) };
        Ok(mark)
    }

    #[inline]
    fn is_gone(&self) -> bool {
        // SAFETY: the page is readable as long as the mark lives. The system may change it, at a fork.
        unsafe { self.word().read_volatile() == 0 }
    }

    #[inline]
    fn word(&self) -> *mut u64 {
        // SAFETY: a page has a first word.
        unsafe { self.0.entry(0) }.as_ptr()
    }
}

/// An open file, which no other one is written to.
///
/// A program may close all descriptors that it has not opened itself, and its next file then has the number of this
/// one: so the number is used only while it is known to mean the same file.
struct File {
    descriptor: libc::c_int,
    device: libc::dev_t,
    inode: libc::ino_t,
}

impl File {
    fn create(path: &CStr, magic: u64) -> Result<Self, i32> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
        // SAFETY: the path ends in a zero byte.
        let descriptor = unsafe { libc::open(path.as_ptr(), flags, 0o666) };
        if descriptor < 0 {
            return Err(errno::get());
        }
        let mut file = Self { descriptor, device: 0, inode: 0 };
        (file.device, file.inode) = file.identity().ok_or_else(errno::get)?;
        // Whoever writes to the file has it locked, also through another name, and from another process.
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(descriptor, libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(errno::get());
        }
        if !file.may_be_replaced(magic) {
            return Err(libc::EEXIST);
        }
        // SAFETY: as above.
        if unsafe { libc::ftruncate(descriptor, 0) } != 0 {
            return Err(errno::get());
        }
        Ok(file)
    }

    /// Whether there is nothing in the file, or what begins with `magic`.
    fn may_be_replaced(&self, magic: u64) -> bool {
        let mut first = [0; size_of::<u64>()];
        // SAFETY: the descriptor is open, and the bytes can be written.
        let read = unsafe { libc::pread(self.descriptor, first.as_mut_ptr().cast(), first.len(), 0) };
        // A pipe has nothing to lose.
        read == 0 || read < 0 && errno::get() == libc::ESPIPE || first == magic.to_ne_bytes()
    }

    /// Which file the descriptor means now.
    fn identity(&self) -> Option<(libc::dev_t, libc::ino_t)> {
        let mut status = core::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: the status is writable; a descriptor that is not open is an error.
        let failed = unsafe { libc::fstat(self.descriptor, status.as_mut_ptr()) } != 0;
        // SAFETY: a status is numbers, for which all zeros are good.
        let status = unsafe { status.assume_init() };
        (!failed).then_some((status.st_dev, status.st_ino))
    }

    fn is_open(&self) -> bool {
        self.identity() == Some((self.device, self.inode))
    }

    /// Takes the blocks from `at` on and maps them.
    fn window(&self, at: u64) -> Result<Window, i32> {
        if !self.is_open() {
            return Err(libc::EBADF);
        }
        let end = at.saturating_add(WINDOW as u64);
        if end > largest_file() {
            return Err(libc::EFBIG);
        }
        // Offsets are below 2^63: a file is not as large.
        let offset = at as libc::off_t;
        let refused = loop {
            // SAFETY: the descriptor is open.
            match unsafe { libc::posix_fallocate(self.descriptor, offset, WINDOW as libc::off_t) } {
                libc::EINTR => {}
                errno => break errno,
            }
        };
        if refused != 0 {
            return Err(refused);
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        Mapping::of_file(self.descriptor, offset, WINDOW, protection).map(Window)
    }

    /// Cuts the file off at `end`, writes `head` to its start, and gives up the lock, which a copy of the descriptor in
    /// a child would keep.
    fn finish(&self, end: u64, head: &[Entry]) {
        if !self.is_open() {
            return;
        }
        // What fails here leaves a file that says that it was not finished, and zeros behind its last entry.
        // SAFETY: the descriptor is open.
        let cut = unsafe { libc::ftruncate(self.descriptor, end as libc::off_t) } == 0;
        if cut {
            // SAFETY: the descriptor is open, and the bytes are those of a slice.
            unsafe { libc::pwrite(self.descriptor, head.as_ptr().cast(), size_of_val(head), 0) };
        }
        // SAFETY: the descriptor is open.
        unsafe { libc::flock(self.descriptor, libc::LOCK_UN) };
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // A file whose identity is not known yet has just been opened.
        if self.inode == 0 || self.is_open() {
            // SAFETY: the descriptor is this file's.
            unsafe { libc::close(self.descriptor) };
        }
    }
}

/// How large the process may make a file. To go beyond raises `SIGXFSZ`.
fn largest_file() -> u64 {
    let mut limits = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: the limits are writable. What cannot be asked for stays unlimited.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &mut limits) };
    limits.rlim_cur
}

const _: () = assert!(WINDOW.is_multiple_of(size_of::<Entry>()) && WINDOW.is_multiple_of(1 << 16));
