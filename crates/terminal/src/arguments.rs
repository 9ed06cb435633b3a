//! Values of command-line options.

use std::str::FromStr;

/// Reads a size in bytes: a number, or one followed by `K`, `M` or `G` for 2^10, 2^20 or 2^30 bytes.
///
/// # Errors
///
/// If the text is not a size, or the size is 0 or too large: a message for the user.
///
/// ```
/// assert_eq!(smalloc_terminal::parse_size("64K"), Ok(65_536));
/// assert!(smalloc_terminal::parse_size("64 kB").is_err());
/// ```
pub fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let number: usize =
        digits.parse().map_err(|_| "a size is a number of bytes, or one with K, M or G behind it")?;
    match number.checked_mul(unit) {
        Some(0) => Err("a size cannot be 0".into()),
        Some(size) => Ok(size),
        None => Err("a size must fit in 64 bits".into()),
    }
}

/// The free list of a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// [`smalloc::Linked`].
    Linked,
    /// [`smalloc::Indexed`].
    Indexed,
}

impl FromStr for List {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "linked" => Ok(Self::Linked),
            "indexed" => Ok(Self::Indexed),
            _ => Err("a free list is linked or indexed".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::parse_size;

    #[test]
    fn sizes_are_read() {
        for (text, size) in [("1", 1), ("64K", 64 << 10), ("3m", 3 << 20), ("2G", 2 << 30)] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for wrong in ["", "K", "0", "0G", "1T", "1.5M", "-1", "99999999999G", "18446744073709551616", "1é"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
