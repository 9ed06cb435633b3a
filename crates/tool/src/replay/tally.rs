//! Sums over groups of blocks: those of one size, of one thread, of one call site.

use super::life::Life;

/// Sizes up to this one, in bytes, are groups of their own. Above it, each power of two has eight.
const EXACT: u64 = 1024;
const PER_POWER: u64 = 8;

/// The blocks of one group. Bytes are those that the program asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// All lives, and their bytes.
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// In use at the end.
    pub(crate) live_blocks: u64,
    pub(crate) live_bytes: u64,
    /// The most bytes in use, the blocks that they were in, and the first call after which they were.
    pub(crate) peak_bytes: u64,
    pub(crate) peak_blocks: u64,
    pub(crate) peak_call: u32,
    /// In use at the latest peak of all groups together that this group has changed since, and its number.
    at_peak: Held,
    peaks: u64,
    /// Calls from birth to death, summed over the lives that have ended.
    pub(crate) calls: u64,
    pub(crate) hops: u64,
    pub(crate) most_hops: u32,
}

/// Bytes in use, and the blocks that they are in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) bytes: u64,
    pub(crate) blocks: u64,
}

impl Tally {
    /// In use when all groups together had the most bytes. `peaks` is [`Tallies::peaks`].
    pub(crate) fn at_peak(&self, peaks: u64) -> Held {
        if self.peaks == peaks {
            self.at_peak
        } else {
            Held { bytes: self.live_bytes, blocks: self.live_blocks }
        }
    }

    /// Keeps what is in use, if there was a new peak since this group changed last.
    fn remember(&mut self, peaks: u64) {
        (self.at_peak, self.peaks) = (self.at_peak(peaks), peaks);
    }

    /// A life that stands for `weight` of them begins.
    fn born(&mut self, life: &Life, weight: u64) {
        self.blocks += weight;
        self.bytes += weight * life.size;
        self.live_blocks += weight;
        self.live_bytes += weight * life.size;
        if self.live_bytes > self.peak_bytes {
            (self.peak_bytes, self.peak_blocks) = (self.live_bytes, self.live_blocks);
            self.peak_call = life.birth;
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

/// The property by which blocks are grouped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// By call site: the function and the line that requested the block.
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

    /// Whether groups follow from call stacks.
    pub(crate) fn is_of_stacks(self) -> bool {
        matches!(self, Self::Site | Self::Stack)
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
    live: u64,
    most: u64,
    /// How often all groups together had more bytes than ever before.
    pub(crate) peaks: u64,
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
        self.live += life.size;
        self.each(life, |tally, weight| tally.born(life, weight));
    }

    pub(crate) fn died(&mut self, life: &Life) {
        self.live -= life.size;
        self.each(life, |tally, weight| tally.died(life, weight));
    }

    /// Ends a call, after which there may be more bytes than ever before.
    pub(crate) fn called(&mut self) {
        if self.live > self.most {
            self.most = self.live;
            self.peaks += 1;
        }
    }

    fn each(&mut self, life: &Life, change: impl Fn(&mut Tally, u64)) {
        let peaks = self.peaks;
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
            tallies[group].remember(peaks);
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

    /// Against sums over all lives at the peak.
    #[test]
    fn every_group_knows_its_share_of_the_peak() {
        let mut tallies = Tallies::default();
        let mut live: Vec<Life> = Vec::new();
        let (mut most, mut at_most) = (0, Vec::new());
        let mut random = 1_u64;
        for call in 1..=2000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (stack, size) = ((random >> 60) as u32, 1 + (random >> 40) % 300);
            let frees = if call < 1200 { (random >> 33) as usize % 2 } else { 2 };
            for life in live.drain(..live.len().min(frees)) {
                tallies.died(&life);
            }
            let (hops, thread, site) = (0, 0, 0);
            let death = u32::MAX;
            let life = Life { birth: call, death, offset: 0, hops, thread, stack, site, weight: 1, size };
            tallies.born(&life);
            live.push(life);
            tallies.called();
            let sum: u64 = live.iter().map(|life| life.size).sum();
            if sum > most {
                (most, at_most) = (sum, live.clone());
            }
        }
        let mut shares = 0;
        for (stack, tally) in tallies.stacks.iter().enumerate() {
            let own = at_most.iter().filter(|life| life.stack as usize == stack);
            let own = own.fold((0, 0), |(bytes, blocks), life| (bytes + life.size, blocks + 1));
            let share = tally.at_peak(tallies.peaks);
            assert_eq!((share.bytes, share.blocks), own, "stack {stack}");
            shares += share.bytes;
        }
        assert!(shares == most && most > 0);
    }

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
