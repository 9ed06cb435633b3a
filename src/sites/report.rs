//! The counts of a heap by call stack, as a copy that the program may look at.

use super::counts::{Amount, Count};
use super::objects::{Object, objects};
use super::table::Table;
use crate::system::words::Words;

/// Words of a frame: its address, and the number of its caller.
const FRAME_WORDS: usize = 2;
/// Words of a stack: its number, and its count.
const SITE_WORDS: usize = 5;

/// The bytes and blocks of a heap by call stack, at one instant; see
/// [`SmallocGlobal::sites`](crate::SmallocGlobal::sites). All of them are estimates from a sample, unless the interval
/// is 1.
///
/// It uses memory outside the heap and returns it to the system when dropped.
#[derive(Debug)]
pub struct Sites {
    frames: Words,
    frame_count: usize,
    sites: Words,
    site_count: usize,
    interval: usize,
    lost: u64,
}

impl Sites {
    /// Memory for a copy of a table that has so many frames. Fails with the system's `errno`.
    pub(crate) fn with_room(frames: usize, interval: usize) -> Result<Self, i32> {
        let room = frames.saturating_add(1);
        Ok(Self {
            frames: Words::new(room.saturating_mul(FRAME_WORDS))?,
            frame_count: 0,
            sites: Words::new(room.saturating_mul(SITE_WORDS))?,
            site_count: 0,
            interval,
            lost: 0,
        })
    }

    /// Copies a table. False if there is too little room.
    pub(crate) fn copy(&mut self, table: &Table) -> bool {
        let frames = table.len();
        if frames >= self.frames.count() / FRAME_WORDS || frames >= self.sites.count() / SITE_WORDS {
            return false;
        }
        (self.frame_count, self.site_count, self.lost) = (frames, 0, table.lost());
        for number in 1..=frames {
            let (caller, address) = table.frame(number);
            let at = number.wrapping_mul(FRAME_WORDS);
            self.frames.set(at, address);
            self.frames.set(at.wrapping_add(1), caller.into());
            let count = table.count(number);
            if count != Count::default() {
                self.push(number, count);
            }
        }
        true
    }

    fn push(&mut self, number: usize, count: Count) {
        let at = self.site_count.wrapping_mul(SITE_WORDS);
        let [live_parts, live_bytes] = count.live.words();
        let [parts, bytes] = count.all.words();
        let words = [number as u64, live_parts, live_bytes, parts, bytes];
        words.into_iter().enumerate().for_each(|(index, word)| self.sites.set(at.wrapping_add(index), word));
        self.site_count = self.site_count.wrapping_add(1);
    }

    /// Mean bytes between two requests whose call stacks were taken.
    #[must_use]
    pub fn interval(&self) -> usize {
        self.interval
    }

    /// The samples that were not counted, because a table was full or the system had no memory for it.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// All call stacks with the bytes and blocks that were requested through them, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Site<'_>> {
        (0..self.site_count).map(|site| self.site(site))
    }

    fn site(&self, site: usize) -> Site<'_> {
        let word = |index| self.sites.get(site.wrapping_mul(SITE_WORDS).wrapping_add(index));
        let (live, all) = (Amount::from_words(word(1), word(2)), Amount::from_words(word(3), word(4)));
        Site {
            live_bytes: live.bytes,
            live_blocks: live.blocks(),
            bytes: all.bytes,
            blocks: all.blocks(),
            frame: word(0) as usize,
            sites: self,
        }
    }

    /// The caller's number and the address of every frame, by number from 1 on.
    pub(super) fn frames(&self) -> impl Iterator<Item = (usize, usize)> {
        (1..=self.frame_count).map(|number| self.frame(number))
    }

    pub(super) fn frame(&self, number: usize) -> (usize, usize) {
        let at = number.wrapping_mul(FRAME_WORDS);
        (self.frames.get(at.wrapping_add(1)) as usize, self.frames.get(at) as usize)
    }

    /// The loaded objects that addresses may lie in.
    pub(super) fn objects(&self) -> impl Iterator<Item = Object> {
        objects(0)
    }
}

/// A call stack, and the memory that was requested through it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Site<'a> {
    /// Bytes in use, without what rounding adds.
    pub live_bytes: u64,
    /// Blocks in use.
    pub live_blocks: u64,
    /// Bytes of all requests since counting began.
    pub bytes: u64,
    /// All requests since counting began.
    pub blocks: u64,
    frame: usize,
    sites: &'a Sites,
}

impl<'a> Site<'a> {
    /// The addresses to which the frames of the stack return, the innermost first. The first ones are the allocator's.
    pub fn stack(&self) -> impl Iterator<Item = usize> + use<'a> {
        let sites = self.sites;
        self.numbers().map(move |frame| sites.frame(frame).1)
    }

    /// The numbers of the frames, the innermost first.
    pub(super) fn numbers(&self) -> impl Iterator<Item = usize> + use<'a> {
        let sites = self.sites;
        // A frame has a larger number than its caller, so the walk ends.
        let up = move |&frame: &usize| Some(sites.frame(frame).0).filter(|&caller| caller > 0);
        core::iter::successors(Some(self.frame), up)
    }
}
