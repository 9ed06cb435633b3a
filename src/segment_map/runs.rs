//! Runs of ones in a 64-bit word.

use crate::region::CHUNK;

/// For each `n` up to 64, six shifts, one byte each, that together reduce a run of `n` ones to its lowest bit.
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

/// Sets a bit where `n` ones in a row begin, with `n` from 1 to 64. If bit 63 is set, ones are assumed to follow.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "the index has just been compared")]
pub(super) const fn runs(word: u64, n: usize) -> u64 {
    // The comparison is always true; it removes a bounds check.
    let mut shifts = if n <= CHUNK { SHIFTS[n] } else { 0 };
    let mut word = word as i64;
    let mut step = 0;
    while step < 6 {
        // Three shifts do for most requests. Stopping after exactly as many as `n` needs would mispredict more often.
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
#[inline(always)]
pub(super) const fn longest_run(word: u64) -> usize {
    // Most words have one run.
    let lowest = word & word.wrapping_neg();
    if word & word.wrapping_add(lowest) == 0 {
        return (u64::BITS - word.leading_zeros()).saturating_sub(word.trailing_zeros()) as usize;
    }
    longest_of_runs(word)
}

/// The length of the longest of several runs. Without a branch, since none could be predicted.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "loops over an array of six, unrolled")]
const fn longest_of_runs(word: u64) -> usize {
    // starts[k] has a bit set where 2^k ones in a row start.
    let mut starts = [word; 6];
    let mut k = 1;
    while k < 6 {
        starts[k] = starts[k - 1] & (starts[k - 1] >> (1 << (k - 1)));
        k += 1;
    }
    let mut length = (word == u64::MAX) as usize;
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

/// An upper bound on the longest run of ones in a word, in a third of the time of [`longest_run`]. It is exact if only
/// one run has four ones or more and bit 63 is clear.
#[inline(always)]
pub(super) const fn longest_run_about(word: u64) -> usize {
    // A run of n >= 4 ones has n - 3 places where four ones in a row begin.
    runs(word, 4).count_ones() as usize + 3
}

#[cfg(test)]
#[path = "../../tests/unit/segment_map/runs.rs"]
mod tests;
