//! Stacks that differ in addresses only, such as two calls on one line: all of them go by the number of the first.

use std::collections::HashMap;

use super::sites::Sites;

/// The stacks so far.
#[derive(Default)]
pub(super) struct Same {
    /// The number that each stack goes by; 0 if it has not been seen.
    first: Vec<u32>,
    /// That number, by the frames.
    of_frames: HashMap<Vec<u32>, u32>,
}

impl Same {
    /// The number of the first stack that has the frames of this one.
    pub(super) fn first(&mut self, stack: u32, sites: &Sites) -> u32 {
        let index = stack as usize;
        if self.first.len() <= index {
            self.first.resize(index + 1, 0);
        }
        if self.first[index] == 0 {
            let frames = sites.stack(stack);
            self.first[index] =
                if frames.is_empty() { 0 } else { *self.of_frames.entry(frames).or_insert(stack) };
        }
        self.first[index]
    }
}
