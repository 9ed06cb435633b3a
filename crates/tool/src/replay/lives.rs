//! The lives of all blocks: the place of each, its first and last call, and its origin.
//!
//! A trace of any length gives a bounded number of lives. If there are too many, those with the smallest area in the
//! picture of address over time, bytes times calls, are dropped. They stay in every [`Tallies`], and in the [`Residue`]
//! that tells how much of the picture they took.

use super::life::{ALIVE, GRANULE, Life};
use super::residue::Residue;
use super::script::{Change, Step};
use super::tally::Tallies;

/// The most lives that are kept.
const MOST: usize = 4_000_000;

/// All lives so far.
pub(crate) struct Lives {
    /// In the order of births.
    pub(crate) all: Vec<Life>,
    /// The life of each block in use, by the block's number.
    of_block: Vec<u32>,
    /// The system's number of each thread.
    pub(crate) threads: Vec<u32>,
    pub(crate) tallies: Tallies,
    pub(crate) residue: Residue,
    most: usize,
}

impl Lives {
    pub(crate) fn new() -> Self {
        Self::with_most(MOST)
    }

    fn with_most(most: usize) -> Self {
        let (tallies, residue) = (Tallies::default(), Residue::default());
        Self { all: Vec::new(), of_block: Vec::new(), threads: Vec::new(), tallies, residue, most }
    }

    /// Adds the changes of call number `call`, which is below [`ALIVE`].
    pub(crate) fn step(&mut self, step: &Step, call: u32) {
        for change in &step.changes {
            if change.in_use {
                self.born(change, step, call);
            } else {
                self.died(change.number, call);
            }
        }
        self.tallies.called();
    }

    fn born(&mut self, change: &Change, step: &Step, call: u32) {
        if self.all.len() >= self.most {
            self.keep(self.most / 2);
            // If most of them are in use, little can be dropped, and the next try has to come late enough.
            self.most = self.most.max(self.all.len() * 2);
        }
        let life = Life {
            birth: call,
            death: ALIVE,
            offset: (change.offset as u64 / GRANULE) as u32,
            hops: step.hops.first().map_or(0, |&hops| hops as u32),
            thread: self.thread(step.origin.thread),
            stack: step.origin.stack,
            site: step.origin.site,
            weight: step.origin.weight,
            size: change.size as u64,
        };
        if self.of_block.len() <= change.number {
            self.of_block.resize(change.number + 1, 0);
        }
        self.of_block[change.number] = self.all.len() as u32;
        self.tallies.born(&life);
        self.all.push(life);
    }

    fn died(&mut self, block: usize, call: u32) {
        let life = &mut self.all[self.of_block[block] as usize];
        life.death = call;
        self.tallies.died(life);
    }

    /// The index of a thread. Calls of one thread often follow each other, and there are few threads.
    fn thread(&mut self, number: u32) -> u32 {
        let known = self.threads.iter().position(|&thread| thread == number);
        known.unwrap_or_else(|| {
            self.threads.push(number);
            self.threads.len() - 1
        }) as u32
    }

    /// Drops the smallest lives that have ended, until `most` are left or all are in use.
    pub(crate) fn keep(&mut self, most: usize) {
        let mut areas: Vec<u64> =
            self.all.iter().filter(|life| life.death != ALIVE).map(Life::area).collect();
        let surplus = self.all.len().saturating_sub(most).min(areas.len());
        if surplus == 0 {
            return;
        }
        let (_, &mut limit, _) = areas.select_nth_unstable(surplus - 1);
        let (mut left, mut kept) = (surplus, 0);
        let mut moved = Vec::with_capacity(self.all.len());
        self.all.retain(|life| {
            moved.push(kept);
            let is_dropped = left > 0 && life.death != ALIVE && life.area() <= limit;
            if is_dropped {
                left -= 1;
                self.residue.add(life.calls(), life.extent());
            } else {
                kept += 1;
            }
            !is_dropped
        });
        // Blocks that are no longer in use have numbers too, but their lives are not needed.
        self.of_block.iter_mut().for_each(|life| *life = moved.get(*life as usize).copied().unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tally::size_group;
    use super::*;
    use crate::input::Origin;

    /// A block that comes into use or goes out of it.
    fn change(number: usize, size: usize, in_use: bool) -> Change {
        Change { number, size, bytes: size, offset: number * 1600, in_use }
    }

    fn play(most: usize) -> Lives {
        let mut lives = Lives::with_most(most);
        for round in 0..1000_u32 {
            let call = 10 * round;
            let origin = Origin { thread: 7 + round % 2, ..Origin::default() };
            let mut step = Step { changes: vec![change(round as usize, 1600, true)], hops: vec![3], origin };
            lives.step(&step, call);
            step.changes = vec![change(2000, 16 * (1 + round as usize % 7), true)];
            lives.step(&step, call + 1);
            step.changes = vec![change(2000, 0, false)];
            lives.step(&step, call + 2);
        }
        lives
    }

    #[test]
    fn the_smallest_are_dropped_and_nothing_is_lost() {
        let (all, some) = (play(usize::MAX), play(600));
        assert_eq!((all.all.len(), all.residue.dropped()), (2000, 0));
        assert!(some.residue.dropped() > 500, "{}", some.residue.dropped());
        assert_eq!(some.all.len() + some.residue.dropped() as usize, 2000);
        assert_eq!(some.all.iter().filter(|life| life.death == ALIVE).count(), 1000, "all in use are kept");
        assert!(some.all.is_sorted_by_key(|life| life.birth));
        let area = |lives: &Lives| -> f64 {
            let ended = lives.all.iter().filter(|life| life.death != ALIVE);
            ended.map(|life| life.area() as f64).sum::<f64>() + lives.residue.sum()
        };
        assert!((area(&all) - area(&some)).abs() < 1e-3 * area(&all), "{} {}", area(&all), area(&some));
        assert_eq!(all.threads, [7, 8]);
        assert_eq!(some.tallies.sizes[size_group(1600)].live_blocks, 1000);
        assert_eq!(some.tallies.sizes[16].blocks, all.tallies.sizes[16].blocks);
    }
}
