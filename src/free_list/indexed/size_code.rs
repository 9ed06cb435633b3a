//! Sizes as one byte, and classes of sizes.
//!
//! A *code* is what a bound of the tree holds: the number of granules up to 64, then sixteen steps to a doubling. A *class*
//! is what a hint is for: the code up to [`OWN_CLASS`], then two classes to a doubling.

#![expect(clippy::indexing_slicing, reason = "the table has an entry for every byte")]

use crate::free_list::LARGEST_LOOK;

/// Codes up to this one are numbers of granules.
pub(super) const EXACT: usize = 64;
/// Sizes up to this one, in granules, have a class of their own, with the same number: there is a first look for each.
pub(super) const OWN_CLASS: usize = LARGEST_LOOK;
/// Classes, numbered from 1; 0 is unused.
pub(super) const CLASSES: usize = 64;
/// The granules of the smallest segment of the last class.
const LARGEST_FIRST: usize = 8192;

/// The size class of a segment of `n` granules: `n` itself up to 64, then sixteen classes to a doubling, rounded down. The
/// last has all from 3.875 MiB on: larger requests look at each of these.
/// What needs `n` granules fits only in segments whose code is `code(n)` or above.
#[inline(always)]
pub(super) fn code(n: usize) -> u8 {
    if n <= EXACT {
        return n as u8;
    }
    // The five highest bits of n are 16 to 31, and there are sixteen codes to a doubling.
    let doubling = (usize::BITS - 1 - n.leading_zeros()) as usize;
    let code = (n >> (doubling - 4)) + 16 * (doubling - 3);
    if code > u8::MAX as usize { u8::MAX } else { code as u8 }
}

/// The class of every size code: the code up to [`OWN_CLASS`], then two classes to a doubling of the size. The last class
/// has all that is larger.
const CLASS_OF_CODE: [u8; 256] = {
    let mut classes = [0; 256];
    let mut code = 0;
    while code < 256 {
        classes[code] = if code <= OWN_CLASS {
            code as u8
        } else if code < 64 {
            OWN_CLASS as u8 + 1
        } else if code < 176 {
            // Eight codes, a half of a doubling, to a class.
            OWN_CLASS as u8 + 2 + (code as u8 - 64) / 8
        } else {
            CLASSES as u8 - 1
        };
        code += 1;
    }
    classes
};

/// The class of a segment with that size code.
#[inline(always)]
pub(super) fn class(code: u8) -> usize {
    CLASS_OF_CODE[code as usize] as usize
}

/// The lowest class whose segments all have `n` granules; [`CLASSES`] if there is none.
#[inline]
pub(super) fn class_from(n: usize) -> usize {
    if n <= OWN_CLASS {
        return n;
    }
    let first = n <= LARGEST_FIRST && n.trailing_zeros() + n.leading_zeros() + 2 >= usize::BITS;
    let class = class(code(n));
    if first { class } else { class + 1 }
}

#[cfg(test)]
#[path = "../../../tests/unit/free_list/indexed/size_code.rs"]
mod tests;
