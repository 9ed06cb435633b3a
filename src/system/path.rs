//! A path as the system takes it, on the stack: nothing here allocates.

use core::ffi::CStr;
use core::fmt::{self, Write};

/// Bytes of the longest path that the system takes, with the zero behind it.
const BYTES: usize = libc::PATH_MAX as usize;

/// A path, with room for the zero behind it.
pub(crate) struct Path {
    bytes: [u8; BYTES],
    len: usize,
    /// Whether all of it is there.
    whole: bool,
}

impl Path {
    const EMPTY: Self = Self { bytes: [0; BYTES], len: 0, whole: true };

    pub(crate) fn new(text: &[u8]) -> Self {
        let mut path = Self::EMPTY;
        text.iter().for_each(|&byte| path.push(byte));
        path
    }

    /// The path with the number of this process for each `%p`.
    pub(crate) fn with_process(text: &[u8]) -> Self {
        let mut path = Self::EMPTY;
        let mut rest = text;
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            if let (b'%', Some(behind)) = (byte, behind.strip_prefix(b"p")) {
                // SAFETY: the call has no arguments and cannot fail.
                let process = unsafe { libc::getpid() };
                // What does not fit is known from `whole`.
                let _ = path.write_fmt(format_args!("{process}"));
                rest = behind;
            } else {
                path.push(byte);
            }
        }
        path
    }

    /// The path for the system; none if it holds a zero byte or is too long.
    pub(crate) fn as_c(&self) -> Option<&CStr> {
        CStr::from_bytes_until_nul(&self.bytes).ok().filter(|_| self.whole)
    }

    fn push(&mut self, byte: u8) {
        match self.bytes.get_mut(self.len) {
            Some(place) if byte != 0 && self.len < BYTES - 1 => {
                *place = byte;
                self.len = self.len.wrapping_add(1);
            }
            _ => self.whole = false,
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
