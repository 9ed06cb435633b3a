//! The file that `heaptrack --raw` writes: `+ SIZE STACK ADDRESS` and `- ADDRESS`, in hexadecimal digits, among other
//! lines. Files written without `--raw` have no addresses, and cannot be replayed.
//!
//! A `realloc` is written as a free and an allocation, after it has happened: between the two may stand the call stack
//! (`t`) and the libraries (`m`) of the new block, but no other call. Only such a free can be late.
//!
//! The program's command line (`X`) and the names of files (`x`, `m`) are written as they are, line breaks included.

use super::call::{Call, MALLOC_ALIGN, Origin, allocated, hexadecimal};
use super::lines::{Line, Lines, Syntax, text};
use super::sites::{Sites, Stacks};

/// More bytes than a command line has here: heaptrack writes at most 4096 of it.
const COMMAND_LINE: usize = 64 << 10;
/// No path is longer, in bytes.
const PATH: u64 = 4096;

#[derive(Default)]
pub(super) struct Heaptrack {
    /// None unless sites are requested.
    stacks: Option<Stacks>,
    /// The path of the program, whose name is `x` among the libraries.
    program: String,
    /// The stack of the allocation that was read last; 0 for a free.
    stack: u32,
}

impl Syntax for Heaptrack {
    fn format(&self) -> &'static str {
        "a trace of heaptrack"
    }

    fn read(&mut self, line: &[u8], behind: &mut Lines) -> Result<Line, &'static str> {
        const ABOUT: Line = Line::Other("lines about the program, its stacks and the time");
        let text = text(line);
        let mut words = text.split_ascii_whitespace();
        let Some(first) = words.next() else { return Ok(Line::Other("empty lines")) };
        match first {
            "X" => skip_command_line(behind),
            "x" => {
                self.program = line_name(&text).to_owned();
                skip_name(line, words.next(), behind);
            }
            "m" => {
                self.map(line);
                skip_name(line, words.next(), behind);
            }
            _ => {}
        }
        let numbers: Option<Vec<u64>> = words.map(hexadecimal).collect();
        match (first, numbers.as_deref()) {
            ("+", Some(&[size, stack, block])) => {
                self.stack = u32::try_from(stack).unwrap_or(0);
                Ok(Line::Call(allocated(block, size as usize, MALLOC_ALIGN)))
            }
            ("-", Some(&[0])) => Ok(Line::Other("frees of null pointers")),
            ("-", Some(&[block])) => {
                self.stack = 0;
                Ok(Line::Call(Call::Free { block, late: is_alloc_next(behind) }))
            }
            ("t", Some(&[address, parent])) => {
                if let Some(stacks) = &mut self.stacks {
                    stacks.push(address, u32::try_from(parent).unwrap_or(0));
                }
                Ok(ABOUT)
            }
            ("+", Some([_])) | ("a" | "s" | "i", _) => {
                Err("heaptrack has taken the addresses out: record with `heaptrack --raw`")
            }
            ("v" | "x" | "X" | "I" | "S" | "m" | "t" | "c" | "R" | "A", _) => Ok(ABOUT),
            _ if first.starts_with('#') => Ok(Line::Other("comments")),
            _ => Err("not a line of heaptrack"),
        }
    }

    fn origin(&self) -> Origin {
        let site = self.sites().map_or(0, |sites| sites.site_of(self.stack));
        Origin { stack: self.stack, site, ..Origin::default() }
    }

    fn name_sites(&mut self) {
        self.stacks = Some(Stacks::default());
    }

    fn sites(&self) -> Option<&Sites> {
        self.stacks.as_ref().map(|stacks| &stacks.sites)
    }

    fn remark(&self) -> Option<&'static str> {
        Some("heaptrack records no memalign, no pvalloc, and no free by realloc(p, 0)")
    }
}

impl Heaptrack {
    /// Reads where a file is mapped: `m LENGTH PATH BASE`, and an address in the file and a number of bytes for each
    /// part. The path `-` says that the files so far are unmapped.
    fn map(&mut self, line: &[u8]) {
        let Some(stacks) = &mut self.stacks else { return };
        let text = text(line);
        let path = line_name(&text);
        if path == "-" {
            return stacks.unmap();
        }
        let Some((_, numbers)) = text.split_once(path).filter(|_| !path.is_empty()) else { return };
        let numbers: Option<Vec<u64>> = numbers.split_ascii_whitespace().map(hexadecimal).collect();
        let Some((&base, parts)) = numbers.as_deref().and_then(<[u64]>::split_first) else { return };
        let path = if path == "x" { self.program.clone() } else { path.to_owned() };
        for part in parts.chunks_exact(2) {
            stacks.map(&path, base, base.wrapping_add(part[0]), part[1]);
        }
    }
}

/// Skips the further lines of the command line, which end before the line `I`. Without such a line there are none.
fn skip_command_line(behind: &mut Lines) {
    let (mut lines, mut bytes) = (0, 0);
    while let Some(line) = behind.peek(lines) {
        let text = text(line);
        let mut words = text.split_ascii_whitespace();
        if words.next() == Some("I")
            && words.next().is_some()
            && words.all(|word| hexadecimal(word).is_some())
        {
            return behind.skip(lines);
        }
        bytes += line.len();
        if bytes > COMMAND_LINE {
            return;
        }
        lines += 1;
    }
}

/// Skips the lines that belong to a name with line breaks. `length` is the number of its bytes, which older versions do
/// not write.
fn skip_name(line: &[u8], length: Option<&str>, behind: &mut Lines) {
    let Some(length) = length else { return };
    let Some(bytes) = hexadecimal(length).filter(|&bytes| bytes <= PATH) else { return };
    // The first word is one letter, and spaces stand between words.
    let mut missing = (bytes as usize + 3 + length.len()).saturating_sub(line.len());
    let mut lines = 0;
    while missing > 0 {
        let Some(next) = behind.peek(lines) else { return };
        lines += 1;
        missing -= 1;
        // The name ends where this line does, or where a space follows it.
        if next.get(missing).is_none_or(|&byte| byte == b' ') && missing <= next.len() {
            return behind.skip(lines);
        }
        missing = missing.saturating_sub(next.len());
    }
}

/// The path in a line `x` or `m`: the word behind its length, or as many letters as the length says. Older versions
/// write no length.
fn line_name(text: &str) -> &str {
    let Some((_, rest)) = text.split_once(' ') else { return "" };
    let Some((length, name)) = rest.split_once(' ') else { return rest };
    let bytes = hexadecimal(length).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.and_then(|bytes| name.get(..bytes)).unwrap_or_else(|| name.split(' ').next().unwrap_or(""))
}

/// Whether the next call is an allocation that was written together with this one.
fn is_alloc_next(behind: &mut Lines) -> bool {
    let mut lines = 0;
    while let Some(line) = behind.peek(lines) {
        if !line.starts_with(b"t ") && !line.starts_with(b"m ") {
            return line.starts_with(b"+ ");
        }
        lines += 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::lines;
    use super::*;

    fn line(text: &str) -> Result<Line, &'static str> {
        Heaptrack::default().read(text.as_bytes(), &mut lines(""))
    }

    #[test]
    fn every_line() {
        let alloc = Call::Alloc { block: 0x55c2_1555_1540, size: 0x11c00, align: 16 };
        assert_eq!(line("+ 11c00 4 55c215551540"), Ok(Line::Call(alloc)));
        let free = Call::Free { block: 0x55c2_1556_3450, late: false };
        assert_eq!(line("- 55c215563450"), Ok(Line::Call(free)));
        let refused = Call::Refused { block: None, size: 0x10, align: 16 };
        assert_eq!(line("+ 10 4 0"), Ok(Line::Call(refused)));
        for other in [
            "v 10400 3",
            "x b /usr/bin/ls",
            "x /usr/bin/ls",
            "x 9999999 /usr/bin/ls",
            "X ls /",
            "I 1000 5e2990",
            "m 1 -",
            "m 1 x 55ba76300000 0 700 1000 229",
            "S leak:libfoo",
            "A",
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

    /// The number of lines of `behind` that a line takes.
    fn takes(line: &str, behind: &str) -> usize {
        let mut lines = lines(behind);
        assert!(
            matches!(Heaptrack::default().read(line.as_bytes(), &mut lines), Ok(Line::Other(_))),
            "{line}"
        );
        let mut left = 0;
        while lines.peek(left).is_some() {
            left += 1;
        }
        behind.lines().count() - left
    }

    #[test]
    fn line_breaks_in_names_and_arguments() {
        assert_eq!(takes("X bash -c a=1", "t=2\n- 1\n\nI love it\nI 1000 5e2990\n- 2\n"), 4);
        assert_eq!(takes("X ls", "I 1000 5e2990\n- 2\n"), 0);
        assert_eq!(takes("X ls", "t 7f49 0\n- 2\n"), 0);
        assert_eq!(takes("x 9 /bin/bash", "- 2\n"), 0);
        assert_eq!(takes("x d /tmp/a", "- 1\nbc\n- 2\n"), 2);
        assert_eq!(takes("m 8 /tmp/a", "b 55ba76300000 0 700\n- 2\n"), 1);
        assert_eq!(takes("m a /tmp/a", "bcd"), 1);
        // A length that fits no line's end is none.
        assert_eq!(takes("x d /tmp/a", "- 1\n- 20\n"), 0);
        assert_eq!(takes("x ff /tmp/a", "- 1\n- 20\n"), 0);
    }

    #[test]
    fn only_the_free_of_a_realloc_can_be_late() {
        for (behind, late) in [
            ("+ 10 1 20\n", true),
            ("t 7f49 0\nm 1 -\nt 7f50 1\n+ 10 1 20\n", true),
            ("- 30\n+ 10 1 20\n", false),
            ("c 1a\n", false),
            ("", false),
        ] {
            let free = Line::Call(Call::Free { block: 0x10, late });
            assert_eq!(Heaptrack::default().read(b"- 10", &mut lines(behind)), Ok(free), "{behind}");
        }
    }
}
