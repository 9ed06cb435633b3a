//! Blocks of no bytes: addresses in a mapping that can be neither read nor written.

use crate::system::{fatal, keep_errno};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const GRANULE: usize = 16;
const WORDS: usize = 1024;
const BYTES: usize = WORDS * 64 * GRANULE;

/// The address of the mapping; 0 before it is mapped.
static START: AtomicUsize = AtomicUsize::new(0);
/// A bit per block, set while it is taken.
static TAKEN: [AtomicU64; WORDS] = [const { AtomicU64::new(0) }; WORDS];

/// A block of no bytes; `None` if all are taken, or a granule is not aligned well enough.
pub(crate) fn take(align: usize) -> Option<NonNull<u8>> {
    if align > GRANULE {
        return None;
    }
    let start = start()?;
    TAKEN.iter().enumerate().find_map(|(index, word)| {
        let claim = |taken: u64| (taken != u64::MAX).then_some(taken | taken.wrapping_add(1));
        let before = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, claim).ok()?;
        let number = index.wrapping_mul(64).wrapping_add(before.trailing_ones() as usize);
        NonNull::new(ptr::with_exposed_provenance_mut(start.wrapping_add(number.wrapping_mul(GRANULE))))
    })
}

fn start() -> Option<usize> {
    let start = START.load(Ordering::Acquire);
    if start != 0 {
        return Some(start);
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new mapping replaces nothing.
    let new = keep_errno(|| unsafe { libc::mmap(ptr::null_mut(), BYTES, libc::PROT_NONE, flags, -1, 0) });
    if new == libc::MAP_FAILED {
        return None;
    }
    match START.compare_exchange(0, new.expose_provenance(), Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => Some(new.addr()),
        Err(other) => {
            // SAFETY: another thread was first, and this mapping is used by none.
            keep_errno(|| unsafe { libc::munmap(new, BYTES) });
            Some(other)
        }
    }
}

/// Whether an address lies in the mapping.
pub(crate) fn contains(block: NonNull<u8>) -> bool {
    let start = START.load(Ordering::Relaxed);
    start != 0 && block.addr().get().wrapping_sub(start) < BYTES
}

/// The word and the bit of a block, which lies in the mapping.
fn place(block: NonNull<u8>) -> Option<(&'static AtomicU64, u64)> {
    let offset = block.addr().get().wrapping_sub(START.load(Ordering::Relaxed));
    let number = offset / GRANULE;
    let bit = offset.is_multiple_of(GRANULE).then_some(1 << (number % 64));
    Some((TAKEN.get(number / 64)?, bit?))
}

/// Whether a block in the mapping is taken.
pub(crate) fn is_taken(block: NonNull<u8>) -> bool {
    place(block).is_some_and(|(word, bit)| word.load(Ordering::Relaxed) & bit != 0)
}

/// Frees a block in the mapping. Anything else ends the process.
pub(crate) fn give(block: NonNull<u8>) {
    let Some((word, bit)) = place(block) else {
        fatal(format_args!("unaligned pointer: {block:p} is not a multiple of {GRANULE}"))
    };
    if word.fetch_and(!bit, Ordering::Relaxed) & bit == 0 {
        fatal(format_args!("double free: {block:p} is a free block of 0 bytes"));
    }
}
