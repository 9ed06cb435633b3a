//! The recordings of smalloc itself.

use std::io::{self, BufRead};
use std::mem;

use anyhow::{Context, Result, anyhow, bail};
use smalloc::recording::{Call as Kind, HEAD_BYTES, Head, Line, Object, RECORD_BYTES, Record, TEXT_BYTES};

use super::call::{Call, Event, Origin, Recorded};
use super::sites::{Sites, Stacks};

/// Reads records, and joins the two records of a `realloc` that moved.
pub(super) struct Reader {
    head: Head,
    input: Box<dyn BufRead>,
    /// The record read ahead, and its stack.
    ahead: Option<(Record, u32)>,
    read: u64,
    /// The region whose calls are read.
    region: u16,
    /// None unless the names of sites are asked for.
    stacks: Option<Stacks>,
    /// Whether the recording has call stacks.
    has_stacks: bool,
    /// The object whose build ID and path are being read, and their bytes so far.
    object: Option<(Object, Vec<u8>)>,
    /// The stack of the next record.
    stack: u32,
    /// Bytes among which one request has its stack taken.
    interval: u64,
}

impl Reader {
    pub(super) fn new(mut input: Box<dyn BufRead>) -> Result<Self> {
        let mut head = [0; HEAD_BYTES];
        input.read_exact(&mut head).map_err(|error| incomplete(error, "the recording ends in its head"))?;
        let head = Head::from_bytes(&head)?;
        Ok(Self {
            head,
            input,
            ahead: None,
            read: 0,
            region: 0,
            stacks: None,
            has_stacks: false,
            object: None,
            stack: 0,
            interval: 0,
        })
    }

    /// Reads only the calls on that region: each region is a heap of its own.
    pub(super) fn choose(&mut self, region: u16) {
        self.region = region;
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// Finds the sites of the call stacks from now on, if the recording has any.
    pub(super) fn name_sites(&mut self) {
        self.stacks = Some(Stacks::default());
    }

    /// The call sites so far; none if they are not asked for, or if there are none.
    pub(super) fn sites(&self) -> Option<&Sites> {
        self.stacks.as_ref().filter(|_| self.has_stacks).map(|stacks| &stacks.sites)
    }

    /// The next call; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Event>> {
        let Some((record, stack)) = self.take()? else { return Ok(None) };
        let recorded = Some(Recorded { offset: record.offset, hops: record.hops() });
        let (block, old) = (record.offset.map(name), record.old_offset.map(name));
        let (size, align) = (record.size, record.align);
        let call = match (record.call, block) {
            (Kind::Dealloc | Kind::Sfree | Kind::MovedFrom, Some(block)) => Call::Free { block, late: false },
            (Kind::Held, Some(block)) => Call::Held { block, size },
            (Kind::Limit, _) => Call::Limit { bytes: size },
            (Kind::Alloc | Kind::AllocZeroed | Kind::Smalloc, Some(block)) => {
                Call::Alloc { block, size, align }
            }
            (Kind::Realloc, Some(new)) => self.realloc(old, new, size, align)?,
            (_, None) => Call::Refused { block: old, size, align },
        };
        let origin = self.origin(&record, stack);
        Ok(Some(Event { call, recorded: recorded.filter(|_| !matches!(call, Call::Free { .. })), origin }))
    }

    fn origin(&self, record: &Record, stack: u32) -> Origin {
        let site = self.sites().map_or(0, |sites| sites.site_of(stack));
        let weight = match self.interval {
            0 | 1 => 1,
            _ if stack == 0 => 0,
            interval => weight(record.size, interval, self.read),
        };
        Origin { thread: record.thread, stack, site, weight }
    }

    /// A `realloc` that moved frees its old place with the next record, unless another thread has come in between. Then
    /// it becomes an allocation, and a free later.
    fn realloc(&mut self, old: Option<u64>, new: u64, size: usize, align: usize) -> Result<Call> {
        let old = old.with_context(|| format!("record {}: a realloc without an old offset", self.read))?;
        if old == new {
            return Ok(Call::Realloc { old, new, size, align });
        }
        match self.take()? {
            Some((next, _)) if next.call == Kind::MovedFrom && next.offset.map(name) == Some(old) => {
                Ok(Call::Realloc { old, new, size, align })
            }
            next => {
                self.ahead = next;
                Ok(Call::Alloc { block: new, size, align })
            }
        }
    }

    /// The next record of the region, and the number of its stack.
    fn take(&mut self) -> Result<Option<(Record, u32)>> {
        if let Some(record) = self.ahead.take() {
            return Ok(Some(record));
        }
        loop {
            match self.read()? {
                Some(Line::Call(record)) => {
                    let stack = mem::take(&mut self.stack);
                    if record.region == self.region {
                        return Ok(Some((record, stack)));
                    }
                }
                Some(line) => self.site(line)?,
                None => return Ok(None),
            }
        }
    }

    /// A record that tells of call sites.
    fn site(&mut self, line: Line) -> Result<()> {
        match line {
            Line::Interval { bytes } => {
                self.interval = bytes;
                if let Some(stacks) = &mut self.stacks {
                    stacks.sites.interval = bytes;
                }
            }
            Line::Object(object) => {
                self.object = Some((object, Vec::new()));
                self.add_object();
            }
            Line::Text(text) => {
                self.add_text(&text)?;
                self.add_object();
            }
            Line::Frame { caller, address } => {
                self.has_stacks = true;
                if let Some(stacks) = &mut self.stacks {
                    stacks.push(address, caller);
                }
            }
            Line::Stack { frame } => self.stack = frame,
            _ => {}
        }
        Ok(())
    }

    fn add_text(&mut self, text: &[u8; TEXT_BYTES]) -> Result<()> {
        let number = self.read;
        let (object, bytes) =
            self.object.as_mut().with_context(|| format!("record {number}: a text of no object"))?;
        let missing = (object.build_id_bytes + object.path_bytes).saturating_sub(bytes.len());
        bytes.extend(text.iter().take(missing));
        Ok(())
    }

    /// Maps the object once its build ID and its path are complete.
    fn add_object(&mut self) {
        let is_complete = |(object, bytes): &mut (Object, Vec<u8>)| {
            bytes.len() >= object.build_id_bytes.saturating_add(object.path_bytes)
        };
        let Some((object, bytes)) = self.object.take_if(is_complete) else { return };
        let (build_id, path) = bytes.split_at(object.build_id_bytes);
        if let Some(stacks) = &mut self.stacks {
            let path = String::from_utf8_lossy(path);
            stacks.load(&path, build_id, object.base, object.start..object.end);
        }
    }

    /// The next record, of any kind and region.
    fn read(&mut self) -> Result<Option<Line>> {
        let mut bytes = [0; RECORD_BYTES];
        let number = self.read + 1;
        if self.input.fill_buf()?.is_empty() {
            return self.end();
        }
        self.input
            .read_exact(&mut bytes)
            .map_err(|error| incomplete(error, "the file ends in the midst of it"))
            .with_context(|| format!("record {number}"))?;
        let record = Line::from_bytes(&bytes).with_context(|| format!("record {number}"))?;
        let Some(record) = record else { return self.end() };
        self.read = number;
        Ok(Some(record))
    }

    /// No more records: an error if the header says that there are more.
    fn end(&self) -> Result<Option<Line>> {
        let (read, all) = (self.read, self.head.records);
        if read < all { bail!("it ends after {read} of {all} records") } else { Ok(None) }
    }
}

/// The requests that one of `size` bytes stands for, whose stack was taken by chance: 1 by the chance, rounded up or
/// down so that the mean is right. `number` decides that; the same one always does it alike.
fn weight(size: usize, interval: u64, number: u64) -> u32 {
    let chance = -(-(size.max(1) as f64) / interval.max(1) as f64).exp_m1();
    let fraction = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) as f64 / 2_f64.powi(64);
    (1.0 / chance + fraction) as u32
}

/// The reason of a failed read: `cut_off` if the file is too short, or else the error.
fn incomplete(error: io::Error, cut_off: &'static str) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => anyhow!(cut_off),
        _ => error.into(),
    }
}

/// An offset as the name of a block. No block has the name 0.
fn name(offset: usize) -> u64 {
    offset as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn weights_are_right_in_the_mean() {
        for (size, interval) in [(16, 4096), (1000, 1000), (700, 1000), (1 << 30, 1000)] {
            let mean = (0..10_000).map(|number| f64::from(weight(size, interval, number))).sum::<f64>() / 1e4;
            let exact = 1.0 / (1.0 - (-(size as f64) / interval as f64).exp());
            assert!((mean / exact - 1.0).abs() < 1e-3, "{size}: {mean}, {exact}");
        }
    }
}
