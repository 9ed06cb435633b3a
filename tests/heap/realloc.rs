//! The place and the contents of a block after it was resized.

use crate::table::Step::{Free, Give, RefuseResize, Resize, Take};
use crate::table::{Case, play};
use crate::{MIB, REGION};
use smalloc::{FreeList, Heap};
use std::alloc::Layout;
use std::cell::RefCell;
use std::ptr::NonNull;

const RESIZING: &[Case] = &[
    Case {
        name: "the same granules",
        region: REGION,
        steps: &[
            Take(20, 1, 0, 0),
            Take(16, 1, 32, 0),
            Resize(0, 32, 0),
            Resize(0, 17, 0),
            Free(&[(48, REGION - 48)]),
        ],
    },
    Case {
        name: "shrinking gives the tail back, which coalesces",
        region: REGION,
        steps: &[
            Take(96, 1, 0, 0),
            Take(32, 1, 96, 0),
            Take(16, 1, 128, 0),
            Resize(0, 64, 0),
            Free(&[(64, 32), (144, REGION - 144)]),
            Give(1),
            Free(&[(64, 64), (144, REGION - 144)]),
            Resize(0, 1, 0),
            Free(&[(16, 112), (144, REGION - 144)]),
        ],
    },
    Case {
        name: "shrinking the last block gives the tail to the wilderness",
        region: REGION,
        steps: &[Take(4096, 1, 0, 0), Resize(0, 100, 0), Free(&[(112, REGION - 112)]), Take(16, 1, 112, 0)],
    },
    Case {
        name: "growing takes from the front of the hole behind, to its last granule",
        region: REGION,
        steps: &[
            Take(32, 1, 0, 0),
            Take(64, 1, 32, 0),
            Take(16, 1, 96, 0),
            Give(1),
            Resize(0, 48, 0),
            Free(&[(48, 48), (112, REGION - 112)]),
            Resize(0, 96, 0),
            Free(&[(112, REGION - 112)]),
        ],
    },
    Case {
        name: "growing into the wilderness, to the last granule and not further",
        region: REGION,
        steps: &[
            Take(16, 1, 0, 0),
            Resize(0, 4096, 0),
            Resize(0, REGION, 0),
            Free(&[]),
            RefuseResize(0, REGION + 1),
            Resize(0, 16, 0),
        ],
    },
    Case {
        name: "in place even when a lower hole would fit",
        region: REGION,
        steps: &[
            Take(256, 1, 0, 0),
            Take(16, 1, 256, 0),
            Take(32, 1, 272, 0),
            Give(0),
            Resize(2, 64, 272),
            Free(&[(0, 256), (336, REGION - 336)]),
        ],
    },
    Case {
        name: "else it moves first fit, and only then is the old block free",
        region: REGION,
        steps: &[
            Take(32, 1, 0, 0),
            Take(64, 1, 32, 0),
            Take(16, 1, 96, 0),
            Give(0),
            // Bytes 0 to 96 could hold it if the old block were free, but it is in use while the search goes on.
            Resize(1, 80, 112),
            Free(&[(0, 96), (192, REGION - 192)]),
        ],
    },
    Case {
        name: "a hole behind that is one granule short is no help",
        region: REGION,
        steps: &[
            Take(32, 1, 0, 0),
            Take(32, 1, 32, 0),
            Take(16, 1, 64, 0),
            Give(1),
            Resize(0, 80, 80),
            Free(&[(0, 64), (160, REGION - 160)]),
        ],
    },
    Case {
        name: "a moved block keeps its alignment",
        region: REGION,
        steps: &[
            Take(64, 256, 0, 0),
            Take(16, 1, 64, 0),
            Resize(0, 128, 256),
            Free(&[(0, 64), (80, 176), (384, REGION - 384)]),
        ],
    },
    Case {
        name: "a resize that nothing holds leaves the block as it is",
        region: REGION,
        steps: &[
            Take(64, 1, 0, 0),
            Take(REGION - 128, 1, 64, 0),
            RefuseResize(0, 96),
            RefuseResize(1, REGION - 32),
            Free(&[(REGION - 64, 64)]),
            Resize(1, REGION - 64, 64),
        ],
    },
];

#[test]
fn realloc_keeps_its_place_when_it_can() {
    play(RESIZING);
}

/// A byte that depends on its place, which shows a copy from the wrong place.
fn byte_at(index: usize) -> u8 {
    (index % 251).to_le_bytes()[0]
}

fn write<L: FreeList>(block: &Block<'_, L>) {
    for index in 0..block.layout.size() {
        // SAFETY: the index lies inside the live block.
        unsafe { block.start.add(index).write(byte_at(index)) };
    }
}

fn assert_written<L: FreeList>(block: &Block<'_, L>, size: usize) {
    // SAFETY: the block is live and its first `size` bytes were written.
    let bytes = unsafe { std::slice::from_raw_parts(block.start.as_ptr(), size) };
    let wrong = bytes.iter().enumerate().position(|(index, &byte)| byte != byte_at(index));
    assert_eq!(wrong, None, "{:?}, the first {size} bytes", block.layout);
}

/// A live block of a heap that several blocks share.
struct Block<'heap, L: FreeList> {
    heap: &'heap RefCell<Heap<L>>,
    start: NonNull<u8>,
    layout: Layout,
}

impl<'heap, L: FreeList> Block<'heap, L> {
    fn new(heap: &'heap RefCell<Heap<L>>, size: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(size, align).unwrap();
        let start = heap.borrow_mut().smalloc(layout).0.expect("there is room");
        Self { heap, start, layout }
    }

    fn resize(&mut self, size: usize) {
        // SAFETY: the block is live, has this layout, and the size is small and not zero.
        let start = unsafe { self.heap.borrow_mut().realloc(self.start.as_ptr(), self.layout, size) };
        self.start = NonNull::new(start).expect("there is room");
        self.layout = Layout::from_size_align(size, self.layout.align()).unwrap();
        assert_eq!(self.start.as_ptr() as usize % self.layout.align(), 0, "{:?}", self.layout);
    }
}

impl<L: FreeList> Drop for Block<'_, L> {
    fn drop(&mut self) {
        // SAFETY: the block is live and has this layout.
        unsafe { self.heap.borrow_mut().dealloc(self.start.as_ptr(), self.layout) };
    }
}

/// Two blocks grow in turns, so that each blocks the other one and has to move again and again.
fn contents_survive_growing_and_shrinking<L: FreeList>() {
    for align in [1, 16, 64, 4096] {
        let heap = RefCell::new(Heap::<L>::with_region_size(16 * MIB).expect("a small region can be mapped"));
        let mut blocks = [Block::new(&heap, 1, align), Block::new(&heap, 1, align)];
        for size in (0..=20).flat_map(|power| [1 << power, (1 << power) + 1]) {
            for block in &mut blocks {
                write(block);
                let kept = block.layout.size().min(size);
                block.resize(size);
                assert_written(block, kept);
            }
        }
        blocks.iter().for_each(write);
        for size in (0..=20).rev().map(|power| 1 << power) {
            for block in &mut blocks {
                block.resize(size);
                assert_written(block, size);
            }
        }
        assert!(heap.borrow().stats().reallocs_moved >= 10, "blocks in each other's way move");
        drop(blocks);
        assert_eq!(heap.borrow().stats().free_segments, 1);
        heap.borrow().check().expect("the heap is sound");
    }
}

/// A block that grows granule by granule into the holes behind it never touches its live neighbours.
fn growing_in_place_keeps_the_neighbours<L: FreeList>() {
    let heap = RefCell::new(Heap::<L>::with_region_size(MIB).expect("a small region can be mapped"));
    let mut first = Block::new(&heap, 16, 1);
    let hole = Block::new(&heap, 3000, 1);
    let wall = Block::new(&heap, 500, 1);
    write(&wall);
    drop(hole);
    let place = first.start;
    // 16 bytes, and the 3008 bytes that a request of 3000 takes.
    for size in 17..=3024 {
        write(&first);
        first.resize(size);
        assert_eq!(first.start, place, "{size} bytes fit in front of the wall");
        assert_written(&first, size - 1);
    }
    write(&first);
    first.resize(3025);
    assert_ne!(first.start, place);
    assert_written(&first, 3024);
    assert_written(&wall, 500);
}

on_both_lists! {
    contents_survive_growing_and_shrinking
    growing_in_place_keeps_the_neighbours
}
