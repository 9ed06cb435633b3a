//! How the heap dies: one line on standard error, then `abort`. And the one line.
//!
//! A heap that is misused or broken must not allocate, unwind or panic: the panic hook allocates, and would wait for the
//! lock that its own thread holds. So the line is formatted into a buffer on the stack, written by `write(2)`, and
//! the process aborts.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

/// Bytes of the longest line. The longest message holds four 64-bit numbers and is well below it; what is longer is cut.
const LINE_BYTES: usize = 256;

/// Whether some thread is dying already.
static DYING: AtomicBool = AtomicBool::new(false);

/// Writes `smalloc: <message>` and a line feed to standard error and aborts the process.
///
/// A handler for `SIGABRT` runs as after every `abort`; the process ends when it returns. A handler that uses the heap
/// arrives here again, because the lock is still held, and then the handler is taken out first.
#[cold]
#[inline(never)]
pub(crate) fn fatal(message: fmt::Arguments<'_>) -> ! {
    say(message);
    if DYING.swap(true, Ordering::Relaxed) {
        // SAFETY: SIGABRT is a signal whose action may be set, and SIG_DFL is an action.
        let _ = unsafe { libc::signal(libc::SIGABRT, libc::SIG_DFL) };
    }
    // SAFETY: `abort` may be called in any state of the process. It unblocks SIGABRT itself.
    unsafe { libc::abort() }
}

/// Writes `smalloc: <message>` and a line feed to standard error and ends the process with exit code 2: the program was
/// started with something that cannot be understood.
#[cold]
#[inline(never)]
pub(crate) fn refuse(message: fmt::Arguments<'_>) -> ! {
    say(message);
    // SAFETY: `_exit` may be called in any state of the process.
    unsafe { libc::_exit(2) }
}

/// Writes `smalloc: <message>` and a line feed to standard error.
#[cold]
#[inline(never)]
pub(crate) fn say(message: fmt::Arguments<'_>) {
    let mut line = Line::new();
    // A line that does not fit is cut, never an error; a `Display` that fails leaves what it has written so far.
    let _ = line.write_str("smalloc: ");
    let _ = line.write_fmt(message);
    write_to_stderr(line.finish());
}

/// A line that is cut at the buffer's end.
struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    fn new() -> Self {
        Line { bytes: [0; LINE_BYTES], len: 0 }
    }

    /// The line with its line feed, for which `write_str` leaves room.
    fn finish(&mut self) -> &[u8] {
        if let Some(end) = self.bytes.get_mut(self.len) {
            *end = b'\n';
            self.len += 1;
        }
        self.bytes.get(..self.len).unwrap_or(&[])
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.iter_mut().take(LINE_BYTES - 1).skip(self.len);
        for (place, byte) in room.zip(text.bytes()) {
            *place = byte;
            self.len += 1;
        }
        Ok(())
    }
}

/// Writes all of `bytes`, in one call unless the system takes fewer. Gives up when it takes none: there is nobody to tell.
pub(crate) fn write_to_stderr(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        // SAFETY: the pointer and the length are those of a live slice.
        let written = unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(written) {
            Ok(0) => return,
            Ok(written) => bytes = bytes.get(written..).unwrap_or(&[]),
            Err(_) if crate::system::errno::get() == libc::EINTR => {}
            Err(_) => return,
        }
    }
}
