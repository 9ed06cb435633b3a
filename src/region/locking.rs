//! Reservations under `mlockall(MCL_FUTURE)`.
//!
//! Then every new mapping is locked in memory. A process with a limit on locked memory (`RLIMIT_MEMLOCK`) is refused a
//! reservation above that limit, though a reservation has no pages. But a mapping that was unlocked stays so when it
//! grows. So the reservation grows from one page, and what is committed of it is locked, as the program wants it.

use crate::system::errno;
use crate::system::mapping::{map, unmap, whole_pages};
use core::sync::atomic::{AtomicBool, Ordering};

/// Whether a reservation of this process was made here.
static LOCKS: AtomicBool = AtomicBool::new(false);

/// Maps inaccessible addresses that are not locked: at `place`, or anywhere if that is null. The error is the `errno`.
pub(super) fn map_unlocked(place: *mut u8, bytes: usize) -> Result<*mut u8, i32> {
    let page = whole_pages(1);
    let keep_others = if place.is_null() { 0 } else { libc::MAP_FIXED_NOREPLACE };
    let may_move = if place.is_null() { libc::MREMAP_MAYMOVE } else { 0 };
    let first = map(place, page, libc::PROT_NONE, libc::MAP_NORESERVE | keep_others)?;
    // SAFETY: the page is this function's.
    let unlocked = unsafe { libc::munlock(first.cast(), page) } == 0;
    let grow = || {
        // SAFETY: nothing refers to the page.
        unsafe { libc::mremap(first.cast(), page, bytes, may_move) }
    };
    let grown = if unlocked { grow() } else { libc::MAP_FAILED };
    if grown == libc::MAP_FAILED {
        let errno = errno::get();
        // SAFETY: nothing refers to the page, which is still there.
        unsafe { unmap(first, page) };
        return Err(errno);
    }
    LOCKS.store(true, Ordering::Relaxed);
    Ok(grown.cast())
}

/// Locks pages that were just committed, if a reservation was made here. False if the system refuses.
///
/// # Safety
/// The pages are accessible and belong to a reservation.
pub(super) unsafe fn lock_if_due(start: *mut u8, bytes: usize) -> bool {
    // SAFETY: guaranteed by the caller.
    !LOCKS.load(Ordering::Relaxed) || unsafe { libc::mlock(start.cast(), bytes) } == 0
}
