//! An append-only file written through a mapping: entries outlive the process however it ends, and appending takes no
//! system call.
//!
//! ```text
//! file    | finished entries ...              | mapped window       |
//!                                             | entries |  zeros    |
//! ```
//!
//! Blocks are allocated one window ahead of the mapping: on a full disk that allocation fails with an error, whereas
//! writing to a mapped page without a block raises `SIGBUS`.

use super::file_limit::largest_file;
use super::mapping::Mapping;
use super::{call, errno};
use core::ffi::CStr;
use core::sync::atomic::{Ordering, compiler_fence};

const WORDS: usize = 4;
/// One record. Its first word is never 0.
pub(crate) type Entry = [u64; WORDS];

/// Bytes of the file mapped at a time, a multiple of every page size. Large, so that system calls are rare; a killed
/// process leaves at most this many zeros after its last entry.
const WINDOW: usize = 1 << 20;
const ENTRIES: usize = WINDOW / size_of::<Entry>();

pub(crate) struct AppendFile {
    window: Window,
    /// Entries written to the current window.
    filled: usize,
    /// File offset of the window, in bytes.
    window_offset: u64,
    mark: ForkMark,
    file: File,
}

impl AppendFile {
    /// Creates the file, or truncates an existing one that is empty or begins with `magic`. Fails with the system's
    /// `errno`: `EWOULDBLOCK` if another recorder has the file locked, `EEXIST` if the file holds anything else.
    pub(crate) fn create(path: &CStr, magic: u64) -> Result<Self, i32> {
        let mark = ForkMark::new()?;
        let file = File::create(path, magic)?;
        let window = file.window(0)?;
        Ok(Self { window, filled: 0, window_offset: 0, mark, file })
    }

    /// Appends an entry. On error (the system's `errno`) the file is unchanged.
    #[inline]
    pub(crate) fn push(&mut self, entry: Entry) -> Result<(), i32> {
        if self.filled >= ENTRIES {
            let next = self.window_offset.wrapping_add(WINDOW as u64);
            self.window = self.file.window(next)?;
            (self.window_offset, self.filled) = (next, 0);
        }
        self.window.write(self.filled, entry);
        self.filled = self.filled.wrapping_add(1);
        Ok(())
    }

    /// Whether this is the copy in a forked child. Only the parent may write to the file.
    #[inline]
    pub(crate) fn is_copy(&self) -> bool {
        self.mark.is_wiped()
    }

    /// Truncates the file after the last entry, overwrites its first entries with `head`, and closes it.
    pub(crate) fn finish(self, head: &[Entry]) {
        let end = self.window_offset.wrapping_add((self.filled.wrapping_mul(size_of::<Entry>())) as u64);
        self.file.finish(end, head);
    }
}

struct Window(Mapping);

impl Window {
    /// Writes entry `index`, which is below [`ENTRIES`].
    #[inline]
    fn write(&self, index: usize, entry: Entry) {
        let [first, rest @ ..] = entry;
        // SAFETY: `index` is below `ENTRIES`, so the entry lies in the window.
        let place = unsafe { self.0.entry::<u64>(index.wrapping_mul(WORDS)) };
        // SAFETY: the entry has `WORDS` words, so its second word lies in the window too.
        let tail = unsafe { self.0.entry::<u64>(index.wrapping_mul(WORDS).wrapping_add(1)) };
        // SAFETY: the mapping is writable and page-aligned, and every page of it has a block in the file.
        unsafe { tail.cast::<[u64; WORDS - 1]>().write(rest) };
        // The first word is written last: a process killed before this store leaves a 0, which no entry begins with.
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the mapping is writable and page-aligned, and every page of it has a block in the file.
        unsafe { place.write(first) };
    }
}

/// A page that reads as zero in a forked child.
///
/// `pthread_atfork` handlers would not do: not every kind of fork runs them, and heaps that are not statics have none.
struct ForkMark(Mapping);

impl ForkMark {
    fn new() -> Result<Self, i32> {
        let mark = Self(Mapping::anonymous(1, 0)?);
        // SAFETY: this mapping owns the page.
        if unsafe { libc::madvise(mark.word().cast(), mark.0.bytes(), libc::MADV_WIPEONFORK) } != 0 {
            return Err(errno::get());
        }
        // SAFETY: the page is writable, and nothing else refers to it.
        unsafe { mark.word().write_volatile(1) };
        Ok(mark)
    }

    #[inline]
    fn is_wiped(&self) -> bool {
        // SAFETY: the page stays readable while the mapping lives; the read is volatile because a fork changes it.
        unsafe { self.word().read_volatile() == 0 }
    }

    #[inline]
    fn word(&self) -> *mut u64 {
        // SAFETY: a mapping of one page has a first word.
        unsafe { self.0.entry(0) }.as_ptr()
    }
}

/// An open file, locked against other writers.
///
/// A program may close descriptors that it did not open, and the number then goes to the next file opened. So the
/// descriptor is used only after checking that it still refers to this file.
struct File {
    descriptor: libc::c_int,
    device: libc::dev_t,
    inode: libc::ino_t,
}

impl File {
    fn create(path: &CStr, magic: u64) -> Result<Self, i32> {
        let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC | libc::O_NOCTTY | libc::O_NONBLOCK;
        let descriptor = call::open(path, flags, 0o666);
        if descriptor < 0 {
            return Err(errno::get());
        }
        let mut file = Self { descriptor, device: 0, inode: 0 };
        (file.device, file.inode) = file.identity().ok_or_else(errno::get)?;
        // The lock also excludes other processes, and writers that opened the file by another name.
        // SAFETY: the descriptor is open.
        if unsafe { libc::flock(descriptor, libc::LOCK_EX | libc::LOCK_NB) } != 0 {
            return Err(errno::get());
        }
        if !file.may_be_replaced(magic) {
            return Err(libc::EEXIST);
        }
        // SAFETY: the descriptor is open.
        if unsafe { libc::ftruncate(descriptor, 0) } != 0 {
            return Err(errno::get());
        }
        Ok(file)
    }

    /// Whether the file is empty or begins with `magic`.
    fn may_be_replaced(&self, magic: u64) -> bool {
        let mut first = [0; size_of::<u64>()];
        let read = call::read_start(self.descriptor, &mut first);
        // A pipe (`ESPIPE`) has no contents to lose.
        read == 0 || read < 0 && errno::get() == libc::ESPIPE || first == magic.to_ne_bytes()
    }

    /// Device and inode of the file that the descriptor refers to now; `None` if it is closed.
    fn identity(&self) -> Option<(libc::dev_t, libc::ino_t)> {
        let mut status = core::mem::MaybeUninit::<libc::stat>::zeroed();
        // SAFETY: `status` is writable, and `fstat` reports a closed descriptor as an error.
        let failed = unsafe { libc::fstat(self.descriptor, status.as_mut_ptr()) } != 0;
        // SAFETY: `stat` consists of integers, for which all zeros are valid.
        let status = unsafe { status.assume_init() };
        (!failed).then_some((status.st_dev, status.st_ino))
    }

    fn is_open(&self) -> bool {
        self.identity() == Some((self.device, self.inode))
    }

    /// Allocates blocks for the window at file offset `at` and maps it.
    fn window(&self, at: u64) -> Result<Window, i32> {
        if !self.is_open() {
            return Err(libc::EBADF);
        }
        let end = at.saturating_add(WINDOW as u64);
        if end > largest_file() {
            return Err(libc::EFBIG);
        }
        // `end` is at most `RLIMIT_FSIZE`, and no file is larger than `off_t` can say.
        let offset = at as libc::off_t;
        call::allocate(self.descriptor, offset, WINDOW)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        Mapping::of_file(self.descriptor, offset, WINDOW, protection).map(Window)
    }

    /// Truncates the file to `end` bytes, writes `head` at its start, and unlocks it. Closing alone does not unlock a
    /// file whose descriptor a child has, too.
    fn finish(&self, end: u64, head: &[Entry]) {
        if !self.is_open() {
            return;
        }
        // On failure the file keeps its unfinished header, and zeros follow its last entry.
        // SAFETY: the descriptor is open.
        let cut = unsafe { libc::ftruncate(self.descriptor, end as libc::off_t) } == 0;
        if cut {
            call::write_at(self.descriptor, head, 0);
        }
        // SAFETY: the descriptor is open.
        unsafe { libc::flock(self.descriptor, libc::LOCK_UN) };
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // Inode 0: the file was just opened and not identified yet.
        if self.inode == 0 || self.is_open() {
            call::close(self.descriptor);
        }
    }
}

const _: () = assert!(WINDOW.is_multiple_of(size_of::<Entry>()) && WINDOW.is_multiple_of(1 << 16));
