//! Runs of ones in a word of 64 bits.

use crate::region::CHUNK;

/// The shifts that make runs of `n` from single bits, for `n` up to 64: one byte each, six of them.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const SHIFTS: [u64; CHUNK + 1] = {
    let mut table = [0; CHUNK + 1];
    let mut n = 1;
    while n <= CHUNK {
        let mut rest = n;
        let mut step = 0;
        while step < 6 {
            table[n] |= ((rest / 2) as u64) << (8 * step);
            rest -= rest / 2;
            step += 1;
        }
        n += 1;
    }
    table
};

/// The places where `n` ones in a row begin, `n` from 1 to 64; ones are taken to follow a word that ends in one.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "the index has just been compared")]
pub(super) const fn runs(word: u64, n: usize) -> u64 {
    // SHIFTS has an entry for every n there is; the mask only tells the compiler so.
    let mut shifts = if n <= CHUNK { SHIFTS[n] } else { 0 };
    let mut word = word as i64;
    let mut step = 0;
    while step < 6 {
        if step == 3 && n <= 8 {
            break;
        }
        word &= word >> (shifts & 63);
        shifts >>= 8;
        step += 1;
    }
    word as u64
}

/// The length of the longest run of ones in a word.
#[expect(clippy::indexing_slicing, reason = "loops over an array of six, unrolled")]
pub(super) const fn longest_run(word: u64) -> usize {
    if word == u64::MAX {
        return CHUNK;
    }
    // starts[k]: where runs of 2^k ones begin.
    let mut starts = [word; 6];
    let mut k = 1;
    while k < 6 {
        starts[k] = starts[k - 1] & (starts[k - 1] >> (1 << (k - 1)));
        k += 1;
    }
    let mut length = 0;
    let mut longest = u64::MAX;
    while k > 0 {
        k -= 1;
        let longer = longest & (starts[k] >> length);
        if longer != 0 {
            longest = longer;
            length += 1 << k;
        }
    }
    length
}

/// No less than the length of the longest run of ones in a word, in a third of the time: exactly that where only one run
/// has four ones or more, and the word's last bit is not set.
#[inline(always)]
pub(super) const fn longest_run_about(word: u64) -> usize {
    // In a run of length n, from four on, four ones in a row begin at n - 3 places.
    runs(word, 4).count_ones() as usize + 3
}

#[cfg(test)]
mod tests {
    use super::{longest_run, longest_run_about};

    /// The slow, obvious way.
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
        assert_eq!((longest_run(0), longest_run_about(0)), (0, 3));
        assert_eq!((longest_run(u64::MAX), longest_run_about(u64::MAX)), (64, 67));
    }
}
