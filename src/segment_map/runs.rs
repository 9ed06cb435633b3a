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
#[path = "../../tests/unit/segment_map/runs.rs"]
mod tests;
