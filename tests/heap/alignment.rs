//! Aligned requests: exact first fit, and all padding becomes free again.

use crate::table::Step::{Free, Give, Refuse, Take};
use crate::table::{Case, Player, play};
use crate::{KIB, MIB, REGION};
use smalloc::{FreeList, Heap, Indexed, Linked};
use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;

const PADDING: &[Case] = &[
    Case {
        name: "the padding in front is a hole like any other",
        region: REGION,
        steps: &[
            Take(16, 1, 0, 0),
            Take(16, 256, 256, 0),
            Free(&[(16, 240), (272, REGION - 272)]),
            Take(48, 1, 16, 0),
            Take(32, 64, 64, 0),
            Take(32, 64, 128, 0),
            Free(&[(96, 32), (160, 96), (272, REGION - 272)]),
            Give(1),
            Free(&[(96, 32), (160, REGION - 160)]),
        ],
    },
    Case {
        name: "a hole that is large enough but badly placed is stepped over",
        region: REGION,
        steps: &[
            Take(16, 1, 0, 0),
            Take(112, 1, 16, 0),
            Take(16, 1, 128, 0),
            Take(112, 1, 144, 0),
            Take(16, 1, 256, 0),
            Give(1),
            Give(3),
            Free(&[(16, 112), (144, 112), (272, REGION - 272)]),
            Take(80, 64, 320, 2),
            Take(64, 64, 64, 0),
            Take(48, 64, 192, 1),
            Free(&[(16, 48), (144, 48), (240, 16), (272, 48), (400, REGION - 400)]),
        ],
    },
    Case {
        name: "a hole that begins aligned needs no padding, an exact one leaves nothing",
        region: REGION,
        steps: &[
            Take(4096, 1, 0, 0),
            Take(4096, 4096, 4096, 0),
            Take(16, 1, 8192, 0),
            Give(1),
            Take(4096, 4096, 4096, 0),
            Free(&[(8208, REGION - 8208)]),
        ],
    },
    Case {
        name: "alignments up to that of the region",
        region: 4 * MIB,
        steps: &[
            Take(16, 1, 0, 0),
            Take(16, 2 * MIB, 2 * MIB, 0),
            Take(16, MIB, MIB, 0),
            Take(16, 64 * KIB, 64 * KIB, 0),
            Refuse(16, 2 * MIB, 4),
            Free(&[
                (16, 64 * KIB - 16),
                (64 * KIB + 16, 960 * KIB - 16),
                (MIB + 16, MIB - 16),
                (2 * MIB + 16, 2 * MIB - 16),
            ]),
        ],
    },
    Case {
        name: "padding from the wilderness up to the last granule",
        region: REGION,
        steps: &[
            Take(16, 1, 0, 0),
            Take(32 * KIB, 32 * KIB, 32 * KIB, 0),
            Free(&[(16, 32 * KIB - 16)]),
            Refuse(16, 32 * KIB, 1),
            Give(1),
            Free(&[(16, REGION - 16)]),
        ],
    },
];

#[test]
fn aligned_requests_leave_their_padding_free() {
    play(PADDING);
}

fn every_size_is_aligned_to_a_granule<L: FreeList>() {
    let mut player = Player::<L>::new(16 * MIB);
    for size in 1..=4096 {
        let offset = player.agree(size, 1).offset.expect("there is room");
        assert_eq!(offset % 16, 0, "{size} bytes");
    }
    player.verify();
    player.give_all();
}

fn sizes_by_alignments<L: FreeList>() {
    let mut player = Player::<L>::new(64 * MIB);
    for align in (0..=16).map(|power| 1 << power) {
        for size in (0..=16).map(|power| 1 << power) {
            for _copy in 0..3 {
                let offset = player.agree(size, align).offset.expect("there is room");
                assert_eq!(offset % align, 0, "{size} bytes aligned to {align}");
            }
        }
        player.verify();
    }
    player.give_all();
}

/// Sizes around every power of two up to 1 MiB, each freed before the next: all padding must become free again every
/// time.
fn around_powers_of_two<L: FreeList>() {
    let mut player = Player::<L>::new(4 * MIB);
    for align in (4..=16).map(|power| 1 << power) {
        for power in 0..=20 {
            for size in (1_usize << power).saturating_sub(32)..=(1 << power) + 32 {
                // The second block has the padding, since the first one lies at 0.
                player.agree(1, 1);
                let offset = player.agree(size, align).offset;
                assert_eq!(offset, Some(align), "{size} bytes aligned to {align}");
                player.give(1);
                player.give(0);
                player.forget_freed();
            }
        }
        player.give_all();
    }
}

/// Alignments above that of the base are alignments of addresses, so the offsets depend on the address of the region.
fn above_the_alignment_of_the_base<L: FreeList>() {
    let mut player = Player::<L>::new(64 * MIB);
    player.agree(1, 1);
    for align in (20..=25).map(|power| 1_usize << power) {
        for size in [1, align - 1, align, align + 1, 3 * align] {
            for _live in 0..4 {
                if let Some(offset) = player.agree(size, align).offset {
                    let address = player.heap.base() as usize + offset;
                    assert_eq!(address % align, 0, "{size} bytes aligned to {align}");
                }
            }
            player.verify();
            player.give_all();
            player.agree(1, 1);
        }
    }
    player.give_all();
}

/// The same aligned request, again and again, does not move up through the region.
fn aligned_block_is_found_again<L: FreeList>() {
    let mut player = Player::<L>::new(MIB);
    player.agree(100, 1);
    player.agree(100, 4096);
    player.agree(100, 1);
    player.give(1);
    let layout = Layout::from_size_align(1000, 4096).unwrap();
    for _round in 0..1000 {
        let (start, status) = player.heap.smalloc(layout);
        assert_eq!(status.payload_offset, Some(4096));
        // SAFETY: the block is live.
        unsafe { player.heap.sfree(start.unwrap()) };
    }
    player.verify();
    player.give_all();
}

/// The linked list looks at each hole once; starting again after each one would take a minute. The index learns quickly
/// that no hole has an aligned place.
fn a_hundred_thousand_holes_without_an_aligned_place<L: FreeList>() {
    const HOLES: usize = 100_000;
    let mut player = Player::<L>::new(64 * MIB);
    // Every other block then begins at an odd granule.
    player.heap.smalloc(Layout::new::<[u8; 16]>());
    let layout = Layout::from_size_align(48, 1).unwrap();
    let blocks: Vec<_> = (0..2 * HOLES).map(|_| player.heap.smalloc(layout).0.unwrap()).collect();
    // From the top down, so that each freed block comes first in the list.
    for &block in blocks.iter().step_by(2).rev() {
        // SAFETY: the block is live.
        unsafe { player.heap.sfree(block) };
    }
    let (_, status) = player.heap.smalloc(Layout::from_size_align(48, 2 * MIB).unwrap());
    assert_eq!(status.payload_offset, Some((2 * HOLES * 48).next_multiple_of(2 * MIB)));
    let hops = if L::NAME == "linked" { HOLES..=HOLES } else { 1..=400 };
    assert!(hops.contains(&status.hops), "{status:?}");
    player.heap.check().expect("the heap is sound");
}

/// Two heaps that get the same calls. The offsets of payloads are equal in both.
struct Both {
    indexed: Heap<Indexed>,
    linked: Heap<Linked>,
    live: Vec<(NonNull<u8>, NonNull<u8>)>,
    random: u64,
}

impl Both {
    fn below(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.random >> 33).unwrap() % limit
    }

    fn take(&mut self, size: usize, align: usize) {
        let layout = Layout::from_size_align(size, align).unwrap();
        let ((one, status), (other, expected)) = (self.indexed.smalloc(layout), self.linked.smalloc(layout));
        assert_eq!(status.payload_offset, expected.payload_offset, "{layout:?}");
        assert_eq!(one.map_or(0, |one| one.addr().get() % align), 0, "{layout:?}");
        self.live.extend(one.zip(other));
    }

    fn give(&mut self, index: usize) {
        let (one, other) = self.live.swap_remove(index);
        // SAFETY: the block was live in both heaps.
        unsafe { (self.indexed.sfree(one), self.linked.sfree(other)) };
    }

    fn churn(&mut self, calls: usize, aligned: usize) {
        for call in 0..calls {
            let index = self.below(self.live.len());
            self.give(index);
            let size = [48, 80, 200, 1100][self.below(4)];
            let align = [32, 64, 128, 4096][self.below(4)];
            let is_aligned = self.below(100) < aligned;
            self.take(size, if is_aligned { align } else { 1 });
            if call % 64 == 0 {
                self.indexed.check().expect("the index is exact");
            }
        }
        self.indexed.check().expect("the index is exact");
    }
}

/// Many free segments without an aligned place lead to an index for each requested alignment. It stays exact through
/// all changes, and goes away when only other requests come. The linked list provides the expected places.
fn agree_with_an_index(indexed: Heap<Indexed>, linked: Heap<Linked>, is_lent: bool) {
    let mut both = Both { indexed, linked, live: Vec::new(), random: 1 };
    // Every other block begins at an odd granule.
    both.take(16, 1);
    (0..8_000).for_each(|_| both.take(48, 1));
    (1..4_000).rev().for_each(|index| both.give(2 * index));
    let without = both.indexed.stats().metadata_bytes;
    both.churn(1_500, 30);
    let with = both.indexed.stats().metadata_bytes;
    // In lent memory, the index is counted from the start of the memory.
    assert!(with > without || is_lent, "no index was made: {without} and {with} bytes");
    // The heap grows far beyond the size that the index was made for, and shrinks again.
    (0..300).for_each(|_| both.take(8_000, 1));
    both.churn(300, 30);
    (0..both.live.len() - 1_000).for_each(|_| both.give(1_000));
    both.churn(600, 30);
    // It goes away.
    for _ in 0..110_000 {
        both.take(48, 1);
        both.give(both.live.len() - 1);
    }
    both.churn(600, 30);
    while !both.live.is_empty() {
        both.give(0);
    }
    assert_eq!(both.indexed.stats().used_bytes, 0);
    both.indexed.check().expect("the index is exact");
}

#[test]
fn both_lists_agree_while_an_alignment_has_an_index() {
    let region = 64 * MIB;
    agree_with_an_index(
        Heap::with_region_size(region).expect("addresses are free"),
        Heap::with_region_size(region).expect("addresses are free"),
        false,
    );
}

/// A heap in lent memory at `start`.
fn lent<L: FreeList>(start: NonNull<u8>, bytes: usize) -> Heap<L> {
    // SAFETY: the callers' memory is mapped, and nothing else uses it while the heap exists.
    unsafe { Heap::from_raw_parts(start, bytes) }.expect("there is room")
}

/// Lent memory, in which the region begins at a multiple of 64 bytes but of no larger power of two.
#[test]
fn both_lists_agree_in_lent_memory_with_an_index() {
    const LARGEST: usize = 64 * KIB;
    let layout = Layout::from_size_align(16 * MIB, LARGEST).unwrap();
    let bytes = layout.size() - 2 * LARGEST;
    // SAFETY: the layout is not empty.
    let parts = [(); 2].map(|()| NonNull::new(unsafe { alloc(layout) }).expect("there is memory"));
    for offset in [64, 4032] {
        // SAFETY: the parts are longer.
        let start = unsafe { parts[0].add(offset) };
        let indexed = lent::<Indexed>(start, bytes);
        // The bookkeeping has another size, so the memory has to begin elsewhere to get the same address of the region.
        let linked = lent::<Linked>(parts[1], bytes);
        let shift = indexed.base().addr().wrapping_sub(linked.base().addr()) % LARGEST;
        drop(linked);
        // SAFETY: as above.
        let start = unsafe { parts[1].add(shift) };
        agree_with_an_index(indexed, lent::<Linked>(start, bytes), true);
    }
    // SAFETY: the heaps are gone.
    parts.iter().for_each(|part| unsafe { dealloc(part.as_ptr(), layout) });
}

on_both_lists! {
    a_hundred_thousand_holes_without_an_aligned_place
    every_size_is_aligned_to_a_granule
    sizes_by_alignments
    around_powers_of_two
    above_the_alignment_of_the_base
    aligned_block_is_found_again
}
