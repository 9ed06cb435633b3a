//! Numbers as people read them: sizes with a unit, counts with commas, and text that knows its width.

use core::fmt::{self, Write};

use super::number::wide;

/// A short text on the stack, for what has to be padded. What does not fit is cut off.
pub(super) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    /// The text that `arguments` make.
    pub(super) fn new(arguments: fmt::Arguments<'_>) -> Self {
        let mut text = Self { bytes: [0; N], len: 0 };
        // A text that is cut off is still a text: the error says no more than that.
        let _ = text.write_fmt(arguments);
        text
    }

    /// What was written.
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

/// A size in bytes: `0 B`, `1008 B`, `4 KiB`, `1.5 MiB`. With one decimal unless it is a whole number of its unit.
#[derive(Clone, Copy)]
pub(super) struct Bytes(pub(super) u64);

impl Bytes {
    /// The size of something that lies in memory.
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
            // Rounded to the nearest tenth first: what would read "1024.0 KiB" is 1.0 MiB.
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

/// A count with a comma between groups of three digits: `1,234,567`.
#[derive(Clone, Copy)]
pub(super) struct Count(pub(super) u64);

impl Count {
    /// The count of something that lies in memory.
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

/// A share as a percentage: `46.1 %`. Only all is 100 and only nothing is 0; what would round to them is held back.
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
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn sizes_have_the_unit_that_keeps_them_short() {
        let cases: [(u64, &str); 12] = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (1537, "1.5 KiB"),
            (1_048_575, "1.0 MiB"),
            (1 << 20, "1 MiB"),
            (268_435_456, "256 MiB"),
            (123_731_968, "118 MiB"),
            (123_731_968 + 16, "118.0 MiB"),
            (1 << 40, "1 TiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (size, text) in cases {
            assert_eq!(Bytes(size).to_string(), text);
        }
    }

    #[test]
    fn counts_are_grouped() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_000_000, "1,000,000"),
            (12_034_005, "12,034,005"),
            (u64::MAX, "18,446,744,073,709,551,615"),
        ];
        for (count, text) in cases {
            assert_eq!(Count(count).to_string(), text);
        }
    }

    #[test]
    fn only_all_is_100_percent_and_only_nothing_is_0() {
        let shares = [0.0, 0.000_01, 0.461, 0.999_99, 1.0].map(|share| Percent(share).to_string());
        assert_eq!(shares, ["0 %", "0.1 %", "46.1 %", "99.9 %", "100 %"]);
    }

    #[test]
    fn numbers_can_be_padded() {
        assert_eq!(
            std::format!("[{:>8}] [{:<7}] [{:>6}]", Bytes(2048), Count(1234), Percent(0.5)),
            "[   2 KiB] [1,234  ] [50.0 %]"
        );
    }

    #[test]
    fn text_that_does_not_fit_is_cut_between_characters() {
        assert_eq!(Text::<4>::new(format_args!("abé{}", "d")).as_str(), "abé");
        assert_eq!(Text::<4>::new(format_args!("abc{}", "é")).as_str(), "abc");
    }
}
