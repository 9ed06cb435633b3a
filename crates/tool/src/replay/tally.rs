//! Sums over groups of blocks: those of one size, of one thread, of one call site.

use serde::Serialize;

use super::life::Life;

/// Sizes up to this one, in bytes, are groups of their own. Above it, each power of two has eight.
const EXACT: u64 = 1024;
const PER_POWER: u64 = 8;

/// The blocks of one group. Bytes are those that the program asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// All lives, and their bytes.
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// In use at the end.
    pub(crate) live_blocks: u64,
    pub(crate) live_bytes: u64,
    /// The most bytes in use, and the first call after which they were.
    pub(crate) peak_bytes: u64,
    pub(crate) peak_call: u32,
    /// Calls from birth to death, summed over the lives that have ended.
    pub(crate) calls: u64,
    pub(crate) hops: u64,
    pub(crate) most_hops: u32,
}

impl Tally {
    /// A life that stands for `weight` of them begins.
    fn born(&mut self, life: &Life, weight: u64) {
        self.blocks += weight;
        self.bytes += weight * life.size;
        self.live_blocks += weight;
        self.live_bytes += weight * life.size;
        if self.live_bytes > self.peak_bytes {
            (self.peak_bytes, self.peak_call) = (self.live_bytes, life.birth);
        }
        self.hops += weight * u64::from(life.hops);
        self.most_hops = self.most_hops.max(life.hops);
    }

    fn died(&mut self, life: &Life, weight: u64) {
        self.live_blocks -= weight;
        self.live_bytes -= weight * life.size;
        self.calls += weight * u64::from(life.death - life.birth);
    }
}

/// How blocks are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// By call site: the function and the line that asked for the block.
    Site,
    /// By call stack.
    Stack,
    /// By size.
    Size,
    /// By thread.
    Thread,
}

impl Kind {
    /// The group of a life.
    pub(crate) fn group(self, life: &Life) -> usize {
        match self {
            Self::Site => life.site as usize,
            Self::Stack => life.stack as usize,
            Self::Size => size_group(life.size),
            Self::Thread => life.thread as usize,
        }
    }

    /// The blocks of a life's group that it stands for: not one if stacks are known of a sample alone.
    pub(crate) fn weight(self, life: &Life) -> u64 {
        match self {
            Self::Site | Self::Stack => life.weight.into(),
            Self::Size | Self::Thread => 1,
        }
    }
}

/// The sums of every group, by its number.
#[derive(Default)]
pub(crate) struct Tallies {
    pub(crate) sites: Vec<Tally>,
    pub(crate) stacks: Vec<Tally>,
    pub(crate) sizes: Vec<Tally>,
    pub(crate) threads: Vec<Tally>,
}

impl Tallies {
    /// The groups of a kind.
    pub(crate) fn of(&self, kind: Kind) -> &[Tally] {
        match kind {
            Kind::Site => &self.sites,
            Kind::Stack => &self.stacks,
            Kind::Size => &self.sizes,
            Kind::Thread => &self.threads,
        }
    }

    pub(crate) fn born(&mut self, life: &Life) {
        self.each(life, |tally, weight| tally.born(life, weight));
    }

    pub(crate) fn died(&mut self, life: &Life) {
        self.each(life, |tally, weight| tally.died(life, weight));
    }

    fn each(&mut self, life: &Life, change: impl Fn(&mut Tally, u64)) {
        let kinds = [
            (&mut self.sites, Kind::Site),
            (&mut self.stacks, Kind::Stack),
            (&mut self.sizes, Kind::Size),
            (&mut self.threads, Kind::Thread),
        ];
        for (tallies, kind) in kinds {
            let (group, weight) = (kind.group(life), kind.weight(life));
            if tallies.len() <= group {
                tallies.resize(group + 1, Tally::default());
            }
            if weight == 0 {
                continue;
            }
            change(&mut tallies[group], weight);
        }
    }
}

/// The group of a size in bytes.
pub(crate) fn size_group(size: u64) -> usize {
    if size <= EXACT {
        return size as usize;
    }
    let power = (size - 1).ilog2();
    let part = ((size - 1) >> (power - PER_POWER.ilog2())) % PER_POWER;
    (EXACT + 1 + u64::from(power - EXACT.ilog2()) * PER_POWER + part) as usize
}

/// The smallest and the largest size of a group.
pub(crate) fn sizes_of_group(group: usize) -> (u64, u64) {
    let Some(above) = (group as u64).checked_sub(EXACT + 1) else { return (group as u64, group as u64) };
    let shift = above / PER_POWER + u64::from(EXACT.ilog2() - PER_POWER.ilog2());
    let part = PER_POWER + above % PER_POWER;
    ((part << shift) + 1, (part + 1) << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_sizes_follow_each_other() {
        let mut group = size_group(0);
        for size in 1..100_000 {
            let next = size_group(size);
            assert!(next == group || next == group + 1, "{size}");
            let (low, high) = sizes_of_group(next);
            assert!((low..=high).contains(&size), "{size} in {low} to {high}");
            assert!(high - low <= low / 8, "{low} to {high}");
            group = next;
        }
        assert_eq!(sizes_of_group(size_group(1 << 40)).1, 1 << 40);
    }
}
