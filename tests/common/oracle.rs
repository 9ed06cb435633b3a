//! First fit, written the obvious way: a sorted list of holes and nothing clever.
//!
//! The library must place every block where this model does, and the linked free list must step over as many free
//! segments. All numbers are bytes; offsets count from the region's base. The wilderness is no special case: it is the
//! hole that ends where the region ends, so it comes last in the list.

use std::alloc::Layout;
use std::collections::BTreeMap;
use std::ops::Range;

/// The unit of size and address.
pub const GRANULE: usize = 16;

/// The bytes that a block of `size` bytes takes: whole granules, and at least one.
pub fn rounded(size: usize) -> usize {
    size.max(1).next_multiple_of(GRANULE)
}

/// The result of a search: the place of the block, if any, and the number of holes stepped over on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    pub offset: Option<usize>,
    pub hops: usize,
}

/// The model of a heap.
#[derive(Debug)]
pub struct Oracle {
    base: usize,
    /// In ascending order, and no two of them touch.
    holes: Vec<Range<usize>>,
    /// Maps offsets to rounded sizes.
    used: BTreeMap<usize, usize>,
}

impl Oracle {
    /// An empty heap over `region_size` bytes at the address `base`. Alignments are those of addresses.
    pub fn new(base: usize, region_size: usize) -> Self {
        Self { base, holes: std::iter::once(0..region_size).collect(), used: BTreeMap::new() }
    }

    /// The lowest hole that can hold the layout provides the lowest aligned address in it.
    pub fn alloc(&mut self, layout: Layout) -> Placed {
        let size = rounded(layout.size());
        let fit = self.holes.iter().enumerate().find_map(|(hops, hole)| {
            let address = (self.base + hole.start).checked_next_multiple_of(layout.align())?;
            let offset = address - self.base;
            (offset.checked_add(size)? <= hole.end).then_some((hops, offset))
        });
        let Some((hops, offset)) = fit else {
            return Placed { offset: None, hops: self.holes.len() };
        };
        let hole = self.holes.remove(hops);
        for rest in [offset + size..hole.end, hole.start..offset] {
            if !rest.is_empty() {
                self.holes.insert(hops, rest);
            }
        }
        self.used.insert(offset, size);
        Placed { offset: Some(offset), hops }
    }

    /// Frees the block at `offset`.
    pub fn free(&mut self, offset: usize) {
        let size = self.used.remove(&offset).expect("only blocks in use are freed");
        self.add_hole(offset..offset + size);
    }

    /// Resizes in place if the block keeps its granules, shrinks, or can grow into the hole behind it, and returns
    /// `None`. Otherwise searches as for a new block; the old block is freed after that, and stays if the search fails.
    pub fn realloc(&mut self, offset: usize, layout: Layout, new_size: usize) -> Option<Placed> {
        let (old, new) = (rounded(layout.size()), rounded(new_size));
        assert_eq!(self.used[&offset], old, "the layout is that of the block");
        if new > old && !self.take_from_hole_at(offset + old, new - old) {
            let layout = Layout::from_size_align(new_size, layout.align()).expect("a valid layout");
            let placed = self.alloc(layout);
            if placed.offset.is_some() {
                self.free(offset);
            }
            return Some(placed);
        }
        self.used.insert(offset, new);
        if new < old {
            self.add_hole(offset + new..offset + old);
        }
        None
    }

    fn take_from_hole_at(&mut self, start: usize, size: usize) -> bool {
        let Some(index) = self.holes.iter().position(|hole| hole.start == start && hole.len() >= size) else {
            return false;
        };
        self.holes[index].start += size;
        if self.holes[index].is_empty() {
            self.holes.remove(index);
        }
        true
    }

    fn add_hole(&mut self, mut hole: Range<usize>) {
        let mut index = self.holes.partition_point(|other| other.start < hole.start);
        if self.holes.get(index).is_some_and(|next| next.start == hole.end) {
            hole.end = self.holes.remove(index).end;
        }
        if index > 0 && self.holes[index - 1].end == hole.start {
            index -= 1;
            hole.start = self.holes.remove(index).start;
        }
        self.holes.insert(index, hole);
    }

    /// Every segment in address order: offset, size, and whether it is in use.
    #[allow(dead_code, reason = "not every test program looks at them")]
    pub fn segments(&self) -> Vec<(usize, usize, bool)> {
        let holes = self.holes.iter().map(|hole| (hole.start, hole.len(), false));
        let used = self.used.iter().map(|(&offset, &size)| (offset, size, true));
        let mut all: Vec<_> = holes.chain(used).collect();
        all.sort_unstable();
        all
    }
}
