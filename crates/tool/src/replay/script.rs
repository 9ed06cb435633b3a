//! Makes the calls of a trace on every heap: finds the blocks that its addresses name, and compares the outcomes.

use std::alloc::Layout;
use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail};
use smalloc::MallocStatus;
use smalloc::recording::Head;

use super::late_frees::LateFrees;
use super::player::Player;
use crate::input::{Call, Event, MALLOC_ALIGN, Origin, Recorded};

/// The reasons why calls are left out or changed.
const UNKNOWN_FREE: &str = "frees of blocks that were never seen";
const UNKNOWN_REALLOC: &str = "reallocs of blocks that were never seen, made allocations";
const LATE: &str = "frees that were written late, after their address was allocated again";
const UNWRITTEN: &str = "blocks whose free was not written, freed when their address was allocated again";
const REFUSED: &str = "requests that the program was refused";
const NO_LAYOUT: &str = "requests of sizes that no layout has";

/// A block in use.
#[derive(Clone, Copy)]
struct Block {
    offset: usize,
    layout: Layout,
}

/// The effect of one call on the heaps.
#[derive(Default)]
pub(crate) struct Step {
    /// The segments that came into use or went out of it, in order.
    pub(crate) changes: Vec<Change>,
    /// The hops of the search on each heap; empty if there was none.
    pub(crate) hops: Vec<usize>,
    /// The origin of the call.
    pub(crate) origin: Origin,
}

/// A segment that came into use, or went out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    /// The number of the block, which is unique while it is in use.
    pub(crate) number: usize,
    /// Bytes that the program asked for.
    pub(crate) size: usize,
    pub(crate) offset: usize,
    /// Bytes that the segment takes.
    pub(crate) bytes: usize,
    pub(crate) in_use: bool,
}

/// The outcomes that were equal to those in a recording.
#[derive(Default)]
pub(crate) struct Compared {
    /// Requests whose offsets were the recorded ones.
    pub(crate) offsets: u64,
    /// Searches whose hops were.
    pub(crate) hops: u64,
}

/// A trace in progress.
pub(crate) struct Script {
    pub(crate) players: Vec<Box<dyn Player>>,
    /// The number of each block that is in use, by its address in the trace.
    numbers: HashMap<u64, usize>,
    late_frees: LateFrees,
    blocks: Vec<Option<Block>>,
    unused: Vec<usize>,
    /// Blocks that fill the holes between the segments in use when a recording began, until its first call.
    fillers: Vec<usize>,
    held_end: usize,
    /// Whether offsets are compared with a recording, and the list whose hops are.
    comparing: bool,
    comparing_hops_of: Option<String>,
    pub(crate) compared: Compared,
    pub(crate) calls: u64,
    /// Bytes in use, as the program counts them, and with rounding.
    pub(crate) live: usize,
    pub(crate) used: usize,
    pub(crate) peak_live: (usize, u64),
    pub(crate) used_at_peak: usize,
    skipped: BTreeMap<&'static str, u64>,
}

impl Script {
    /// For these heaps, of which there is at least one. `head` is that of a recording to compare with.
    pub(crate) fn new(players: Vec<Box<dyn Player>>, head: Option<&Head>) -> Self {
        Self {
            players,
            numbers: HashMap::new(),
            late_frees: LateFrees::default(),
            blocks: Vec::new(),
            unused: Vec::new(),
            fillers: Vec::new(),
            held_end: 0,
            comparing: head.is_some(),
            comparing_hops_of: head.map(|head| head.list().to_owned()),
            compared: Compared::default(),
            calls: 0,
            live: 0,
            used: 0,
            peak_live: (0, 0),
            used_at_peak: 0,
            skipped: BTreeMap::new(),
        }
    }

    /// Makes a call on every heap, and records its effect in `step`.
    pub(crate) fn play(&mut self, event: Event, step: &mut Step) -> Result<()> {
        step.clear();
        step.origin = event.origin;
        if let Call::Held { block, size } = event.call {
            self.hold(block, size, step)?;
            self.count(step);
            return Ok(());
        }
        if let Call::Limit { bytes } = event.call {
            self.players.iter_mut().for_each(|player| player.set_limit(bytes));
            return Ok(());
        }
        self.calls += 1;
        // Fillers do not belong to the program: they do not count as live.
        let live = self.live;
        for filler in std::mem::take(&mut self.fillers) {
            self.free_number(filler, &mut Step::default());
        }
        self.live = live;
        match event.call {
            Call::Alloc { block, size, align } => self.alloc(block, size, align, event.recorded, step)?,
            Call::Realloc { old, new, size, align } if self.late_frees.take(old) => {
                self.skip(LATE);
                self.alloc(new, size, align, event.recorded, step)?;
            }
            Call::Realloc { old, new, size, align } => match self.numbers.remove(&old) {
                Some(number) => self.realloc(number, new, size, event.recorded, step)?,
                None => {
                    self.skip(UNKNOWN_REALLOC);
                    self.alloc(new, size, align, event.recorded, step)?;
                }
            },
            Call::Free { block, late: true } if self.late_frees.take(block) => self.skip(LATE),
            Call::Free { block, late } => self.free(block, late, step),
            Call::Refused { block, size, align } => self.refused(block, size, align, event.recorded, step)?,
            Call::Held { .. } | Call::Limit { .. } => {}
        }
        self.count(step);
        Ok(())
    }

    fn count(&mut self, step: &Step) {
        for change in &step.changes {
            self.used = if change.in_use { self.used + change.bytes } else { self.used - change.bytes };
        }
        if self.live > self.peak_live.0 {
            self.peak_live = (self.live, self.calls);
            self.used_at_peak = self.used;
        }
    }

    fn free(&mut self, block: u64, late: bool, step: &mut Step) {
        let Some(number) = self.numbers.remove(&block) else {
            let why = if self.late_frees.take_doubtful(block) { LATE } else { UNKNOWN_FREE };
            return self.skip(why);
        };
        if !late {
            self.late_frees.doubt(block);
        }
        self.free_number(number, step);
    }

    /// The calls so far that were left out or changed, by the reason.
    pub(crate) fn skipped(&self) -> BTreeMap<&'static str, u64> {
        let mut skipped = self.skipped.clone();
        let unwritten = self.late_frees.count();
        if unwritten > 0 {
            skipped.insert(UNWRITTEN, unwritten);
        }
        skipped
    }

    fn skip(&mut self, why: &'static str) {
        *self.skipped.entry(why).or_default() += 1;
    }

    /// A block has the same place as when the recording began; the holes around it are filled for as long as that
    /// takes.
    fn hold(&mut self, block: u64, size: usize, step: &mut Step) -> Result<()> {
        let offset = block as usize - 1;
        let end = offset.checked_add(size).context("a segment that was in use has no end")?;
        if offset > self.held_end {
            let gap = Layout::from_size_align(offset - self.held_end, MALLOC_ALIGN)?;
            let (number, live) = (self.unused_number(), self.live);
            match self.place(number, gap, None, &mut Step::default())? {
                true => self.fillers.push(number),
                false => self.unused.push(number),
            }
            self.live = live;
        }
        // The cost of a search of the index depends on the searches before it, which are not recorded.
        self.comparing_hops_of.take_if(|list| list == "indexed");
        self.alloc(block, size, MALLOC_ALIGN, Some(Recorded { offset: Some(offset), hops: 0 }), step)?;
        self.held_end = end;
        Ok(())
    }

    fn alloc(
        &mut self,
        block: u64,
        size: usize,
        align: usize,
        recorded: Option<Recorded>,
        step: &mut Step,
    ) -> Result<()> {
        if let Some(number) = self.numbers.remove(&block) {
            self.late_frees.add(block);
            self.free_number(number, step);
        }
        let Ok(layout) = Layout::from_size_align(size, align) else {
            self.skip(NO_LAYOUT);
            return Ok(());
        };
        let number = self.unused_number();
        match self.place(number, layout, recorded, step)? {
            true => drop(self.numbers.insert(block, number)),
            false => self.unused.push(number),
        }
        Ok(())
    }

    /// Allocates on every heap. False if there was no room.
    fn place(
        &mut self,
        number: usize,
        layout: Layout,
        recorded: Option<Recorded>,
        step: &mut Step,
    ) -> Result<bool> {
        let answers: Vec<MallocStatus> =
            self.players.iter_mut().map(|player| player.alloc(number, layout)).collect();
        let offset = self.agree(&answers, recorded)?;
        step.hops.extend(answers.iter().map(|status| status.hops));
        self.blocks[number] = offset.map(|offset| Block { offset, layout });
        if let Some(offset) = offset {
            self.live += layout.size();
            step.changes.push(Block { offset, layout }.change(number, true));
        }
        Ok(offset.is_some())
    }

    fn realloc(
        &mut self,
        number: usize,
        new: u64,
        size: usize,
        recorded: Option<Recorded>,
        step: &mut Step,
    ) -> Result<()> {
        let before = self.blocks[number].expect("a block that has a number is there");
        let Ok(layout) = Layout::from_size_align(size, before.layout.align()) else {
            self.skip(NO_LAYOUT);
            self.numbers.insert(new, number);
            return Ok(());
        };
        if let Some(taken) = self.numbers.insert(new, number) {
            self.late_frees.add(new);
            self.free_number(taken, step);
        }
        let realloc = |player: &mut Box<dyn Player>| player.realloc(number, before.layout, size);
        let answers: Vec<MallocStatus> = self.players.iter_mut().map(realloc).collect();
        let offset = self.agree(&answers, recorded)?;
        // The program assumes that the block has its new size; here it keeps the old one.
        let Some(offset) = offset else { return Ok(()) };
        if offset != before.offset {
            step.hops.extend(answers.iter().map(|status| status.hops));
        }
        self.blocks[number] = Some(Block { offset, layout });
        self.live = self.live - before.layout.size() + size;
        step.changes.push(before.change(number, false));
        step.changes.push(Block { offset, layout }.change(number, true));
        Ok(())
    }

    fn free_number(&mut self, number: usize, step: &mut Step) {
        let block = self.blocks[number].take().expect("a block that has a number is there");
        for player in &mut self.players {
            player.free(number, block.layout);
        }
        self.unused.push(number);
        self.live = self.live.wrapping_sub(block.layout.size());
        step.changes.push(block.change(number, false));
    }

    /// A refused request is made only if offsets are compared: it will be refused again, and costs hops.
    fn refused(
        &mut self,
        block: Option<u64>,
        size: usize,
        align: usize,
        recorded: Option<Recorded>,
        step: &mut Step,
    ) -> Result<()> {
        let known = block.map(|block| self.numbers.get(&block).copied());
        let layout = Layout::from_size_align(size, align);
        let (true, Ok(layout), false) = (self.comparing, layout, known == Some(None)) else {
            self.skip(REFUSED);
            return Ok(());
        };
        let answers: Vec<MallocStatus> = match known.flatten() {
            Some(number) => {
                let before = self.blocks[number].expect("a block that has a number is there").layout;
                self.players.iter_mut().map(|player| player.realloc(number, before, size)).collect()
            }
            None => {
                let number = self.unused_number();
                self.unused.push(number);
                self.players.iter_mut().map(|player| player.alloc(number, layout)).collect()
            }
        };
        step.hops.extend(answers.iter().map(|status| status.hops));
        self.agree(&answers, recorded)?;
        Ok(())
    }

    fn unused_number(&mut self) -> usize {
        self.unused.pop().unwrap_or_else(|| {
            self.blocks.push(None);
            self.blocks.len() - 1
        })
    }

    /// The offset in all heaps, and in the recording too.
    fn agree(&mut self, answers: &[MallocStatus], recorded: Option<Recorded>) -> Result<Option<usize>> {
        let offset = answers[0].payload_offset;
        for (player, answer) in self.players.iter().zip(answers) {
            if answer.payload_offset != offset {
                bail!(self.differs(player.list(), answer.payload_offset, "the other list", offset));
            }
        }
        let Some(recorded) = recorded.filter(|_| self.comparing) else { return Ok(offset) };
        if recorded.offset != offset {
            bail!(self.differs("the replay", offset, "the recording", recorded.offset));
        }
        self.compared.offsets += 1;
        for (player, answer) in self.players.iter().zip(answers) {
            if self.comparing_hops_of.as_deref() != Some(player.list()) {
                continue;
            }
            if answer.hops != recorded.hops {
                let (call, hops) = (self.calls, answer.hops);
                bail!("call {call}: {hops} hops here, {} in the recording", recorded.hops);
            }
            self.compared.hops += 1;
        }
        Ok(offset)
    }

    fn differs(&self, one: &str, first: Option<usize>, other: &str, second: Option<usize>) -> String {
        let place = |offset: Option<usize>| {
            offset.map_or("finds no room".to_owned(), |offset| format!("takes offset {offset:#x}"))
        };
        format!("call {}: {one} {}, {other} {}", self.calls, place(first), place(second))
    }
}

impl Change {
    /// The offset behind it.
    pub(crate) fn end(&self) -> usize {
        self.offset + self.bytes
    }
}

impl Step {
    fn clear(&mut self) {
        self.changes.clear();
        self.hops.clear();
    }
}

impl Block {
    /// Block number `number` comes into use, or goes out of it.
    fn change(self, number: usize, in_use: bool) -> Change {
        let size = self.layout.size();
        Change { number, size, offset: self.offset, bytes: segment_bytes(size), in_use }
    }
}

/// The bytes that a request of `size` bytes takes.
fn segment_bytes(size: usize) -> usize {
    size.max(1).next_multiple_of(16)
}
