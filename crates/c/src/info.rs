//! The statistics of the preload library's heap, in the forms of the C library.

use crate::global::HEAP;
use crate::mapped;
use crate::system::{StandardError, set_errno};
use core::ffi::{c_int, c_void};
use core::fmt::{self, Write};

/// `struct mallinfo2`.
#[repr(C)]
#[derive(Debug)]
pub struct Info<T> {
    arena: T,
    ordblks: T,
    smblks: T,
    hblks: T,
    hblkhd: T,
    usmblks: T,
    fsmblks: T,
    uordblks: T,
    fordblks: T,
    keepcost: T,
}

fn info<T: Default>(number: impl Fn(usize) -> T) -> Info<T> {
    let totals = HEAP.totals();
    let (count, bytes) = mapped::totals();
    Info {
        arena: number(totals.committed_bytes),
        ordblks: number(totals.holes),
        smblks: T::default(),
        hblks: number(count),
        hblkhd: number(bytes),
        usmblks: T::default(),
        fsmblks: T::default(),
        uordblks: number(totals.used_bytes),
        fordblks: number(totals.committed_bytes.saturating_sub(totals.used_bytes)),
        keepcost: number(totals.committed_bytes.saturating_sub(totals.top)),
    }
}

/// `mallinfo2`.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_mallinfo2() -> Info<usize> {
    info(|number| number)
}

/// `mallinfo`: a number that does not fit an `int` becomes the largest one.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_mallinfo() -> Info<c_int> {
    info(|number| c_int::try_from(number).unwrap_or(c_int::MAX))
}

/// `malloc_stats`: writes the block of `Stats` to standard error.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_stats() {
    let (count, bytes) = mapped::totals();
    let stats = HEAP.stats();
    // A failure to write is not reported.
    let _ = write!(StandardError, "{stats}\n  large blocks {count}, bytes {bytes}\n");
}

/// `malloc_info`: an XML document on a stream. -1 with `EINVAL` unless `options` is 0.
///
/// # Safety
/// The stream is open for writing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn smalloc_preload_info(options: c_int, stream: *mut c_void) -> c_int {
    if options != 0 {
        set_errno(libc::EINVAL);
        return -1;
    }
    let (count, bytes) = mapped::totals();
    // Read before anything is written: the stream may allocate its buffer.
    let now = HEAP.totals();
    let written = write!(
        Stream(stream.cast()),
        "<malloc version=\"smalloc-1\">\n\
         <system type=\"current\" size=\"{}\"/>\n<system type=\"max\" size=\"{}\"/>\n\
         <total type=\"used\" count=\"{}\" size=\"{}\"/>\n<total type=\"rest\" count=\"{}\" size=\"{}\"/>\n\
         <total type=\"mmap\" count=\"{count}\" size=\"{bytes}\"/>\n</malloc>\n",
        now.committed_bytes,
        now.peak_top,
        now.live_segments,
        now.used_bytes,
        now.holes,
        now.hole_bytes
    );
    if written.is_ok() { 0 } else { -1 }
}

struct Stream(*mut libc::FILE);

impl Write for Stream {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: pointer and length are those of a live string, and the stream is open.
        let written = unsafe { libc::fwrite(text.as_ptr().cast(), 1, text.len(), self.0) };
        if written == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// `malloc_trim`: 1 if memory was returned to the system, else 0.
#[unsafe(no_mangle)]
pub extern "C" fn smalloc_preload_trim(_pad: usize) -> c_int {
    (HEAP.trim() > 0).into()
}
