use super::{longest_run, longest_run_about};

/// Reference implementation, bit by bit.
fn longest(word: u64) -> usize {
    let (mut longest, mut here) = (0, 0);
    for bit in 0..64 {
        here = if word >> bit & 1 != 0 { here + 1 } else { 0 };
        longest = longest.max(here);
    }
    longest
}

#[test]
fn longest_runs() {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..20_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // Words with few ones, many, and long runs.
        let word = match round % 3 {
            0 => state & state.rotate_left(20),
            1 => state | state.rotate_left(20) | state.rotate_left(40),
            _ => (u64::MAX << (state % 64)) >> (state >> 8 & 31),
        };
        assert_eq!(longest_run(word), longest(word), "{word:#x}");
        assert!(longest_run_about(word) >= longest(word), "{word:#x}");
    }
    for start in 0..60 {
        for n in 4..=63 - start {
            let run = (u64::MAX >> (64 - n)) << start;
            assert_eq!(longest_run_about(run), n, "{n} ones from bit {start}");
        }
    }
    for start in 0..64 {
        for n in 1..=64 - start {
            assert_eq!(longest_run((u64::MAX >> (64 - n)) << start), n, "{n} ones from bit {start}");
        }
    }
    assert_eq!((longest_run(0), longest_run_about(0)), (0, 3));
    assert_eq!((longest_run(u64::MAX), longest_run_about(u64::MAX)), (64, 67));
}
