//! The lines of a text, and the trait of the formats that have one call a line.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, BufRead, Read};

use anyhow::{Context, Result};

use super::call::{Call, Origin};
use super::sites::Sites;

/// Bytes of the longest line.
const LONGEST: u64 = 1 << 20;

/// A line that has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    Call(Call),
    /// Not replayed. Names its kind in the plural.
    Other(&'static str),
}

/// A format that has one call a line.
pub(super) trait Syntax {
    /// The name of such a text, with its article.
    fn format(&self) -> &'static str;

    /// Reads a line that is not empty, or says why it is not a line of this format. It may skip some of the following
    /// lines.
    fn read(&mut self, line: &[u8], behind: &mut Lines) -> Result<Line, &'static str>;

    /// Thread and call stack of the call that was read last.
    fn origin(&self) -> Origin {
        Origin::default()
    }

    /// Finds the sites of the call stacks from now on, if texts of this format have any.
    fn name_sites(&mut self) {}

    /// The call sites so far; none if they were not requested, or if there are none.
    fn sites(&self) -> Option<&Sites> {
        None
    }

    /// An error where a trace cannot end.
    fn end(&self) -> Result<(), &'static str> {
        Ok(())
    }

    /// A sentence about the calls that texts of this format lack.
    fn remark(&self) -> Option<&'static str> {
        None
    }
}

/// A line without spaces around it. Bytes that are not text are replaced.
pub(super) fn text(line: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(line.trim_ascii())
}

/// The lines of a text, without their line breaks. It can look ahead.
pub(super) struct Lines {
    input: Box<dyn BufRead>,
    /// Lines that were read ahead. An error or the end is the last of them.
    ahead: VecDeque<io::Result<Option<Vec<u8>>>>,
    /// The number of the line that was read last, from 1 on.
    pub(super) number: u64,
}

impl Lines {
    pub(super) fn new(input: Box<dyn BufRead>) -> Self {
        Self { input, ahead: VecDeque::new(), number: 0 }
    }

    /// Reads the next line into `line`. False at the end.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> Result<bool> {
        self.number += 1;
        let there = match self.ahead.pop_front() {
            None => self.read(line),
            Some(ahead) => ahead.map(|ahead| match ahead {
                Some(ahead) => {
                    *line = ahead;
                    true
                }
                None => false,
            }),
        };
        there.with_context(|| format!("line {}", self.number))
    }

    /// The line that is `index` lines behind the next one. None if the text ends before it, or cannot be read.
    pub(super) fn peek(&mut self, index: usize) -> Option<&[u8]> {
        while self.ahead.len() <= index {
            if !matches!(self.ahead.back(), None | Some(Ok(Some(_)))) {
                return None;
            }
            let mut line = Vec::new();
            let there = self.read(&mut line);
            self.ahead.push_back(there.map(|there| there.then_some(line)));
        }
        self.ahead.get(index)?.as_ref().ok()?.as_deref()
    }

    /// Skips lines that were read ahead.
    pub(super) fn skip(&mut self, lines: usize) {
        self.number += lines as u64;
        self.ahead.drain(..lines);
    }

    fn read(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        let bytes = self.input.by_ref().take(LONGEST).read_until(b'\n', line)?;
        if bytes as u64 == LONGEST {
            return Err(io::Error::other(format!("it has {LONGEST} bytes and more")));
        }
        if line.ends_with(b"\n") {
            line.pop();
        }
        if line.ends_with(b"\r") {
            line.pop();
        }
        Ok(bytes > 0)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn lines(text: &str) -> Lines {
        Lines::new(Box::new(io::Cursor::new(text.to_owned())))
    }

    #[test]
    fn lines_are_counted_and_looked_at_ahead() {
        let (mut lines, mut line) = (lines("a\r\nb\n\nd"), Vec::new());
        assert_eq!(lines.peek(3), Some(&b"d"[..]));
        assert_eq!(lines.peek(4), None);
        assert_eq!(lines.peek(2), Some(&b""[..]));
        assert!(lines.next(&mut line).is_ok_and(|there| there) && line == b"a");
        assert_eq!(lines.peek(1), Some(&b""[..]));
        lines.skip(2);
        assert!(lines.next(&mut line).is_ok_and(|there| there));
        assert_eq!((line.as_slice(), lines.number), (&b"d"[..], 4));
        assert!(lines.next(&mut line).is_ok_and(|there| !there));
    }

    #[test]
    fn an_error_ahead_is_told_in_its_turn() {
        let text = format!("a\n{}", "x".repeat(2 << 20));
        let (mut lines, mut line) = (lines(&text), Vec::new());
        assert_eq!(lines.peek(1), None);
        assert!(lines.next(&mut line).is_ok_and(|there| there) && line == b"a");
        let error = lines.next(&mut line).expect_err("the line is too long");
        assert_eq!(format!("{error:#}"), "line 2: it has 1048576 bytes and more");
    }
}
