//! Numbers as text.

use std::fmt;

/// Shows a number with its thousands separated by commas.
///
/// ```
/// assert_eq!(smalloc_terminal::Count(1_234_567).to_string(), "1,234,567");
/// ```
pub struct Count(pub u64);

impl From<usize> for Count {
    fn from(number: usize) -> Self {
        Self(number as u64)
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::with_capacity(digits.len() * 2);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}

/// Shows a number of bytes in the largest unit that it fills.
///
/// ```
/// assert_eq!(smalloc_terminal::Bytes(64 << 10).to_string(), "64 KiB");
/// assert_eq!(smalloc_terminal::Bytes(100_000).to_string(), "97.7 KiB");
/// ```
pub struct Bytes(pub usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let text = match units.into_iter().find(|&(_, unit)| self.0 >= unit) {
            Some((name, unit)) if self.0.is_multiple_of(unit) => format!("{} {name}", self.0 / unit),
            Some((name, unit)) => format!("{:.1} {name}", self.0 as f64 / unit as f64),
            None => format!("{} B", self.0),
        };
        f.pad(&text)
    }
}
