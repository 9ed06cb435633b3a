//! First fit, splitting and coalescing: offsets and hops.

use crate::REGION;
use crate::oracle::GRANULE;
use crate::table::Step::{Free, Give, Refuse, Take};
use crate::table::{Case, Player, play};
use smalloc::{FreeList, Indexed, Linked};

const FIRST_FIT: &[Case] = &[
    Case {
        name: "sizes are rounded up to granules, an empty request takes one",
        region: REGION,
        steps: &[
            Take(1, 1, 0, 0),
            Take(16, 1, 16, 0),
            Take(17, 1, 32, 0),
            Take(0, 1, 64, 0),
            Take(100, 4, 80, 0),
            Free(&[(192, REGION - 192)]),
        ],
    },
    Case {
        name: "the lowest hole, not the best one",
        region: REGION,
        steps: &[
            Take(64, 1, 0, 0),
            Take(16, 1, 64, 0),
            Take(48, 1, 80, 0),
            Take(16, 1, 128, 0),
            Give(0),
            Give(2),
            Free(&[(0, 64), (80, 48), (144, REGION - 144)]),
            Take(48, 1, 0, 0),
            Take(48, 1, 80, 1),
            Take(16, 1, 48, 0),
            Take(16, 1, 144, 0),
        ],
    },
    Case {
        name: "a hop for every hole that is too small, the wilderness is the last resort",
        region: REGION,
        steps: &[
            Take(16, 1, 0, 0),
            Take(16, 1, 16, 0),
            Take(32, 1, 32, 0),
            Take(16, 1, 64, 0),
            Take(48, 1, 80, 0),
            Take(16, 1, 128, 0),
            Give(0),
            Give(2),
            Give(4),
            Free(&[(0, 16), (32, 32), (80, 48), (144, REGION - 144)]),
            Take(64, 1, 144, 3),
            Take(48, 1, 80, 2),
            Take(20, 1, 32, 1),
            Take(1, 1, 0, 0),
            Free(&[(208, REGION - 208)]),
        ],
    },
    Case {
        name: "holes are found in the order of their addresses, not of the frees",
        region: REGION,
        steps: &[
            Take(32, 1, 0, 0),
            Take(32, 1, 32, 0),
            Take(32, 1, 64, 0),
            Take(32, 1, 96, 0),
            Take(32, 1, 128, 0),
            Take(32, 1, 160, 0),
            Give(4),
            Give(0),
            Give(2),
            Take(32, 1, 0, 0),
            Take(32, 1, 64, 0),
            Take(32, 1, 128, 0),
        ],
    },
];

#[test]
fn placement_is_first_fit() {
    play(FIRST_FIT);
}

const SPLITTING: &[Case] = &[
    Case {
        name: "the block is in front, the rest behind it",
        region: REGION,
        steps: &[
            Take(128, 1, 0, 0),
            Take(16, 1, 128, 0),
            Give(0),
            Take(48, 1, 0, 0),
            Free(&[(48, 80), (144, REGION - 144)]),
            Take(80, 1, 48, 0),
            Free(&[(144, REGION - 144)]),
        ],
    },
    Case {
        name: "a rest of one granule is a segment",
        region: REGION,
        steps: &[
            Take(48, 1, 0, 0),
            Take(16, 1, 48, 0),
            Give(0),
            Take(32, 1, 0, 0),
            Free(&[(32, 16), (64, REGION - 64)]),
            Take(16, 1, 32, 0),
        ],
    },
    Case {
        name: "an exact fit leaves no rest, one granule more does not fit",
        region: REGION,
        steps: &[
            Take(48, 1, 0, 0),
            Take(16, 1, 48, 0),
            Give(0),
            Take(49, 1, 64, 1),
            Take(48, 1, 0, 0),
            Free(&[(128, REGION - 128)]),
        ],
    },
];

#[test]
fn segments_are_split() {
    play(SPLITTING);
}

const COALESCING: &[Case] = &[
    Case {
        name: "with neither neighbour",
        region: REGION,
        steps: &[
            Take(32, 1, 0, 0),
            Take(32, 1, 32, 0),
            Take(32, 1, 64, 0),
            Give(1),
            Free(&[(32, 32), (96, REGION - 96)]),
        ],
    },
    Case {
        name: "with the one in front",
        region: REGION,
        steps: &[
            Take(32, 1, 0, 0),
            Take(48, 1, 32, 0),
            Take(16, 1, 80, 0),
            Give(0),
            Give(1),
            Free(&[(0, 80), (96, REGION - 96)]),
            Take(80, 1, 0, 0),
        ],
    },
    Case {
        name: "with the one behind",
        region: REGION,
        steps: &[
            Take(32, 1, 0, 0),
            Take(48, 1, 32, 0),
            Take(16, 1, 80, 0),
            Give(1),
            Give(0),
            Free(&[(0, 80), (96, REGION - 96)]),
            Take(80, 1, 0, 0),
        ],
    },
    Case {
        name: "with both",
        region: REGION,
        steps: &[
            Take(32, 1, 0, 0),
            Take(48, 1, 32, 0),
            Take(64, 1, 80, 0),
            Take(16, 1, 144, 0),
            Give(0),
            Give(2),
            Free(&[(0, 32), (80, 64), (160, REGION - 160)]),
            Give(1),
            Free(&[(0, 144), (160, REGION - 160)]),
            Take(144, 1, 0, 0),
        ],
    },
    Case {
        name: "with the wilderness, and with the hole in front of it",
        region: REGION,
        steps: &[
            Take(32, 1, 0, 0),
            Take(32, 1, 32, 0),
            Take(32, 1, 64, 0),
            Give(2),
            Free(&[(64, REGION - 64)]),
            Give(0),
            Free(&[(0, 32), (64, REGION - 64)]),
            Give(1),
            Free(&[(0, REGION)]),
        ],
    },
    Case {
        name: "with the last block of a full region",
        region: REGION,
        steps: &[
            Take(REGION - 32, 1, 0, 0),
            Take(32, 1, REGION - 32, 0),
            Refuse(1, 1, 0),
            Give(1),
            Free(&[(REGION - 32, 32)]),
            Take(16, 1, REGION - 32, 0),
            Take(16, 1, REGION - 16, 0),
            Give(0),
            Free(&[(0, REGION - 32)]),
            Give(3),
            Free(&[(0, REGION - 32), (REGION - 16, 16)]),
        ],
    },
];

#[test]
fn neighbours_coalesce() {
    play(COALESCING);
}

/// Fills a region with blocks of `granules` behind a prefix, frees every other one, fills the holes again, and requests
/// one granule more than a hole has.
fn fill_and_punch<L: FreeList>(prefix: usize, granules: usize) {
    let size = granules * GRANULE;
    let mut player = Player::<L>::new(REGION);
    player.agree(prefix * GRANULE, 1);
    while player.agree(size, 1).offset.is_some() {}
    let last = (REGION / GRANULE - prefix) / granules;
    player.verify();
    for number in (1..last).step_by(2) {
        player.give(number);
    }
    player.verify();
    assert_eq!(player.agree(size + 1, 1).offset, None, "a hole holds one granule less");
    for number in (1..last).step_by(2) {
        let offset = (prefix + (number - 1) * granules) * GRANULE;
        assert_eq!(player.agree(size - 1, 1).offset, Some(offset), "{granules} granules");
    }
    player.verify();
    player.give_all();
}

/// A chunk has 64 granules. At 32 and 64 granules the shifts of a run search, the words of the map and the classes of
/// sizes change, and so they do at multiples of chunks.
#[test]
fn sizes_and_places_across_chunk_ends() {
    let sizes = [1, 2, 3, 16, 31, 32, 33, 62, 63, 64, 65, 66, 127, 128, 129, 192, 193, 255, 256, 257];
    for prefix in [1, 32, 63, 64, 65] {
        for granules in sizes {
            fill_and_punch::<Linked>(prefix, granules);
            fill_and_punch::<Indexed>(prefix, granules);
        }
    }
}

/// Two blocks of every pair of sizes, freed in both orders beside a block in use: every way in which a free segment and
/// its neighbours can lie across the ends of chunks.
fn coalesce_across<L: FreeList>(front: usize, behind: usize) {
    let mut player = Player::<L>::new(REGION);
    for first_freed in [0, 1] {
        for shift in [1, 30, 62, 63, 64] {
            player.agree(shift * GRANULE, 1);
            player.agree(front * GRANULE, 1);
            player.agree(behind * GRANULE, 1);
            player.agree(GRANULE, 1);
            player.give(1 + first_freed);
            player.verify();
            player.give(2 - first_freed);
            player.verify();
            let whole = player.agree((front + behind) * GRANULE, 1);
            assert_eq!((whole.offset, whole.hops), (Some(shift * GRANULE), 0));
            player.verify();
            player.give_all();
        }
    }
}

#[test]
fn neighbours_coalesce_across_chunk_ends() {
    for front in [1, 2, 63, 64, 65, 128, 130] {
        for behind in [1, 2, 63, 64, 65, 128, 130] {
            coalesce_across::<Linked>(front, behind);
            coalesce_across::<Indexed>(front, behind);
        }
    }
}
