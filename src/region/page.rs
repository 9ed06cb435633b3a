//! A page of words that several processes see: one writes, others read.

use super::unmap;
use crate::errno;
use core::ffi::CStr;
use core::ptr::{self, NonNull};
use core::sync::atomic::AtomicU64;

/// Words of a shared page.
pub(crate) const PAGE_WORDS: usize = 512;
const PAGE_BYTES: usize = PAGE_WORDS * size_of::<u64>();

/// The words of a shared page.
pub(crate) type Words = [AtomicU64; PAGE_WORDS];

/// A file of one page, mapped so that what is written is seen by all who have it mapped.
#[derive(Debug)]
pub(crate) struct SharedPage {
    words: NonNull<Words>,
}

// SAFETY: the words are atomic, and the mapping belongs to the page alone.
unsafe impl Send for SharedPage {}
// SAFETY: as above.
unsafe impl Sync for SharedPage {}

impl SharedPage {
    /// Makes the file and writes `first` to it, the page's first words. The error is the system's `errno`: `EEXIST` if
    /// there is a file.
    ///
    /// The file's block is taken by writing to it: where the disk is full, that is an error, while writing to a mapping
    /// without a block would end the process.
    pub(crate) fn create(path: &CStr, first: &[u64]) -> Result<Self, i32> {
        let mut contents = [0_u64; PAGE_WORDS];
        for (word, first) in contents.iter_mut().zip(first) {
            *word = *first;
        }
        let file = File::open(path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)?;
        // SAFETY: the pointer and the length are those of the array.
        let written = unsafe { libc::write(file.0, contents.as_ptr().cast(), PAGE_BYTES) };
        let page = match usize::try_from(written) {
            Ok(PAGE_BYTES) => file.map(libc::PROT_READ | libc::PROT_WRITE),
            Ok(_) => Err(libc::ENOSPC),
            Err(_) => Err(errno::get()),
        };
        if page.is_err() {
            remove(path);
        }
        page
    }

    /// Maps the file for reading; none if it has not the length of a page. The error is the system's `errno`.
    pub(crate) fn open(path: &CStr) -> Result<Option<Self>, i32> {
        let file = File::open(path, libc::O_RDONLY | libc::O_NONBLOCK)?;
        // SAFETY: a `stat` of zeros is a value, and the call overwrites it.
        let mut status: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: the file is open, and the place can be written.
        if unsafe { libc::fstat(file.0, &mut status) } != 0 {
            return Err(errno::get());
        }
        let regular = status.st_mode & libc::S_IFMT == libc::S_IFREG;
        if !regular || usize::try_from(status.st_size) != Ok(PAGE_BYTES) {
            return Ok(None);
        }
        file.map(libc::PROT_READ).map(Some)
    }

    /// The words. Those of a page that was opened for reading must not be written.
    pub(crate) fn words(&self) -> &Words {
        // SAFETY: the mapping has that many words, and lasts as long as the page.
        unsafe { self.words.as_ref() }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        // SAFETY: the page owns the mapping, and borrows of it have ended.
        errno::unchanged(|| unsafe { unmap(self.words.as_ptr().cast(), PAGE_BYTES) });
    }
}

/// Sleeps for a millisecond, or until a signal arrives.
pub(crate) fn sleep_ms() {
    let time = libc::timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    // SAFETY: the time is valid and is only read; the null pointer says that the rest of the time is not wanted.
    errno::unchanged(|| unsafe { libc::nanosleep(&time, ptr::null_mut()) });
}

/// Removes a file. Nothing is lost if it stays.
pub(crate) fn remove(path: &CStr) {
    // SAFETY: the path ends in a zero byte.
    let _ = unsafe { libc::unlink(path.as_ptr()) };
}

/// An open file, closed when dropped.
struct File(i32);

impl File {
    fn open(path: &CStr, flags: i32) -> Result<Self, i32> {
        let everyone_reads: libc::mode_t = 0o644;
        // SAFETY: the path ends in a zero byte.
        let file = unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, everyone_reads) };
        if file < 0 { Err(errno::get()) } else { Ok(Self(file)) }
    }

    fn map(&self, protection: i32) -> Result<SharedPage, i32> {
        // SAFETY: a new mapping that replaces none touches nothing that exists.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), PAGE_BYTES, protection, libc::MAP_SHARED, self.0, 0) };
        if start == libc::MAP_FAILED {
            return Err(errno::get());
        }
        // SAFETY: a successful mapping is not null.
        Ok(SharedPage { words: unsafe { NonNull::new_unchecked(start.cast()) } })
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the file is open, and nothing uses it any more.
        unsafe { libc::close(self.0) };
    }
}
