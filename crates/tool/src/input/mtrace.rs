//! The text of glibc's `mtrace`: `@ CALLER + ADDRESS SIZE`, `@ CALLER - ADDRESS`, a `realloc` in two lines, `<` with
//! the old address and `>` with the new one, and `!` for one that was refused.
//!
//! After a `fork` both processes write to the same file, in pieces of 512 bytes that begin and end anywhere: lines are
//! torn, and the halves of a `realloc` may be parted.

use super::call::{Call, MALLOC_ALIGN, address, allocated, hexadecimal};
use super::lines::{Line, Lines, Syntax, text};

const PIECE: Line = Line::Other(
    "pieces of lines: two processes wrote to this file, as after a fork, and their calls are mixed",
);
const MARK: Line = Line::Other("starts and ends of the trace");
const HALF: Line = Line::Other("first lines of reallocs");

#[derive(Default)]
pub(super) struct Mtrace {
    /// The old address of a `realloc` whose second line is still to come.
    old: Option<u64>,
    /// Whether a line was in pieces.
    torn: bool,
}

impl Syntax for Mtrace {
    fn format(&self) -> &'static str {
        "a trace of mtrace"
    }

    fn read(&mut self, line: &[u8], behind: &mut Lines) -> Result<Line, &'static str> {
        let text = text(line);
        let placed = match Row::parse(&text) {
            Some(row) => self.place(row),
            None => {
                // The last line may be cut off, which is an error.
                self.torn |= behind.peek(0).is_some() && is_piece(&text);
                self.torn.then_some(PIECE)
            }
        };
        placed.ok_or("not a line of mtrace")
    }

    fn end(&self) -> Result<(), &'static str> {
        if self.old.is_some() && !self.torn { Err("it ends in the midst of a realloc") } else { Ok(()) }
    }
}

impl Mtrace {
    /// The call that a row stands for. None if the row is out of place.
    fn place(&mut self, row: Row) -> Option<Line> {
        let align = MALLOC_ALIGN;
        Some(match row {
            Row::Mark => MARK,
            Row::Free(block) => Line::Call(Call::Free { block, late: true }),
            Row::Old(block) if self.old.replace(block).is_none() || self.torn => HALF,
            Row::Old(_) => return None,
            Row::Alloc(block, size) => Line::Call(allocated(block, size, align)),
            Row::Refused(block, size) => Line::Call(Call::Refused { block: Some(block), size, align }),
            Row::New(new, size) => Line::Call(match self.old.take() {
                Some(old) => Call::Realloc { old, new, size, align },
                None if self.torn => allocated(new, size, align),
                None => return None,
            }),
        })
    }
}

/// A line, with the address and the size in it.
enum Row {
    /// The trace starts or ends.
    Mark,
    Alloc(u64, usize),
    Free(u64),
    /// The two lines of a `realloc`.
    Old(u64),
    New(u64, usize),
    Refused(u64, usize),
}

impl Row {
    /// None if the text is not a line of this format.
    fn parse(text: &str) -> Option<Self> {
        if text.starts_with("= Start") || text.starts_with("= End") {
            return Some(Self::Mark);
        }
        // A caller's name may contain spaces and signs, so the line is read from its end.
        let mut words = text.strip_prefix("@ ")?.split_ascii_whitespace().rev();
        let (last, before) = (words.next()?, words.next()?);
        match before {
            "-" => return address(last).map(Self::Free),
            "<" => return address(last).map(Self::Old),
            _ => {}
        }
        let (block, size) = (address(before)?, hexadecimal(last)? as usize);
        match words.next()? {
            "+" => Some(Self::Alloc(block, size)),
            ">" => Some(Self::New(block, size)),
            "!" => Some(Self::Refused(block, size)),
            _ => None,
        }
    }
}

/// Whether this can be a part of a line, or parts of several. It ends as a whole one does.
fn is_piece(text: &str) -> bool {
    let last = text.split_ascii_whitespace().next_back().unwrap_or_default();
    let last = last.strip_suffix("(nil)").unwrap_or(last);
    let digits = last.rsplit_once('x').map_or(last, |(_, digits)| digits);
    ["(nil)", "Start", "End"].iter().any(|end| end.ends_with(last))
        || digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::lines;
    use super::*;

    #[test]
    fn every_line() {
        let align = MALLOC_ALIGN;
        let alloc = |block, size| Line::Call(Call::Alloc { block, size, align });
        let mut reader = Mtrace::default();
        for (text, expected) in [
            ("= Start", MARK),
            ("@ ./mt:[0x11c0] + 0x5618b4ca74a0 0x28e", alloc(0x5618_b4ca_74a0, 0x28e)),
            ("@ /lib/libc.so.6:(__strdup+1a)[0x9e9aa] + 0x20 0x6", alloc(0x20, 6)),
            ("@ a program:(operator new + 1)[0x9] + 0x30 0", alloc(0x30, 0)),
            ("@ ./mt:[0x11e8] < 0x20", HALF),
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
            ("@ ./mt:[0x1284] - 0x40", Line::Call(Call::Free { block: 0x40, late: true })),
            ("= End", MARK),
        ] {
            assert_eq!(reader.read(text.as_bytes(), &mut lines("")), Ok(expected), "{text}");
        }
        for bad in ["", "hello", "@ x > 0x40 0x10", "@ x + 0x40", "@ x * 0x40 0x10", "x + 0x40 0x10"] {
            assert!(reader.read(bad.as_bytes(), &mut lines("")).is_err(), "{bad}");
        }
    }

    /// Pieces are skipped if more lines follow. Any other text that is not a line is refused.
    #[test]
    fn torn_lines() {
        let last = || lines("");
        let more = || lines("@ a - 0x10\n");
        for piece in
            ["9a04013000 0x5201", "f:[0x12] - 0x40", "@ ./mf:[0x1+ 0x10 0x8", "il)", "[0x1] + (nil) 0x9"]
        {
            let mut reader = Mtrace::default();
            assert_eq!(reader.read(piece.as_bytes(), &mut more()), Ok(PIECE), "{piece}");
            assert!(Mtrace::default().read(piece.as_bytes(), &mut last()).is_err(), "{piece}");
            // From now on the halves of a realloc may be parted.
            assert_eq!(reader.read(b"@ a < 0x10", &mut more()), Ok(HALF));
            assert_eq!(reader.read(b"@ a < 0x20", &mut more()), Ok(HALF));
            assert!(matches!(
                reader.read(b"@ a > 0x30 0x8", &mut more()),
                Ok(Line::Call(Call::Realloc { old: 0x20, .. }))
            ));
            assert!(matches!(
                reader.read(b"@ a > 0x40 0x8", &mut more()),
                Ok(Line::Call(Call::Alloc { block: 0x40, .. }))
            ));
        }
        for bad in ["hello", "Once upon a time", "\u{fffd}\u{1}", "@ a > 0x30 0x8"] {
            assert!(Mtrace::default().read(bad.as_bytes(), &mut more()).is_err(), "{bad}");
        }
    }
}
