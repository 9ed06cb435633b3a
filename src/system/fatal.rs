//! Fatal errors: one line on standard error, then `abort`.
//!
//! A misused or broken heap must not allocate, unwind or panic: the panic hook allocates and would wait for the lock
//! that its own thread holds. So the line is formatted into a stack buffer and written with `write(2)`.

use super::{call, errno};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

/// Bytes of the longest line; the rest is cut off. The longest message, with four 64-bit numbers, is well below it.
const LINE_BYTES: usize = 256;

/// Whether a thread has reported a fatal error.
static ABORTING: AtomicBool = AtomicBool::new(false);

/// Writes `smalloc: <message>` and a newline to standard error and aborts.
///
/// A `SIGABRT` handler runs as usual. If the handler uses the heap, whose lock is still held, it ends up here again;
/// then its action is reset to the default so that `abort` ends the process.
#[cold]
#[inline(never)]
pub(crate) fn fatal(message: fmt::Arguments<'_>) -> ! {
    say(message);
    if ABORTING.swap(true, Ordering::Relaxed) {
        // SAFETY: SIGABRT's action may be set, and SIG_DFL is a valid action.
        let _ = unsafe { libc::signal(libc::SIGABRT, libc::SIG_DFL) };
    }
    // SAFETY: `abort` may be called in any state of the process, and unblocks SIGABRT itself.
    unsafe { libc::abort() }
}

/// Writes `smalloc: <message>` and a newline to standard error and exits with code 2: a setting cannot be honoured.
#[cold]
#[inline(never)]
pub(crate) fn refuse(message: fmt::Arguments<'_>) -> ! {
    say(message);
    // SAFETY: `_exit` may be called in any state of the process.
    unsafe { libc::_exit(2) }
}

/// Writes `smalloc: <message>` and a newline to standard error.
#[cold]
#[inline(never)]
pub(crate) fn say(message: fmt::Arguments<'_>) {
    let mut line = Line::new();
    // Formatting never fails for lack of room; if a `Display` fails, the text written so far is printed.
    let _ = line.write_str("smalloc: ");
    let _ = line.write_fmt(message);
    write_to_stderr(line.finish());
}

/// A line, truncated at the end of its buffer.
struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    fn new() -> Self {
        Line { bytes: [0; LINE_BYTES], len: 0 }
    }

    /// Adds the newline, for which `write_str` leaves room, and returns the line.
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

/// Writes all of `bytes`, retrying after partial writes and `EINTR`; gives up on any other error.
pub(crate) fn write_to_stderr(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match usize::try_from(call::write(libc::STDERR_FILENO, bytes)) {
            Ok(0) => return,
            Ok(written) => bytes = bytes.get(written..).unwrap_or(&[]),
            Err(_) if errno::get() == libc::EINTR => {}
            Err(_) => return,
        }
    }
}
