//! What glibc's `mtrace` writes: `@ CALLER + 0xADDRESS 0xSIZE`, `@ CALLER - 0xADDRESS`, a `realloc` in two lines, `<` with
//! the old address and `>` with the new one, and `!` for one that was refused.

use super::call::{Call, Line, MALLOC_ALIGN, allocated, hexadecimal};

/// Reads lines, of which a `realloc` takes two.
#[derive(Default)]
pub(crate) struct Reader {
    /// The old address of a `realloc` whose second line is still to come.
    old: Option<u64>,
}

impl Reader {
    /// Whether a `realloc` has only its first line so far.
    pub(crate) fn is_amid(&self) -> bool {
        self.old.is_some()
    }

    /// Reads a line. None if it is not one of this format, or not in its place.
    pub(crate) fn line(&mut self, text: &str) -> Option<Line> {
        if text.starts_with("= Start") || text.starts_with("= End") {
            return Some(Line::Other("starts and ends of the trace"));
        }
        // A caller's name may have spaces in it, and signs; so the line is read from its end.
        let mut words = text.strip_prefix("@ ")?.split_ascii_whitespace().rev();
        let last = words.next()?;
        let before = words.next()?;
        if let ("-" | "<", block) = (before, address(last)?) {
            if before == "<" {
                let first = self.old.replace(block).is_none();
                return first.then_some(Line::Other("first lines of reallocs"));
            }
            return Some(Line::Call(Call::Free { block }));
        }
        let (size, block) = (hexadecimal(last)? as usize, address(before)?);
        let align = MALLOC_ALIGN;
        Some(Line::Call(match words.next()? {
            "+" => allocated(block, size, align),
            ">" => Call::Realloc { old: self.old.take()?, new: block, size, align },
            "!" => Call::Refused { block: Some(block), size, align },
            _ => return None,
        }))
    }
}

/// An address as `printf` writes it.
fn address(word: &str) -> Option<u64> {
    if word == "(nil)" { Some(0) } else { hexadecimal(word) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line() {
        let align = MALLOC_ALIGN;
        let alloc = |block, size| Line::Call(Call::Alloc { block, size, align });
        let mut reader = Reader::default();
        for (text, expected) in [
            ("= Start", Line::Other("starts and ends of the trace")),
            ("@ ./mt:[0x11c0] + 0x5618b4ca74a0 0x28e", alloc(0x5618_b4ca_74a0, 0x28e)),
            ("@ /lib/libc.so.6:(__strdup+1a)[0x9e9aa] + 0x20 0x6", alloc(0x20, 6)),
            ("@ a program:(operator new + 1)[0x9] + 0x30 0", alloc(0x30, 0)),
            ("@ ./mt:[0x11e8] < 0x20", Line::Other("first lines of reallocs")),
            ("@ ./mt:[0x11e8] > 0x40 0x7d0", {
                Line::Call(Call::Realloc { old: 0x20, new: 0x40, size: 2000, align })
            }),
            ("@ ./mt:[0x1264] ! 0x40 0x4000", {
                Line::Call(Call::Refused { block: Some(0x40), size: 0x4000, align })
            }),
            (
                "@ ./mt:[0x1274] + (nil) 0x4000",
                Line::Call(Call::Refused { block: None, size: 0x4000, align }),
            ),
            ("@ ./mt:[0x1284] - 0x40", Line::Call(Call::Free { block: 0x40 })),
            ("= End", Line::Other("starts and ends of the trace")),
        ] {
            assert_eq!(reader.line(text), Some(expected), "{text}");
        }
        for bad in ["", "hello", "@ x > 0x40 0x10", "@ x + 0x40", "@ x * 0x40 0x10", "x + 0x40 0x10"] {
            assert_eq!(reader.line(bad), None, "{bad}");
        }
    }
}
