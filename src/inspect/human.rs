//! Numbers formatted for people: sizes with a unit, counts with commas, and text that can be padded.

use core::fmt::{self, Write};

use super::number::wide;

/// A short text on the stack, for padding. Text that does not fit is cut off.
pub(super) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    pub(super) fn new(arguments: fmt::Arguments<'_>) -> Self {
        let mut text = Self { bytes: [0; N], len: 0 };
        // The error only says that text was cut off.
        let _ = text.write_fmt(arguments);
        text
    }

    pub(super) fn as_str(&self) -> &str {
        let written = self.bytes.get(..self.len).unwrap_or_default();
        core::str::from_utf8(written).unwrap_or_default()
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..).unwrap_or_default();
        let whole = text.len() <= room.len();
        let mut cut = text.len().min(room.len());
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        for (to, from) in room.iter_mut().zip(text.as_bytes().iter().take(cut)) {
            *to = *from;
        }
        self.len += cut;
        if whole { Ok(()) } else { Err(fmt::Error) }
    }
}

/// A size in bytes: `0 B`, `1008 B`, `4 KiB`, `1.5 MiB`. One decimal unless it is a whole number of its unit.
#[derive(Clone, Copy)]
pub(super) struct Bytes(pub(super) u64);

impl Bytes {
    pub(super) fn of(size: usize) -> Self {
        Self(wide(size))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let size = u128::from(self.0);
        if size < 1024 {
            return f.pad(Text::<16>::new(format_args!("{size} B")).as_str());
        }
        let mut unit: u128 = 1;
        for name in UNITS {
            unit *= 1024;
            // Round to the nearest tenth first, so that 1.0 MiB is not written as "1024.0 KiB".
            let tenths = (size * 10 + unit / 2) / unit;
            if tenths < 10_240 {
                let text = if size.is_multiple_of(unit) {
                    Text::<16>::new(format_args!("{} {name}", size / unit))
                } else {
                    Text::new(format_args!("{}.{} {name}", tenths / 10, tenths % 10))
                };
                return f.pad(text.as_str());
            }
        }
        Ok(())
    }
}

/// A count with commas between groups of three digits: `1,234,567`.
#[derive(Clone, Copy)]
pub(super) struct Count(pub(super) u64);

impl Count {
    pub(super) fn of(count: usize) -> Self {
        Self(wide(count))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = Text::<32>::new(format_args!(""));
        let mut power: u64 = 1_000_000_000_000_000_000;
        while power > 1 {
            let group = self.0 / power % 1000;
            if !text.as_str().is_empty() {
                write!(text, "{group:03},")?;
            } else if group > 0 {
                write!(text, "{group},")?;
            }
            power /= 1000;
        }
        let last = self.0 % 1000;
        if text.as_str().is_empty() {
            write!(text, "{last}")?
        } else {
            write!(text, "{last:03}")?
        }
        f.pad(text.as_str())
    }
}

/// A share as a percentage: `46.1 %`. Only 0 is written as 0 and only 1 as 100.
#[derive(Clone, Copy)]
pub(super) struct Percent(pub(super) f64);

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = self.0 * 100.0;
        if percent <= 0.0 {
            f.pad("0 %")
        } else if percent >= 100.0 {
            f.pad("100 %")
        } else {
            f.pad(Text::<16>::new(format_args!("{:.1} %", percent.clamp(0.1, 99.9))).as_str())
        }
    }
}

#[cfg(test)]
#[path = "../../tests/unit/inspect/human.rs"]
mod tests;
