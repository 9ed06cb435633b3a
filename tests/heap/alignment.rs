//! Aligned requests: exact first fit, and every padding goes back.

use crate::table::Step::{Free, Give, Refuse, Take};
use crate::table::{Case, Player, play};
use crate::{KIB, MIB, REGION};
use smalloc::FreeList;
use std::alloc::Layout;

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

/// Around every power of two up to 1 MiB, each freed before the next: all padding must come back every time.
fn around_powers_of_two<L: FreeList>() {
    let mut player = Player::<L>::new(4 * MIB);
    for align in (4..=16).map(|power| 1 << power) {
        for power in 0..=20 {
            for size in (1_usize << power).saturating_sub(32)..=(1 << power) + 32 {
                // The second is the one with padding, since the first lies at 0.
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

/// Alignments above the base's own are those of addresses, so the offsets depend on where the region lies.
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

/// The same aligned request, again and again, does not march through the region.
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

/// Each hole is looked at once: a list that begins anew after each of them takes a minute for so many.
fn a_hundred_thousand_holes_without_an_aligned_place<L: FreeList>() {
    const HOLES: usize = 100_000;
    let mut player = Player::<L>::new(64 * MIB);
    // So that every other block begins at an odd granule.
    player.heap.smalloc(Layout::new::<[u8; 16]>());
    let layout = Layout::from_size_align(48, 1).unwrap();
    let blocks: Vec<_> = (0..2 * HOLES).map(|_| player.heap.smalloc(layout).0.unwrap()).collect();
    // From the top down: what is freed comes first in the list.
    for &block in blocks.iter().step_by(2).rev() {
        // SAFETY: the block is live.
        unsafe { player.heap.sfree(block) };
    }
    let (_, status) = player.heap.smalloc(Layout::from_size_align(48, 2 * MIB).unwrap());
    assert_eq!(status.payload_offset, Some((2 * HOLES * 48).next_multiple_of(2 * MIB)));
    let once = if L::NAME == "linked" { HOLES..=HOLES } else { HOLES..=HOLES / 16 * 17 };
    assert!(once.contains(&status.stepped), "{} steps", status.stepped);
    player.heap.check().expect("the heap is sound");
}

on_both_lists! {
    a_hundred_thousand_holes_without_an_aligned_place
    every_size_is_aligned_to_a_granule
    sizes_by_alignments
    around_powers_of_two
    above_the_alignment_of_the_base
    aligned_block_is_found_again
}
