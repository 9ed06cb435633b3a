//! The text of Android's `memory_replay`, one call a line: `THREAD: malloc ADDRESS SIZE`, `calloc ADDRESS COUNT SIZE`,
//! `memalign ADDRESS ALIGN SIZE`, `realloc NEW OLD SIZE`, `free ADDRESS`, `thread_done 0x0`.
//!
//! A call may be followed by the times at which it began and ended, in nanoseconds, and in newer traces by the number
//! of a freed block's bytes that were resident. None of it changes a replay.

use super::call::{Call, MALLOC_ALIGN, Origin, address, allocated, reallocated};
use super::lines::{Line, Lines, Syntax, text};

#[derive(Default)]
pub(super) struct Android {
    /// The thread of the call that was read last.
    thread: u32,
}

impl Syntax for Android {
    fn format(&self) -> &'static str {
        "a trace for memory_replay"
    }

    fn read(&mut self, line: &[u8], _: &mut Lines) -> Result<Line, &'static str> {
        let text = text(line);
        let thread = text.split(':').next().and_then(|thread| thread.parse().ok());
        self.thread = thread.unwrap_or(0);
        self::line(&text).ok_or("not a line of memory_replay")
    }

    fn origin(&self) -> Origin {
        Origin { thread: self.thread, ..Origin::default() }
    }
}

/// Reads a line. None if it is not one of this format.
pub(super) fn line(text: &str) -> Option<Line> {
    let mut words = text.split_ascii_whitespace();
    words.next()?.strip_suffix(':')?.parse::<i64>().ok()?;
    let call = words.next()?;
    let block = address(words.next()?)?;
    let line = match call {
        "malloc" => Line::Call(allocated(block, size(words.next()?)?, MALLOC_ALIGN)),
        "calloc" => {
            let bytes = size(words.next()?)?.saturating_mul(size(words.next()?)?);
            Line::Call(allocated(block, bytes, MALLOC_ALIGN))
        }
        "memalign" => {
            let (align, bytes) = (size(words.next()?)?, size(words.next()?)?);
            Line::Call(match (block, align.max(1).checked_next_power_of_two()) {
                // A request may be refused for its alignment, which can then be any number.
                (0, _) => Call::Refused { block: None, size: bytes, align },
                (block, Some(align)) => Call::Alloc { block, size: bytes, align },
                (_, None) => return None,
            })
        }
        "realloc" => {
            let old = address(words.next()?)?;
            Line::Call(reallocated(block, old, size(words.next()?)?))
        }
        "free" if block == 0 => Line::Other("frees of null pointers"),
        "free" => Line::Call(Call::Free { block, late: true }),
        "thread_done" => Line::Other("ends of threads"),
        _ => return None,
    };
    words.all(|word| word.parse::<i128>().is_ok()).then_some(line)
}

/// A size, a count or an alignment: a decimal number, or a hexadecimal one with `0x`. A negative number stands for the
/// large one that the program passed.
fn size(word: &str) -> Option<usize> {
    let number = match word.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok()?,
        None if word.starts_with('-') => word.parse::<i64>().ok()?.cast_unsigned(),
        None => word.parse().ok()?,
    };
    usize::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call() {
        let align = MALLOC_ALIGN;
        let alloc = |block, size, align| Line::Call(Call::Alloc { block, size, align });
        let free = Line::Call(Call::Free { block: 0x10, late: true });
        let refused = |block, size, align| Line::Call(Call::Refused { block, size, align });
        for (text, expected) in [
            ("186: malloc 0xb6038060 20", alloc(0xb603_8060, 20, 16)),
            ("186: malloc 0xb6038060 20 1234 1250", alloc(0xb603_8060, 20, 16)),
            ("1: calloc 0x10 32 4", alloc(0x10, 128, 16)),
            ("1: calloc 0x0 9223372036854775808 4", refused(None, usize::MAX, align)),
            ("1: memalign 0x10 24 104", alloc(0x10, 104, 32)),
            ("1: realloc 0x20 0x10 12", Line::Call(Call::Realloc { old: 0x10, new: 0x20, size: 12, align })),
            ("1: realloc 0x20 0x10 12 -1 7 9", {
                Line::Call(Call::Realloc { old: 0x10, new: 0x20, size: 12, align })
            }),
            ("1: realloc 0x20 0x0 12", alloc(0x20, 12, 16)),
            ("1: realloc 0x0 0x10 0", free),
            ("1: realloc 0x0 0x10 9", refused(Some(0x10), 9, align)),
            ("1: malloc 0x0 9", refused(None, 9, align)),
            ("1: malloc (nil) 9", refused(None, 9, align)),
            ("1: free 0x10", free),
            ("1: free 0x10 12", free),
            ("1: free 0x10 98123460789 98123460999", free),
            ("1: free 0x10 12 98123460789 98123460999", free),
            ("1: free 0x0", Line::Other("frees of null pointers")),
            ("187: thread_done 0x0", Line::Other("ends of threads")),
            ("187: thread_done 0x0 98123462789", Line::Other("ends of threads")),
        ] {
            assert_eq!(line(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "malloc 0x10 20",
            "x: free 0x10",
            "1: malloc 0x10",
            "1: malloc 0xg 1",
            "1: frob 0x10 1",
            "1: free 0x10 2: free 0x20",
            "1: free 0x10 late",
        ] {
            assert_eq!(line(bad), None, "{bad}");
        }
    }

    /// A request that is refused for its alignment may have any.
    #[test]
    fn odd_alignments() {
        for (word, align) in [
            ("0", 0),
            ("3", 3),
            ("24", 24),
            ("9223372036854775809", (1 << 63) + 1),
            ("18446744073709551615", usize::MAX),
            ("-8", usize::MAX - 7),
        ] {
            let refused = Line::Call(Call::Refused { block: None, size: 64, align });
            assert_eq!(line(&format!("1: memalign 0x0 {word} 64 5 6")), Some(refused), "{word}");
        }
        assert_eq!(line("1: memalign 0x10 18446744073709551615 64"), None);
    }
}
