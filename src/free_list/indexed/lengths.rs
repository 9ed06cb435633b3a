//! The longest free segment that begins in each group of [`GROUP`] chunks, in granules, and a tree of maxima over the
//! groups, with 64 entries of a level below one entry of the next.
//!
//! ```text
//! level 1                      [ 70000  900 ...                 ]
//! level 0  groups  [ 0 200 65535 ... ]  [ 0 0 900 ... ]
//! ```
//!
//! Entries of level 0 have 16 bits, and say [`MORE`] for whatever is longer. Only one segment so long begins below an
//! entry of level 1, which has 32 bits: so that entry is exact, as are all above it.
//!
//! A search goes down from the root: at most [`LEVELS`] nodes, whatever the lengths are.

use super::group::{first_from, highest_short, root_of};
use crate::free_list::Fit;
use crate::region::{CHUNK, NODE, Reservation, SPARE_CHUNKS, Span, Table};
use core::cmp::Ordering;
use core::ops::Range;
use static_assertions::const_assert;

/// Chunks of a group. With more, a search looks at more of them; with fewer, a tree takes more memory, now 0.025 %.
pub(super) const GROUP: usize = 8;
/// Levels of a tree.
pub(super) const LEVELS: usize = 4;
/// The entry of a group for lengths that do not fit.
const MORE: u16 = u16::MAX;
/// The longest length that is told apart. There is room for one segment of so many granules in a region.
const LONGEST: i32 = i32::MAX;

const_assert!(crate::region::MAX_REGION / crate::region::GRANULE / CHUNK / GROUP <= NODE.pow(LEVELS as u32));
const_assert!(crate::region::MAX_REGION / crate::region::GRANULE < 2 * LONGEST as usize);
const_assert!(NODE * GROUP * CHUNK <= MORE as usize);

/// Some trees of lengths, each for other segments. Their nodes take turns, so that they share pages in a small heap.
#[derive(Debug)]
pub(super) struct Lengths<const TREES: usize> {
    groups: Table<u16>,
    /// The levels above.
    upper: [Table<i32>; LEVELS - 1],
    /// The second place of each level, from level 0 on, to which it moves when it has more than one node.
    far: [Span; LEVELS],
    /// The level whose first node has the maximum of everything that is open.
    root: usize,
}

/// Entries of each level of so many trees for so many chunks, in whole nodes; none above the root.
fn entries(trees: usize, chunks: usize) -> [usize; LEVELS] {
    let mut entries = [0; LEVELS];
    let mut count = chunks.saturating_add(SPARE_CHUNKS).div_ceil(GROUP);
    for level in &mut entries {
        *level = count.next_multiple_of(NODE).saturating_mul(trees);
        if count <= NODE {
            break;
        }
        count = count.div_ceil(NODE);
    }
    entries
}

/// Bytes of two places of a table with so many entries of type `T`: one for a node of each tree, and one for all where
/// that is more.
fn places<T: Copy>(trees: usize, count: usize) -> [usize; 2] {
    let near = NODE.saturating_mul(trees);
    [Table::<T>::near_bytes(count, near), Table::<T>::far_bytes(count, near)]
}

/// A length as the entry of a group.
#[inline(always)]
fn short(n: usize) -> u16 {
    if n < MORE as usize { n as u16 } else { MORE }
}

/// A length as an entry above.
#[inline(always)]
fn wide(n: usize) -> i32 {
    if n < LONGEST as usize { n as i32 } else { LONGEST }
}

impl<const TREES: usize> Lengths<TREES> {
    pub(super) const EMPTY: Self = Self {
        groups: Table::NONE,
        upper: [const { Table::NONE }; LEVELS - 1],
        far: [const { Span::NONE }; LEVELS],
        root: 0,
    };

    /// The places of all levels, from level 0 on.
    fn all_places(chunks: usize) -> [[usize; 2]; LEVELS] {
        let [groups, upper @ ..] = entries(TREES, chunks);
        let [one, two, three] = upper.map(|count| places::<i32>(TREES, count));
        [places::<u16>(TREES, groups), one, two, three]
    }

    /// Bytes of the reservation that the trees take for so many chunks: in the first places of all levels, which lie
    /// side by side, and in the second ones.
    pub(super) fn bytes(chunks: usize) -> [usize; 2] {
        Self::all_places(chunks).into_iter().fold([0, 0], |[all_near, all_far], [near, far]| {
            [usize::saturating_add(all_near, near), usize::saturating_add(all_far, far)]
        })
    }

    /// Takes these parts of the reservation, for so many chunks.
    pub(super) fn attach(
        &mut self,
        reservation: &Reservation,
        [mut near_at, mut far_at]: [usize; 2],
        chunks: usize,
    ) {
        let near = NODE.saturating_mul(TREES);
        let all = Self::all_places(chunks);
        let mut next = |[near, far]: [usize; 2]| {
            let places = (near_at, far_at);
            (near_at, far_at) = (near_at.saturating_add(near), far_at.saturating_add(far));
            places
        };
        let [groups, upper @ ..] = entries(TREES, chunks);
        let [groups_places, upper_places @ ..] = all;
        let [groups_far, upper_far @ ..] = &mut self.far;
        let (near_place, far_place) = next(groups_places);
        (self.groups, *groups_far) = Table::small(reservation, (near_place, near), (far_place, groups));
        for (((level, far), count), places) in
            self.upper.iter_mut().zip(upper_far).zip(upper).zip(upper_places)
        {
            let (near_place, far_place) = next(places);
            (*level, *far) = Table::small(reservation, (near_place, near), (far_place, count));
        }
        self.root = 0;
    }

    /// Opens the trees for so many chunks (R2). False when the system refuses.
    pub(super) fn commit(&mut self, chunks: usize) -> bool {
        let [groups, upper @ ..] = entries(TREES, chunks);
        let [groups_far, upper_far @ ..] = &mut self.far;
        let levels = self.upper.iter_mut().zip(upper_far).zip(upper);
        let done = self.groups.commit_small(groups_far, groups)
            && levels.into_iter().all(|((level, far), count)| level.commit_small(far, count));
        if done {
            let root = root_of(chunks.saturating_add(SPARE_CHUNKS).div_ceil(GROUP));
            while self.root < root {
                self.add_level();
            }
        }
        done
    }

    /// Makes the level above the root the new root.
    fn add_level(&mut self) {
        for tree in 0..TREES {
            let node = Self::node(tree, 0);
            let highest = match self.root {
                0 => i32::from(highest_short(self.groups.node(node))),
                root => highest(&self.level(root).node(node).0),
            };
            self.set_entry(tree, self.root.wrapping_add(1), 0, highest);
        }
        self.root = self.root.wrapping_add(1);
    }

    /// Bytes of the trees that are open.
    pub(super) fn committed(&self) -> usize {
        self.upper.iter().map(Table::committed).fold(self.groups.committed(), usize::saturating_add)
    }

    /// Nodes of each level of a tree that are open and have an entry above them; of the root one, and none above it.
    /// Open memory is whole pages, so there may be more nodes than were asked for.
    fn open_nodes(&self) -> [usize; LEVELS] {
        let groups = self.groups.committed() / size_of::<u16>();
        let [one, two, three] = self.upper.each_ref().map(|level| level.committed() / size_of::<i32>());
        let limit = |level: usize, entries: usize, above: usize| match level.cmp(&self.root) {
            Ordering::Less => (entries / NODE / TREES).min(above.wrapping_mul(NODE)),
            Ordering::Equal => 1,
            Ordering::Greater => 0,
        };
        let three = limit(3, three, 0);
        let two = limit(2, two, three);
        let one = limit(1, one, two);
        [limit(0, groups, one), one, two, three]
    }

    /// Gives the pages of the trees back to the system. Their contents are lost.
    pub(super) fn discard(&mut self) {
        self.groups.discard();
        self.upper.iter_mut().for_each(Table::discard);
    }

    /// The level whose first node has the maximum of everything.
    pub(super) fn root(&self) -> usize {
        self.root
    }

    /// The index, in the table of a level, of the entry with this index of a tree.
    #[inline(always)]
    const fn place(tree: usize, index: usize) -> usize {
        Self::node(tree, index / NODE) * NODE + index % NODE
    }

    /// The same for a node.
    #[inline(always)]
    const fn node(tree: usize, node: usize) -> usize {
        node.wrapping_mul(TREES).wrapping_add(tree)
    }

    /// The table of a level above 0.
    #[inline(always)]
    fn level(&self, level: usize) -> &Table<i32> {
        let [.., last] = &self.upper;
        self.upper.get(level.wrapping_sub(1)).unwrap_or(last)
    }

    /// The entry of a group: the length of its longest segment, or [`MORE`].
    #[inline(always)]
    fn short(&self, tree: usize, group: usize) -> u16 {
        self.groups.get(Self::place(tree, group))
    }

    /// Whether the entry of a group says that a segment of `n` granules begins there.
    #[inline(always)]
    pub(super) fn promises(&self, tree: usize, group: usize, n: usize) -> bool {
        self.short(tree, group) >= short(n)
    }

    /// A segment of `n` granules begins in the group now.
    #[inline(always)]
    pub(super) fn raise(&mut self, tree: usize, group: usize, n: usize) {
        if self.short(tree, group) < short(n) {
            self.groups.set(Self::place(tree, group), short(n));
        } else if n < MORE as usize {
            return;
        }
        let (mut index, length) = (group, wide(n));
        for level in self.upper.iter_mut().take(self.root) {
            index /= NODE;
            let place = Self::place(tree, index);
            if level.get(place) >= length {
                return;
            }
            level.set(place, length);
        }
    }

    /// The longest segment that starts in the group has `n` granules; none does, if that is 0.
    pub(super) fn set(&mut self, tree: usize, group: usize, n: usize) {
        let old = self.short(tree, group);
        self.raise(tree, group, n);
        self.groups.set(Self::place(tree, group), short(n));
        let node = group / NODE;
        if self.root > 0 && (old == MORE || self.entry(tree, 1, node) == i32::from(old)) {
            match highest_short(self.groups.node(Self::node(tree, node))) {
                MORE if n >= MORE as usize => self.lower_above(tree, node, wide(n)),
                // The length of another group is known only from the entry above.
                MORE => {}
                highest => self.lower_above(tree, node, i32::from(highest)),
            }
        }
    }

    /// Sets an entry of level 1 to one that is no higher, and those above it to the maxima of the entries below them.
    #[inline(never)]
    fn lower_above(&mut self, tree: usize, node: usize, length: i32) {
        let (mut level, mut index, mut new) = (1_usize, node, length);
        loop {
            let old = self.entry(tree, level, index);
            self.set_entry(tree, level, index, new);
            index /= NODE;
            if level >= self.root || old == new || self.entry(tree, level.wrapping_add(1), index) != old {
                return;
            }
            new = highest(&self.level(level).node(Self::node(tree, index)).0);
            level = level.wrapping_add(1);
        }
    }

    #[inline(always)]
    fn entry(&self, tree: usize, level: usize, index: usize) -> i32 {
        self.level(level).get(Self::place(tree, index))
    }

    /// Sets an entry of a level above 0.
    fn set_entry(&mut self, tree: usize, level: usize, index: usize, length: i32) {
        if let Some(level) = self.upper.get_mut(level.wrapping_sub(1)) {
            level.set(Self::place(tree, index), length);
        }
    }

    /// Sets the lengths of all groups that are open.
    pub(super) fn set_all(&mut self, tree: usize, length: impl Fn(usize) -> usize) {
        let [nodes, one, two, _] = self.open_nodes();
        for node in 0..nodes {
            let mut highest = 0;
            for group in node * NODE..(node + 1) * NODE {
                let n = length(group);
                self.groups.set(Self::place(tree, group), short(n));
                highest = highest.max(wide(n));
            }
            if self.root > 0 {
                self.set_entry(tree, 1, node, highest);
            }
        }
        for (level, nodes) in (1..self.root).zip([one, two]) {
            for node in 0..nodes {
                let highest = highest(&self.level(level).node(Self::node(tree, node)).0);
                self.set_entry(tree, level + 1, node, highest);
            }
        }
    }

    /// No segment begins in these groups any more.
    pub(super) fn clear(&mut self, tree: usize, groups: Range<usize>) {
        let mut group = groups.start;
        while group < groups.end {
            let end = ((group / NODE + 1) * NODE).min(groups.end);
            if self.root == 0 || self.entry(tree, 1, group / NODE) != 0 {
                for group in group..end {
                    if self.short(tree, group) != 0 {
                        self.set(tree, group, 0);
                    }
                }
            }
            group = end;
        }
    }

    /// The lowest place, at or above `from`, in a node of a level that promises `n` granules; [`NODE`] if there is
    /// none.
    #[inline(always)]
    fn first_in_node(&self, tree: usize, level: usize, node: usize, from: usize, n: usize) -> usize {
        let node = Self::node(tree, node);
        match level {
            0 => first_from(self.groups.node(node), from, short(n)),
            _ => first_from(self.level(level).node(node), from, wide(n)),
        }
    }

    /// The lowest group in which a segment of `n` granules starts, if one does. Counts the nodes.
    #[inline]
    pub(super) fn first(&self, tree: usize, n: usize, fit: &mut Fit) -> Option<usize> {
        fit.probe(1);
        let entry = self.first_in_node(tree, self.root, 0, 0, n);
        (entry < NODE).then(|| self.descend(tree, self.root, entry, n, fit))
    }

    /// The lowest group from `group` on in which a segment of `n` granules starts, if one does. Counts the nodes.
    pub(super) fn next(&self, tree: usize, group: usize, n: usize, fit: &mut Fit) -> Option<usize> {
        let (mut level, mut index, mut from) = (0_usize, group / NODE, group % NODE);
        loop {
            fit.probe(1);
            let entry = self.first_in_node(tree, level, index, from, n);
            if entry < NODE {
                return Some(self.descend(tree, level, index.wrapping_mul(NODE).wrapping_add(entry), n, fit));
            }
            if level == self.root {
                return None;
            }
            level = level.wrapping_add(1);
            from = (index % NODE).wrapping_add(1);
            index /= NODE;
        }
    }

    /// The lowest group below an entry of a level, which promises `n`.
    #[inline]
    fn descend(&self, tree: usize, mut level: usize, mut index: usize, n: usize, fit: &mut Fit) -> usize {
        while level > 0 {
            level = level.wrapping_sub(1);
            fit.probe(1);
            let entry = self.first_in_node(tree, level, index, 0, n);
            index = index.wrapping_mul(NODE).wrapping_add(entry % NODE);
        }
        index
    }

    // ---- looking through it ----------------------------------------------------------------------------------

    /// The length that an entry of a level promises.
    pub(super) fn promise(&self, tree: usize, level: usize, index: usize) -> usize {
        match level {
            0 => match self.short(tree, index) {
                MORE => usize::MAX,
                short => short.into(),
            },
            _ => self.entry(tree, level, index) as usize,
        }
    }

    /// Whether the entry of a group says that its longest segment has `n` granules.
    pub(super) fn is_exact(&self, tree: usize, group: usize, n: usize) -> bool {
        self.short(tree, group) == short(n)
    }

    /// Whether no entry above a group that promises `n` granules promises less.
    pub(super) fn covers(&self, tree: usize, group: usize, n: usize) -> bool {
        self.promises(tree, group, n)
            && (1..=self.root).all(|level| {
                let index = group / NODE.pow(level as u32);
                self.entry(tree, level, index) >= wide(n)
            })
    }

    /// Whether every entry above the groups is the maximum of those below it. Above a group with [`MORE`], one of level
    /// 1 cannot be told from what it should be.
    pub(super) fn are_maxima(&self, tree: usize) -> bool {
        let entry = |level, index| self.entry(tree, level, index);
        let is_maximum = |node| match highest_short(self.groups.node(Self::node(tree, node))) {
            MORE => entry(1, node) >= i32::from(MORE),
            short => entry(1, node) == i32::from(short),
        };
        let [groups, upper @ ..] = self.open_nodes();
        let levels = (1..self.root).zip(upper);
        (self.root == 0 || (0..groups).all(is_maximum))
            && levels.into_iter().all(|(level, nodes)| {
                let highest = |node| highest(&self.level(level).node(Self::node(tree, node)).0);
                (0..nodes).all(|node| entry(level + 1, node) == highest(node))
            })
    }
}

/// The highest entry of a node.
fn highest(entries: &[i32; NODE]) -> i32 {
    entries.iter().copied().fold(0, i32::max)
}
