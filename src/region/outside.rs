//! Reading the segment map without the heap's lock: whether a payload of this thread has the length that it claims.
//!
//! The bits of a payload's segment change only when its owner frees or resizes it. The bits around it change at any
//! time, under the lock. So an answer is exact if the owner's length is right. A wrong length is refused, unless
//! another thread takes or frees the segment's neighbour between the two loads; if the answer is no, callers ask again
//! under the lock.
//!
//! Words that others may write meanwhile are loaded in assembly, or as atomics on other processors.

use super::granule::GRANULE;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// The base of a region and its two bitmaps, which stay where they are once the region is mapped.
pub(crate) struct Outside {
    base: AtomicPtr<u8>,
    used: AtomicPtr<u8>,
    heads: AtomicPtr<u8>,
}

impl Outside {
    pub(crate) const fn none() -> Self {
        Self {
            base: AtomicPtr::new(ptr::null_mut()),
            used: AtomicPtr::new(ptr::null_mut()),
            heads: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Looks at the region at `base` from now on. Its bitmaps lie in the same mapping, at these addresses.
    pub(crate) fn set(&self, base: *mut u8, (used, heads): (usize, usize)) {
        self.base.store(base, Ordering::Relaxed);
        self.used.store(base.with_addr(used), Ordering::Relaxed);
        self.heads.store(base.with_addr(heads), Ordering::Relaxed);
    }

    /// The granule at an address, or a number above all granules, as [`Region::granule`](super::Region::granule).
    #[inline(always)]
    pub(crate) fn granule(&self, payload: *const u8) -> usize {
        let base = self.base.load(Ordering::Relaxed).addr();
        payload.addr().wrapping_sub(base).rotate_right(GRANULE.trailing_zeros())
    }

    /// The payload at a granule.
    ///
    /// # Safety
    /// The region is set, and the granule lies in its committed part.
    #[inline(always)]
    pub(crate) unsafe fn payload(&self, at: u32) -> *mut u8 {
        // SAFETY: guaranteed by the caller.
        unsafe { self.base.load(Ordering::Relaxed).add(at as usize * GRANULE) }
    }

    /// Whether a segment in use of exactly `n` granules begins at `at`. At most 56 granules.
    ///
    /// # Safety
    /// The region is set, and the granule lies in its committed part (R2: then so do the bits of the next chunk).
    #[inline(always)]
    pub(crate) unsafe fn is_short(&self, at: usize, n: usize) -> bool {
        // SAFETY: guaranteed by the caller.
        let heads = unsafe { bits(self.heads.load(Ordering::Relaxed), at / 8) };
        // SAFETY: guaranteed by the caller.
        let used = unsafe { bits(self.used.load(Ordering::Relaxed), at / 8) };
        // As in `SegmentMap::short_at`, but for the shift, which is done once: a segment ends before the next head, or
        // before the first granule that is not in use. The bit of its own head is flipped: it must be set.
        let ends = (heads ^ (1 << (at % 8))) | !used;
        (ends >> (at % 8)).trailing_zeros() as usize == n
    }
}

/// The second word of a payload in a cache, by which a second free is suspected.
///
/// # Safety
/// A segment in use begins at the payload, and its memory is mapped.
#[inline(always)]
pub(crate) unsafe fn mark<'a>(payload: *mut u8) -> &'a AtomicU64 {
    // SAFETY: a segment has at least 16 bytes, as the caller guarantees that one begins there.
    let second = unsafe { payload.add(8) };
    // SAFETY: the word is mapped, and aligned: a segment begins at a multiple of 16.
    unsafe { AtomicU64::from_ptr(second.cast()) }
}

/// Eight bytes of a bitmap from a byte on, lowest bit first.
///
/// # Safety
/// They are mapped.
#[inline(always)]
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn bits(bitmap: *const u8, byte: usize) -> u64 {
    let word: u64;
    // SAFETY: guaranteed by the caller.
    unsafe {
        core::arch::asm!(
            "mov {0}, qword ptr [{1} + {2}]", out(reg) word, in(reg) bitmap, in(reg) byte,
            options(nostack, readonly, preserves_flags)
        );
    }
    word
}

/// Eight bytes of a bitmap from a byte on, lowest bit first.
///
/// # Safety
/// They are mapped.
#[inline(always)]
#[cfg(all(target_arch = "aarch64", not(miri)))]
unsafe fn bits(bitmap: *const u8, byte: usize) -> u64 {
    let word: u64;
    // SAFETY: guaranteed by the caller.
    unsafe {
        core::arch::asm!(
            "ldr {0}, [{1}, {2}]", out(reg) word, in(reg) bitmap, in(reg) byte,
            options(nostack, readonly, preserves_flags)
        );
    }
    word
}

/// Eight bytes of a bitmap from a byte on, lowest bit first.
///
/// # Safety
/// The byte's word and the next one are mapped.
#[inline(always)]
#[cfg(not(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri))))]
unsafe fn bits(bitmap: *const u8, byte: usize) -> u64 {
    let words: *mut u64 = bitmap.cast_mut().cast();
    // SAFETY: guaranteed by the caller.
    let low = unsafe { AtomicU64::from_ptr(words.add(byte / 8)) }.load(Ordering::Relaxed);
    // SAFETY: guaranteed by the caller.
    let high = unsafe { AtomicU64::from_ptr(words.add(byte / 8 + 1)) }.load(Ordering::Relaxed);
    ((u128::from(high) << 64 | u128::from(low)) >> (byte % 8 * 8)) as u64
}
