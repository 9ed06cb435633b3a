//! All that a heap knows about call sites, behind a lock that is only taken with a heap's lock held.

use super::counts::{Amount, Count, Counts};
use super::frames::Frames;
use super::live::{Live, Sample};
use super::sampler::weight;
use super::stack::Stack;

pub(crate) struct Table {
    frames: Frames,
    counts: Counts,
    live: Live,
    /// Whether blocks are counted by stack.
    is_counting: bool,
    /// Samples that were not counted for lack of memory.
    lost: u64,
}

impl Table {
    pub(crate) const EMPTY: Self =
        Self { frames: Frames::EMPTY, counts: Counts::EMPTY, live: Live::EMPTY, is_counting: false, lost: 0 };

    /// The number of a stack, which is that of its innermost frame; 0 if it has none, or there is no memory. `added`
    /// gets caller and address of every frame that is new.
    pub(crate) fn number(&mut self, stack: &Stack, mut added: impl FnMut(u32, u64)) -> u32 {
        let mut caller = 0;
        for &address in stack.addresses().iter().rev() {
            let known = self.frames.len();
            let Some(number) = self.frames.number(caller, address as u64) else {
                self.lost = self.lost.wrapping_add(1);
                return 0;
            };
            if number as usize > known {
                added(caller, address as u64);
            }
            caller = number;
        }
        caller
    }

    /// Caller and address of every frame, in the order of their numbers.
    pub(crate) fn frames(&self) -> impl Iterator<Item = (u32, u64)> {
        (1..=self.frames.len()).map(|number| self.frames.get(number))
    }

    /// The largest number of a frame.
    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    pub(super) fn frame(&self, number: usize) -> (u32, u64) {
        self.frames.get(number)
    }

    pub(super) fn count(&self, number: usize) -> Count {
        self.counts.get(number)
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost
    }

    pub(crate) fn is_counting(&self) -> bool {
        self.is_counting
    }

    /// Begins to count. Blocks that are in use already are not counted. Fails with the system's `errno`.
    pub(crate) fn start(&mut self) -> Result<(), i32> {
        if self.counts.is_empty() {
            self.counts = Counts::new()?;
        }
        self.is_counting = true;
        Ok(())
    }

    /// Ends counting, and forgets all counts.
    pub(crate) fn stop(&mut self) {
        (self.counts, self.live) = (Counts::EMPTY, Live::EMPTY);
        self.is_counting = false;
    }

    /// The number of the stack of a block; 0 if it was not taken.
    pub(crate) fn stack_of(&self, key: u64) -> u32 {
        self.live.get(key).map_or(0, |sample| sample.stack)
    }

    /// A block was placed by a request with this call stack, 0 if it was not taken.
    pub(crate) fn placed(&mut self, key: u64, stack: u32, bytes: usize, interval: usize) {
        self.freed(key);
        if stack == 0 {
            return;
        }
        let amount = Amount::new(bytes, weight(bytes, interval));
        if self.live.insert(key, Sample { stack, amount }) {
            self.counts.placed(stack, amount);
        } else {
            self.lost = self.lost.wrapping_add(1);
        }
    }

    /// A block was freed, which may have been counted.
    pub(crate) fn freed(&mut self, key: u64) {
        if let Some(Sample { stack, amount }) = self.live.remove(key) {
            self.counts.freed(stack, amount);
        }
    }
}
