//! A page of words that several processes see: one writes, others read.

use super::errno;
use super::mapping::Mapping;
use core::ffi::CStr;
use core::sync::atomic::AtomicU64;

/// Words of a shared page.
pub(crate) const PAGE_WORDS: usize = 512;
const PAGE_BYTES: usize = PAGE_WORDS * size_of::<u64>();

/// The words of a shared page.
pub(crate) type Words = [AtomicU64; PAGE_WORDS];

/// A file of one page, mapped so that what is written is seen by all who have it mapped.
#[derive(Debug)]
pub(crate) struct SharedPage(Mapping);

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
        // SAFETY: the mapping holds the words and nothing else.
        let words = unsafe { self.0.entry::<Words>(0) };
        // SAFETY: words are atomic, and last as long as the page.
        unsafe { words.as_ref() }
    }
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
        Mapping::of_file(self.0, 0, PAGE_BYTES, protection).map(SharedPage)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the file is open, and nothing uses it any more.
        unsafe { libc::close(self.0) };
    }
}
