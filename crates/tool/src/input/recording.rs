//! The recordings of smalloc itself.

use std::io::{self, BufRead};

use anyhow::{Context, Result, anyhow, bail};
use smalloc::recording::{Call as Kind, HEAD_BYTES, Head, RECORD_BYTES, Record};

use super::call::{Call, Event, Origin, Recorded};

/// Reads records, and joins the two records of a `realloc` that moved.
pub(super) struct Reader {
    head: Head,
    input: Box<dyn BufRead>,
    /// The record read ahead.
    ahead: Option<Record>,
    read: u64,
    /// The region whose calls are read.
    region: u16,
}

impl Reader {
    pub(super) fn new(mut input: Box<dyn BufRead>) -> Result<Self> {
        let mut head = [0; HEAD_BYTES];
        input.read_exact(&mut head).map_err(|error| incomplete(error, "the recording ends in its head"))?;
        Ok(Self { head: Head::from_bytes(&head)?, input, ahead: None, read: 0, region: 0 })
    }

    /// Reads only the calls on that region: each region is a heap of its own.
    pub(super) fn choose(&mut self, region: u16) {
        self.region = region;
    }

    pub(super) fn head(&self) -> &Head {
        &self.head
    }

    /// The next call; none at the end.
    pub(super) fn next(&mut self) -> Result<Option<Event>> {
        let Some(record) = self.take()? else { return Ok(None) };
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
        let origin = Origin { thread: record.thread, ..Origin::default() };
        Ok(Some(Event { call, recorded: recorded.filter(|_| !matches!(call, Call::Free { .. })), origin }))
    }

    /// A `realloc` that moved frees its old place with the next record, unless another thread has come in between. Then
    /// it becomes an allocation, and a free later.
    fn realloc(&mut self, old: Option<u64>, new: u64, size: usize, align: usize) -> Result<Call> {
        let old = old.with_context(|| format!("record {}: a realloc without an old offset", self.read))?;
        if old == new {
            return Ok(Call::Realloc { old, new, size, align });
        }
        match self.take()? {
            Some(next) if next.call == Kind::MovedFrom && next.offset.map(name) == Some(old) => {
                Ok(Call::Realloc { old, new, size, align })
            }
            next => {
                self.ahead = next;
                Ok(Call::Alloc { block: new, size, align })
            }
        }
    }

    fn take(&mut self) -> Result<Option<Record>> {
        if let Some(record) = self.ahead.take() {
            return Ok(Some(record));
        }
        loop {
            match self.read()? {
                Some(record) if record.region != self.region => {}
                record => return Ok(record),
            }
        }
    }

    /// The next record, of any region.
    fn read(&mut self) -> Result<Option<Record>> {
        let mut bytes = [0; RECORD_BYTES];
        let number = self.read + 1;
        if self.input.fill_buf()?.is_empty() {
            return self.end();
        }
        self.input
            .read_exact(&mut bytes)
            .map_err(|error| incomplete(error, "the file ends in the midst of it"))
            .with_context(|| format!("record {number}"))?;
        let record = Record::from_bytes(&bytes).with_context(|| format!("record {number}"))?;
        let Some(record) = record else { return self.end() };
        self.read = number;
        Ok(Some(record))
    }

    /// No more records: an error if the header says that there are more.
    fn end(&self) -> Result<Option<Record>> {
        let (read, all) = (self.read, self.head.records);
        if read < all { bail!("it ends after {read} of {all} records") } else { Ok(None) }
    }
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
