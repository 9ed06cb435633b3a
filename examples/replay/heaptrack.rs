//! What `heaptrack --raw` writes: `+ SIZE TRACE ADDRESS` and `- ADDRESS`, in hexadecimal digits, among other lines.
//!
//! What `heaptrack` writes without `--raw` has no addresses, and cannot be replayed.

use super::call::{Call, Line, MALLOC_ALIGN, allocated, hexadecimal};

/// Reads a line, or says what is wrong with it.
pub(crate) fn line(text: &str) -> Result<Line, &'static str> {
    const NOT_ONE: &str = "not a line of heaptrack";
    let mut words = text.split_ascii_whitespace();
    let Some(first) = words.next() else { return Ok(Line::Other("empty lines")) };
    let numbers: Option<Vec<u64>> = words.map(hexadecimal).collect();
    match (first, numbers.as_deref()) {
        ("+", Some(&[size, _, block])) => Ok(Line::Call(allocated(block, size as usize, MALLOC_ALIGN))),
        ("-", Some(&[0])) => Ok(Line::Other("frees of null pointers")),
        ("-", Some(&[block])) => Ok(Line::Call(Call::Free { block })),
        ("+", Some([_])) | ("a" | "s" | "i", _) => {
            Err("heaptrack has taken the addresses out: record with `heaptrack --raw`")
        }
        ("v" | "x" | "X" | "I" | "S" | "m" | "t" | "c" | "R" | "A", _) => {
            Ok(Line::Other("lines about the program, its stacks and the time"))
        }
        _ if first.starts_with('#') => Ok(Line::Other("comments")),
        _ => Err(NOT_ONE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line() {
        let alloc = Call::Alloc { block: 0x55c2_1555_1540, size: 0x11c00, align: 16 };
        assert_eq!(line("+ 11c00 4 55c215551540"), Ok(Line::Call(alloc)));
        assert_eq!(line("- 55c215563450"), Ok(Line::Call(Call::Free { block: 0x55c2_1556_3450 })));
        let refused = Call::Refused { block: None, size: 0x10, align: 16 };
        assert_eq!(line("+ 10 4 0"), Ok(Line::Call(refused)));
        for other in [
            "v 10400 3",
            "x b /usr/bin/ls",
            "X ls /",
            "I 1000 5e2990",
            "m 1 -",
            "t 7f49 0",
            "c 1a",
            "R 5",
            "",
        ] {
            assert!(matches!(line(other), Ok(Line::Other(_))), "{other}");
        }
        assert!(line("+ 0").is_err_and(|why| why.contains("--raw")));
        for bad in ["+ 11c00 4", "- xyz", "- 1 2", "hello"] {
            assert_eq!(line(bad), Err("not a line of heaptrack"), "{bad}");
        }
    }
}
