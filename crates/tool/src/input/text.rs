//! Traces that are text: finds out the format, and reads the calls.

use std::collections::BTreeMap;
use std::io::BufRead;

use anyhow::{Result, anyhow, bail, ensure};

use super::call::Event;
use super::lines::{Line, Lines, Syntax, text};
use super::shown::shown;
use super::{android, heaptrack, mtrace};

/// The text of a trace.
pub(super) struct Text {
    lines: Lines,
    pub(super) syntax: Box<dyn Syntax>,
}

impl Text {
    /// `head` are the first bytes of `input`: its first lines, or the beginning of a long one.
    pub(super) fn new(head: &[u8], input: Box<dyn BufRead>) -> Result<Self> {
        let mut lines = head.split(|&byte| byte == b'\n').zip(1..);
        let first = lines.find(|(line, _)| !line.trim_ascii().is_empty());
        let (line, number) = first.unwrap_or((head, 1));
        let first = text(line);
        let syntax: Box<dyn Syntax> = if first.starts_with("= Start") || first.starts_with("@ ") {
            Box::new(mtrace::Mtrace::default())
        } else if android::line(&first).is_some() {
            Box::new(android::Android::default())
        } else if ["v ", "+ ", "- "].iter().any(|start| first.starts_with(start)) {
            Box::new(heaptrack::Heaptrack::default())
        } else {
            let formats = super::FORMATS;
            ensure!(!is_binary(head), "the file is not text, and in no format that can be read: {formats}");
            bail!("line {number}: {} is in no format that can be read: {formats}", shown(line));
        };
        Ok(Self { lines: Lines::new(input), syntax })
    }

    /// The next call; none at the end.
    pub(super) fn next(&mut self, others: &mut BTreeMap<&'static str, u64>) -> Result<Option<Event>> {
        let mut line = Vec::new();
        loop {
            if !self.lines.next(&mut line)? {
                self.syntax.end().map_err(anyhow::Error::msg)?;
                return Ok(None);
            }
            let number = self.lines.number;
            let read = if line.trim_ascii().is_empty() {
                Ok(Line::Other("empty lines"))
            } else {
                self.syntax.read(&line, &mut self.lines)
            };
            match read.map_err(|why| refusal(number, &line, why))? {
                Line::Call(call) => {
                    let origin = self.syntax.origin();
                    return Ok(Some(Event { call, recorded: None, origin }));
                }
                Line::Other(what) => *others.entry(what).or_default() += 1,
            }
        }
    }
}

/// Whether bytes are not text. A text in an unknown encoding is not.
fn is_binary(head: &[u8]) -> bool {
    head.iter().any(|byte| matches!(byte, 0..=8 | 0x0e..=0x1a))
}

/// The error of a refused line, which is shown if it is text.
fn refusal(number: u64, line: &[u8], why: &str) -> anyhow::Error {
    match is_binary(line) {
        true => anyhow!("line {number} is not text, and {why}"),
        false => anyhow!("line {number}: {}: {why}", shown(line)),
    }
}
