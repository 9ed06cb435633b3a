//! A NUL-terminated path on the stack.

use core::ffi::CStr;
use core::fmt::{self, Write};

/// Longest path the system accepts, including its NUL.
const BYTES: usize = libc::PATH_MAX as usize;

pub(crate) struct Path {
    bytes: [u8; BYTES],
    len: usize,
    /// False once a byte was NUL or did not fit.
    complete: bool,
}

impl Path {
    const EMPTY: Self = Self { bytes: [0; BYTES], len: 0, complete: true };

    pub(crate) fn new(text: &[u8]) -> Self {
        let mut path = Self::EMPTY;
        text.iter().for_each(|&byte| path.push(byte));
        path
    }

    /// Replaces each `%p` in `text` with the process id.
    pub(crate) fn with_process(text: &[u8]) -> Self {
        let mut path = Self::EMPTY;
        let mut rest = text;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if let (b'%', Some(after)) = (byte, after.strip_prefix(b"p")) {
                // SAFETY: the call has no preconditions.
                let process = unsafe { libc::getpid() };
                // Overflow is recorded in `complete`.
                let _ = path.write_fmt(format_args!("{process}"));
                rest = after;
            } else {
                path.push(byte);
            }
        }
        path
    }

    /// The path; `None` if it contains a NUL or is too long.
    pub(crate) fn as_c(&self) -> Option<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).ok().filter(|_| self.complete)
    }

    fn push(&mut self, byte: u8) {
        match self.bytes.get_mut(self.len) {
            Some(place) if byte != 0 && self.len < BYTES - 1 => {
                *place = byte;
                self.len = self.len.wrapping_add(1);
            }
            _ => self.complete = false,
        }
    }
}

impl Write for Path {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(|byte| self.push(byte));
        Ok(())
    }
}

#[cfg(test)]
#[path = "../../tests/unit/system/path.rs"]
mod tests;
