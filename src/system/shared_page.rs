//! A page of words shared by processes: one writes, the others read.

use super::file_limit::largest_file;
use super::mapping::Mapping;
use super::{call, errno};
use core::ffi::CStr;
use core::sync::atomic::AtomicU64;

pub(crate) const PAGE_WORDS: usize = 512;
const PAGE_BYTES: usize = PAGE_WORDS * size_of::<u64>();

pub(crate) type Words = [AtomicU64; PAGE_WORDS];

#[derive(Debug)]
pub(crate) struct SharedPage(Mapping);

impl SharedPage {
    /// Creates the file; `first` are the page's first words. Fails with the system's `errno`: `EEXIST` if it exists,
    /// `EFBIG` if the process may not write so large a file, which would raise `SIGXFSZ`.
    ///
    /// The contents are written with `write(2)` to allocate the file's block: on a full disk that fails with an error,
    /// whereas writing to a mapped page without a block raises `SIGBUS`.
    pub(crate) fn create(path: &CStr, first: &[u64]) -> Result<Self, i32> {
        let mut contents = [0_u64; PAGE_WORDS];
        for (word, first) in contents.iter_mut().zip(first) {
            *word = *first;
        }
        let file = File::open(path, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL)?;
        if largest_file() < PAGE_BYTES as u64 {
            remove(path);
            return Err(libc::EFBIG);
        }
        let page = match usize::try_from(call::write(file.0, &contents)) {
            Ok(PAGE_BYTES) => file.map(libc::PROT_READ | libc::PROT_WRITE),
            Ok(_) => Err(libc::ENOSPC),
            Err(_) => Err(errno::get()),
        };
        if page.is_err() {
            remove(path);
        }
        page
    }

    /// Maps the file read-only; `None` if it is not a regular file of one page. Fails with the system's `errno`.
    pub(crate) fn open(path: &CStr) -> Result<Option<Self>, i32> {
        let file = File::open(path, libc::O_RDONLY | libc::O_NONBLOCK)?;
        // SAFETY: `stat` consists of integers, for which all zeros are valid.
        let mut status: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: the descriptor is open, and `status` is writable.
        if unsafe { libc::fstat(file.0, &mut status) } != 0 {
            return Err(errno::get());
        }
        let regular = status.st_mode & libc::S_IFMT == libc::S_IFREG;
        if !regular || usize::try_from(status.st_size) != Ok(PAGE_BYTES) {
            return Ok(None);
        }
        file.map(libc::PROT_READ).map(Some)
    }

    /// The words. A page from [`open`](Self::open) is read-only.
    pub(crate) fn words(&self) -> &Words {
        // SAFETY: the mapping is exactly this array.
        let words = unsafe { self.0.entry::<Words>(0) };
        // SAFETY: the words are atomic, and the mapping lives as long as the borrow of `self`.
        unsafe { words.as_ref() }
    }
}

/// Removes a file; errors are ignored.
pub(crate) fn remove(path: &CStr) {
    call::unlink(path);
}

struct File(i32);

impl File {
    fn open(path: &CStr, flags: i32) -> Result<Self, i32> {
        let everyone_reads: libc::mode_t = 0o644;
        let file = call::open(path, flags | libc::O_CLOEXEC, everyone_reads);
        if file < 0 { Err(errno::get()) } else { Ok(Self(file)) }
    }

    fn map(&self, protection: i32) -> Result<SharedPage, i32> {
        Mapping::of_file(self.0, 0, PAGE_BYTES, protection).map(SharedPage)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        call::close(self.0);
    }
}
