//! The free memory that each group of blocks keeps from going back to the system.

use smalloc_terminal::Bytes;

use super::moment::Moment;
use crate::replay::{ALIVE, GRANULE, Kind, Lives};

/// A group of blocks, and the free bytes that it keeps.
pub(crate) struct Pin {
    pub(crate) group: usize,
    pub(crate) blocks: usize,
    pub(crate) kept: Bytes,
}

/// All groups at one moment.
pub(crate) struct Pins {
    pub(crate) top: Bytes,
    /// Free bytes below top, and those of them on pages that are in use in part.
    pub(crate) free: Bytes,
    pub(crate) kept: Bytes,
    /// The groups that keep anything, those that keep most first.
    pub(crate) groups: Vec<Pin>,
    /// The group of the highest blocks, and by how much they raise top. None if stacks are known of a sample alone.
    pub(crate) highest: Option<Pin>,
}

impl Pins {
    /// The pins of the blocks that are in use at the end of a replay.
    pub(crate) fn at_end(lives: &Lives, kind: Kind) -> Self {
        let moment = Moment::new(lives, ALIVE);
        let pinned = moment.pins();
        let bytes = |granules: f64| Bytes((granules * GRANULE as f64) as usize);
        let mut groups = vec![(0, 0.0); lives.tallies.of(kind).len()];
        for (life, pin) in moment.blocks.iter().zip(&pinned).filter(|(_, pin)| **pin > 0.0) {
            let (weight, group) = (kind.weight(life), &mut groups[kind.group(life)]);
            *group = (group.0 + weight as usize, group.1 + weight as f64 * pin);
        }
        let of_group = |(group, (blocks, kept))| Pin { group, blocks, kept: bytes(kept) };
        let mut groups: Vec<Pin> =
            groups.into_iter().enumerate().filter(|(_, pin)| pin.0 > 0).map(of_group).collect();
        groups.sort_by_key(|pin| std::cmp::Reverse(pin.kept.0));
        let is_sample = moment.blocks.iter().any(|life| kind.weight(life) != 1);
        let highest = moment.highest(|life| kind.group(life)).filter(|_| !is_sample);
        let (top, used) = (moment.top() as f64, moment.used() as f64);
        Self {
            top: bytes(top),
            free: bytes(top - used),
            // The page of top reaches beyond it.
            kept: Bytes(bytes(pinned.iter().sum()).0.min(bytes(top - used).0)),
            groups,
            highest: highest.map(|highest| Pin {
                group: highest.group,
                blocks: highest.blocks,
                kept: bytes(highest.keeps as f64),
            }),
        }
    }
}
