//! Segments of many chunks: freed beside others, split, and resized.

use crate::table::Step::{Free, Give, RefuseResize, Resize, Take};
use crate::table::{Case, play};
use crate::{KIB, MIB};

const HUGE: &[Case] = &[
    Case {
        name: "beside holes small and large",
        region: MIB,
        steps: &[
            Take(16, 1, 0, 0),
            Take(16, 1, 16, 0),
            Take(64 * KIB, 1, 32, 0),
            Take(32, 1, 64 * KIB + 32, 0),
            Take(200 * KIB, 1, 64 * KIB + 64, 0),
            Take(100 * KIB, 1, 264 * KIB + 64, 0),
            Take(16, 1, 364 * KIB + 64, 0),
            Give(1),
            Give(2),
            Free(&[(16, 64 * KIB + 16), (364 * KIB + 80, 660 * KIB - 80)]),
            Give(4),
            Give(3),
            Free(&[(16, 264 * KIB + 48), (364 * KIB + 80, 660 * KIB - 80)]),
            Give(5),
            Free(&[(16, 364 * KIB + 48), (364 * KIB + 80, 660 * KIB - 80)]),
            Take(364 * KIB + 48, 1, 16, 0),
            Give(6),
            Take(364 * KIB + 49, 1, 364 * KIB + 64, 0),
        ],
    },
    Case {
        name: "split near their ends, in and across chunks",
        region: MIB,
        steps: &[
            Take(512 * KIB, 1, 0, 0),
            Take(16, 1, 512 * KIB, 0),
            Give(0),
            Take(512 * KIB - 16, 1, 0, 0),
            Free(&[(512 * KIB - 16, 16), (512 * KIB + 16, 512 * KIB - 16)]),
            Give(2),
            Take(KIB, 1, 0, 0),
            Take(KIB - 16, 1, KIB, 0),
            Take(32, 1, 2 * KIB - 16, 0),
            Take(300 * KIB, 64 * KIB, 64 * KIB, 0),
            Free(&[(2 * KIB + 16, 62 * KIB - 16), (364 * KIB, 148 * KIB), (512 * KIB + 16, 512 * KIB - 16)]),
        ],
    },
    Case {
        name: "grow and shrink by many chunks in place",
        region: MIB,
        steps: &[
            Take(16, 1, 0, 0),
            Resize(0, 512 * KIB, 0),
            Take(16, 1, 512 * KIB, 0),
            Resize(0, 16, 0),
            Free(&[(16, 512 * KIB - 16), (512 * KIB + 16, 512 * KIB - 16)]),
            Resize(0, 100 * KIB + 1, 0),
            Resize(0, 512 * KIB, 0),
            Free(&[(512 * KIB + 16, 512 * KIB - 16)]),
            Resize(0, 64 * KIB, 0),
            Resize(1, 300 * KIB, 512 * KIB),
            RefuseResize(0, 513 * KIB),
        ],
    },
];

#[test]
fn huge_segments() {
    play(HUGE);
}
