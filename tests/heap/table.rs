//! Tables of exact cases, and the code that runs them.
//!
//! Offsets are those of the design, worked out by hand. Hops are those of the linked list, which steps over every free
//! segment below the one that it takes. The oracle of the model test runs beside it, so the tables test the oracle too.

use crate::oracle::{Oracle, Placed};
use smalloc::{FreeList, Heap, Indexed, Linked};
use std::alloc::Layout;
use std::ptr::NonNull;

/// One call and its expected result. Blocks are numbered in the order of the `Take`s.
pub enum Step {
    /// Size, alignment; offset, hops.
    Take(usize, usize, usize, usize),
    /// Size, alignment; hops. Nothing fits.
    Refuse(usize, usize, usize),
    /// Number of the block.
    Give(usize),
    /// Number of the block, new size; offset.
    Resize(usize, usize, usize),
    /// Number of the block, new size. Nothing fits, and the block stays.
    RefuseResize(usize, usize),
    /// Offset and size of every free segment.
    Free(&'static [(usize, usize)]),
}

pub struct Case {
    pub name: &'static str,
    pub region: usize,
    pub steps: &'static [Step],
}

/// A heap and the oracle, side by side.
pub struct Player<L: FreeList> {
    pub heap: Heap<L>,
    oracle: Oracle,
    blocks: Vec<Option<(NonNull<u8>, Layout)>>,
}

impl<L: FreeList> Player<L> {
    pub fn new(region: usize) -> Self {
        let heap = Heap::<L>::with_region_size(region).expect("a small region can be mapped");
        let oracle = Oracle::new(heap.base() as usize, heap.region_size());
        Self { heap, oracle, blocks: Vec::new() }
    }

    fn play(&mut self, step: &Step) {
        match *step {
            Step::Take(size, align, offset, hops) => self.take(size, align, Some(offset), hops),
            Step::Refuse(size, align, hops) => self.take(size, align, None, hops),
            Step::Give(number) => self.give(number),
            Step::Resize(number, size, offset) => self.resize(number, size, Some(offset)),
            Step::RefuseResize(number, size) => self.resize(number, size, None),
            Step::Free(holes) => assert_eq!(self.free_segments(), holes),
        }
        self.verify();
    }

    fn take(&mut self, size: usize, align: usize, offset: Option<usize>, hops: usize) {
        let placed = self.agree(size, align);
        assert_eq!(placed, Placed { offset, hops }, "{size} bytes aligned to {align}");
    }

    /// One allocation on both: the heap must place it where the oracle does. Returns the oracle's result.
    pub fn agree(&mut self, size: usize, align: usize) -> Placed {
        let layout = Layout::from_size_align(size, align).unwrap();
        let placed = self.oracle.alloc(layout);
        let (start, status) = self.heap.smalloc(layout);
        assert_eq!(
            (status.payload_offset, status.success),
            (placed.offset, placed.offset.is_some()),
            "{layout:?}"
        );
        assert_eq!(start.map(|start| self.offset(start)), placed.offset, "{layout:?}");
        assert_eq!(status.hops, status.stepped + status.probes, "{layout:?}");
        if L::NAME == "linked" {
            assert_eq!((status.hops, status.stepped), (placed.hops, placed.hops), "{layout:?}");
        }
        if let Some(start) = start {
            self.blocks.push(Some((start, layout)));
        }
        placed
    }

    /// Frees a block by its number.
    pub fn give(&mut self, number: usize) {
        let (start, _) = self.blocks[number].take().expect("a block is freed once");
        self.oracle.free(self.offset(start));
        // SAFETY: the block is live.
        unsafe { self.heap.sfree(start) };
    }

    fn resize(&mut self, number: usize, size: usize, offset: Option<usize>) {
        let (start, layout) = self.blocks[number].expect("the block is live");
        let old_offset = self.offset(start);
        let placed = self.oracle.realloc(old_offset, layout, size);
        let expected = placed.map_or(Some(old_offset), |placed| placed.offset);
        assert_eq!(expected, offset, "the oracle, {layout:?} to {size}");
        // SAFETY: the block is live and has this layout; the size is neither 0 nor near the largest.
        let moved = NonNull::new(unsafe { self.heap.realloc(start.as_ptr(), layout, size) });
        assert_eq!(moved.map(|start| self.offset(start)), offset, "{layout:?} to {size}");
        if let Some(start) = moved {
            let layout = Layout::from_size_align(size, layout.align()).unwrap();
            self.blocks[number] = Some((start, layout));
        }
    }

    fn offset(&self, start: NonNull<u8>) -> usize {
        start.as_ptr() as usize - self.heap.base() as usize
    }

    fn free_segments(&self) -> Vec<(usize, usize)> {
        let snapshot = self.heap.snapshot().expect("a small heap can be copied");
        snapshot.free_segments().map(|segment| (segment.offset, segment.size)).collect()
    }

    /// `check` and the oracle agree on every segment.
    pub fn verify(&self) {
        self.heap.check().expect("the heap is sound");
        let snapshot = self.heap.snapshot().expect("a small heap can be copied");
        let segments: Vec<_> = snapshot.segments().map(|s| (s.offset, s.size, s.in_use)).collect();
        assert_eq!(segments, self.oracle.segments());
    }

    /// The block allocated last takes the place of one that was freed.
    pub fn swap_in_last(&mut self, number: usize) {
        assert!(self.blocks[number].is_none());
        self.blocks.swap_remove(number);
    }

    /// Numbers blocks from 0 again; none may be live.
    pub fn forget_freed(&mut self) {
        assert!(self.blocks.iter().all(Option::is_none));
        self.blocks.clear();
    }

    /// Frees all live blocks, from below. One free segment remains.
    pub fn give_all(&mut self) {
        for number in 0..self.blocks.len() {
            if self.blocks[number].is_some() {
                self.give(number);
            }
        }
        self.forget_freed();
        self.heap.check().expect("the heap is sound");
        assert_eq!(self.free_segments(), [(0, self.heap.region_size())]);
    }
}

fn play_case<L: FreeList>(case: &Case) {
    println!("{} list: {}", L::NAME, case.name);
    let mut player = Player::<L>::new(case.region);
    for (number, step) in case.steps.iter().enumerate() {
        println!("step {number}");
        player.play(step);
    }
    player.give_all();
}

/// Runs every case on both lists.
pub fn play(cases: &[Case]) {
    for case in cases {
        play_case::<Linked>(case);
        play_case::<Indexed>(case);
    }
}
