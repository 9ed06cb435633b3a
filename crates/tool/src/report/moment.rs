//! The holders of memory at one moment: the blocks in use, the holes between them, and the free memory that each block
//! keeps from being returned to the system.

use crate::replay::{ALIVE, GRANULE, Life, Lives};

/// Granules of a page.
const PAGE: u64 = 4096 / GRANULE;

/// The blocks in use after one call.
pub(super) struct Moment<'a> {
    /// By offset.
    pub(super) blocks: Vec<&'a Life>,
}

/// A free segment below top.
pub(super) struct Hole<'a> {
    pub(super) granules: u64,
    pub(super) offset: u64,
    /// The block below; none at the beginning of the region.
    pub(super) below: Option<&'a Life>,
    pub(super) above: &'a Life,
}

/// The blocks at top that are of one group.
pub(super) struct Highest {
    pub(super) group: usize,
    pub(super) blocks: usize,
    /// The lowest of them, in granules from the region's beginning.
    pub(super) offset: u64,
    /// Granules by which top would be lower without them.
    pub(super) keeps: u64,
}

impl<'a> Moment<'a> {
    pub(super) fn new(lives: &'a Lives, call: u32) -> Self {
        let mut blocks: Vec<&Life> = match call {
            ALIVE => lives.all.iter().filter(|life| life.death == ALIVE).collect(),
            call => lives.all.iter().filter(|life| life.is_live(call)).collect(),
        };
        blocks.sort_unstable_by_key(|life| life.offset);
        Self { blocks }
    }

    /// The end of the last block, in granules.
    pub(super) fn top(&self) -> u64 {
        self.blocks.last().map_or(0, |life| life.extent().end)
    }

    /// Granules in use.
    pub(super) fn used(&self) -> u64 {
        self.blocks.iter().map(|life| life.granules()).sum()
    }

    /// The largest hole, if there is one.
    pub(super) fn largest_hole(&self) -> Option<Hole<'a>> {
        let first = self.blocks.first().map(|life| (None, *life));
        let between = self.blocks.windows(2).map(|pair| (Some(pair[0]), pair[1]));
        let holes = first.into_iter().chain(between).map(|(below, above)| {
            let offset = below.map_or(0, |below| below.extent().end);
            Hole { granules: u64::from(above.offset) - offset, offset, below, above }
        });
        holes.max_by_key(|hole| hole.granules).filter(|hole| hole.granules > 0)
    }

    /// The group of the highest block, and all blocks of it above the highest block of another group.
    pub(super) fn highest(&self, group: impl Fn(&Life) -> usize) -> Option<Highest> {
        let top = self.blocks.last()?;
        let own = group(top);
        let others = self.blocks.iter().rposition(|life| group(life) != own).map_or(0, |index| index + 1);
        let below = others.checked_sub(1).map_or(0, |index| self.blocks[index].extent().end);
        let (blocks, offset) = (self.blocks.len() - others, u64::from(self.blocks[others].offset));
        Some(Highest { group: own, blocks, offset, keeps: self.top() - below })
    }

    /// For each block the free granules that it keeps from being returned: those of each page that is free in part are
    /// shared equally among the blocks on it.
    pub(super) fn pins(&self) -> Vec<f64> {
        let mut pins = vec![0.0; self.blocks.len()];
        let mut first = 0;
        while first < self.blocks.len() {
            let page = self.blocks[first].extent().start / PAGE;
            first = self.pin_page(page, first, &mut pins);
        }
        pins
    }

    /// Shares the free granules of a page, whose first block has the index `first`, and then those of the last page of
    /// the block that leaves it. Returns the index of the first block that begins on a later page.
    fn pin_page(&self, page: u64, first: usize, pins: &mut [f64]) -> usize {
        let on_page = |life: &Life, page: u64| {
            let (from, to) = (page * PAGE, (page + 1) * PAGE);
            life.extent().end.min(to).saturating_sub(life.extent().start.max(from))
        };
        let (mut page, mut first) = (page, first);
        // A block that began on an earlier page and ends on this one was counted with its own page's walk.
        loop {
            let behind = self.blocks[first..].partition_point(|life| life.extent().start < (page + 1) * PAGE);
            let last = first + behind - 1;
            let used: u64 = self.blocks[first..=last].iter().map(|life| on_page(life, page)).sum();
            let share = (PAGE - used) as f64 / (last - first + 1) as f64;
            pins[first..=last].iter_mut().for_each(|pin| *pin += share);
            let end = self.blocks[last].extent().end;
            if end <= (page + 1) * PAGE {
                return last + 1;
            }
            // The pages that the block fills are not free in part; the one that it ends on may be.
            (page, first) = ((end - 1) / PAGE, last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lives(blocks: &[(u64, u64)]) -> Lives {
        let mut lives = Lives::new();
        lives.all = blocks
            .iter()
            .map(|&(offset, granules)| Life {
                birth: 1,
                death: ALIVE,
                offset: offset as u32,
                hops: 0,
                thread: 0,
                stack: 0,
                site: 0,
                weight: 1,
                size: granules * GRANULE,
            })
            .collect();
        lives
    }

    /// Compared with the definition, page by page and granule by granule.
    #[test]
    fn the_free_bytes_of_a_page_are_shared_among_its_blocks() {
        for blocks in [
            &[(0, 1)][..],
            &[(3, 2), (10, 6), (255, 2), (600, 1), (601, 900), (1502, 1)],
            &[(0, 256), (256, 257), (1000, 24)],
            &[(100, 412), (512, 256), (800, 2000), (2900, 5)],
        ] {
            let lives = lives(blocks);
            let moment = Moment::new(&lives, 1);
            let mut expected = vec![0.0; blocks.len()];
            for page in 0..moment.top().div_ceil(PAGE) {
                let granules = page * PAGE..(page + 1) * PAGE;
                let holder = |granule: u64| blocks.iter().position(|b| (b.0..b.0 + b.1).contains(&granule));
                let mut holders: Vec<usize> = granules.clone().filter_map(holder).collect();
                let free = PAGE as usize - holders.len();
                holders.dedup();
                holders.iter().for_each(|&block| expected[block] += free as f64 / holders.len() as f64);
            }
            let pins = moment.pins();
            assert!(pins.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-9), "{pins:?} {expected:?}");
        }
    }

    #[test]
    fn holes_and_what_keeps_top() {
        let lives = lives(&[(10, 5), (15, 5), (90, 1), (93, 2), (1000, 2)]);
        let moment = Moment::new(&lives, ALIVE);
        assert_eq!((moment.top(), moment.used()), (1002, 15));
        let hole = moment.largest_hole().expect("there is one");
        assert_eq!((hole.offset, hole.granules, hole.above.offset), (95, 905, 1000));
        let highest = moment.highest(|life| life.size as usize).expect("there is one");
        assert_eq!((highest.group, highest.blocks, highest.keeps, highest.offset), (32, 2, 1002 - 91, 93));
        let all = moment.highest(|_| 0).expect("there is one");
        assert_eq!((all.blocks, all.keeps), (5, 1002));
        assert!(Moment::new(&lives, 0).largest_hole().is_none());
    }
}
