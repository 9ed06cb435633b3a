//! The text of Android's `memory_replay`: `THREAD: malloc 0xADDRESS SIZE`, and so on, one call a line.

use super::call::{Call, Line, MALLOC_ALIGN, allocated, number, reallocated, size};

/// Reads a line. None if it is not one of this format. Times behind a call are not looked at.
pub(crate) fn line(text: &str) -> Option<Line> {
    let mut words = text.split_ascii_whitespace();
    words.next()?.strip_suffix(':')?.parse::<u32>().ok()?;
    let call = words.next()?;
    let address = number(words.next()?)?;
    let mut argument = || size(words.next()?);
    Some(Line::Call(match call {
        "malloc" => allocated(address, argument()?, MALLOC_ALIGN),
        "calloc" => allocated(address, argument()?.saturating_mul(argument()?), MALLOC_ALIGN),
        "memalign" => {
            let align = argument()?.max(1).checked_next_power_of_two()?;
            allocated(address, argument()?, align)
        }
        "realloc" => {
            let old = argument()? as u64;
            reallocated(address, old, argument()?)
        }
        "free" if address == 0 => return Some(Line::Other("frees of null pointers")),
        "free" => Call::Free { block: address },
        "thread_done" => return Some(Line::Other("ends of threads")),
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call() {
        let align = MALLOC_ALIGN;
        let alloc = |block, size, align| Line::Call(Call::Alloc { block, size, align });
        for (text, expected) in [
            ("186: malloc 0xb6038060 20", alloc(0xb603_8060, 20, 16)),
            ("186: malloc 0xb6038060 20 1234 1250", alloc(0xb603_8060, 20, 16)),
            ("1: calloc 0x10 32 4", alloc(0x10, 128, 16)),
            ("1: calloc 0x0 9223372036854775808 4", {
                Line::Call(Call::Refused { block: None, size: usize::MAX, align })
            }),
            ("1: memalign 0x10 24 104", alloc(0x10, 104, 32)),
            ("1: realloc 0x20 0x10 12", Line::Call(Call::Realloc { old: 0x10, new: 0x20, size: 12, align })),
            ("1: realloc 0x20 0x0 12", alloc(0x20, 12, 16)),
            ("1: realloc 0x0 0x10 0", Line::Call(Call::Free { block: 0x10 })),
            ("1: realloc 0x0 0x10 9", Line::Call(Call::Refused { block: Some(0x10), size: 9, align })),
            ("1: malloc 0x0 9", Line::Call(Call::Refused { block: None, size: 9, align })),
            ("1: free 0x10", Line::Call(Call::Free { block: 0x10 })),
            ("1: free 0x0", Line::Other("frees of null pointers")),
            ("187: thread_done 0x0", Line::Other("ends of threads")),
        ] {
            assert_eq!(line(text), Some(expected), "{text}");
        }
        for bad in
            ["", "malloc 0x10 20", "x: free 0x10", "1: malloc 0x10", "1: malloc 0xg 1", "1: frob 0x10 1"]
        {
            assert_eq!(line(bad), None, "{bad}");
        }
    }
}
