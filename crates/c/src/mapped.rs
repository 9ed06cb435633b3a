//! Large blocks with mappings of their own.
//!
//! A table lists them all: open addressing by the block's address, without a lock, so a `fork` at any moment leaves a
//! table that the child can use. A slot belongs to the thread that claimed it until the block is freed, and only the
//! block's owner asks for it.

use crate::system::{is_set, keep_errno, page_size};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

/// Requests of this many bytes get a mapping without asking the regions: 1 GiB.
pub(crate) const ALWAYS: usize = 1 << 30;
/// Requests of this many bytes get a mapping if the regions have no room: 128 KiB.
const LEAST: usize = 128 << 10;

/// Slots of the table: about as many as the mappings that Linux allows a process.
const SLOTS: usize = 1 << 16;

struct Slot {
    /// The block's address, `EMPTY`, or `FREED`.
    start: AtomicUsize,
    /// Bytes of the mapping, whole pages; 0 while it is set up or removed.
    bytes: AtomicUsize,
}

const EMPTY: usize = 0;
/// A slot that was used: a search goes on past it. No block has this address.
const FREED: usize = 1;

static TABLE: [Slot; SLOTS] =
    [const { Slot { start: AtomicUsize::new(EMPTY), bytes: AtomicUsize::new(0) } }; SLOTS];

/// The table from the first slot of an address on, once around.
fn slots_for(start: usize) -> impl Iterator<Item = &'static Slot> {
    let first = (start >> 12).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48;
    let (below, from) = TABLE.split_at_checked(first % SLOTS).unwrap_or_default();
    from.iter().chain(below)
}

fn slot_of(block: NonNull<u8>) -> Option<&'static Slot> {
    let start = block.addr().get();
    let used = |slot: &&Slot| slot.start.load(Ordering::Relaxed) != EMPTY;
    slots_for(start).take_while(used).find(|slot| slot.start.load(Ordering::Relaxed) == start)
}

/// Adds a mapping to the table; false if the table is full.
fn insert(block: NonNull<u8>, bytes: usize) -> bool {
    let start = block.addr().get();
    let claimed = slots_for(start).find(|slot| {
        let found = slot.start.load(Ordering::Relaxed);
        let free = found == EMPTY || found == FREED;
        free && slot.start.compare_exchange(found, start, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    });
    if let Some(slot) = claimed {
        slot.bytes.store(bytes, Ordering::Relaxed);
    }
    claimed.is_some()
}

fn remove(slot: &Slot) -> usize {
    let bytes = slot.bytes.swap(0, Ordering::Relaxed);
    slot.start.store(FREED, Ordering::Relaxed);
    bytes
}

/// Whether mappings are allowed. `SMALLOC_REGION` is a budget: if it is set, all blocks lie in the regions.
pub(crate) fn are_allowed() -> bool {
    static ALLOWED: AtomicU8 = AtomicU8::new(0);
    match ALLOWED.load(Ordering::Relaxed) {
        0 => {
            let allowed = !is_set(c"SMALLOC_REGION");
            ALLOWED.store(1 + u8::from(allowed), Ordering::Relaxed);
            allowed
        }
        known => known == 2,
    }
}

/// A block of zeros with a mapping of its own; `None` if it is too small for one, or the system refuses.
#[cold]
pub(crate) fn alloc(size: usize, align: usize) -> Option<NonNull<u8>> {
    if size < LEAST || !are_allowed() {
        return None;
    }
    let page = page_size();
    let bytes = size.checked_next_multiple_of(page)?;
    keep_errno(|| {
        let block = map(bytes, align.max(page), page)?;
        if insert(block, bytes) {
            return Some(block);
        }
        unmap(block, bytes);
        None
    })
}

/// Maps `bytes` bytes at an alignment of at least a page.
fn map(bytes: usize, align: usize, page: usize) -> Option<NonNull<u8>> {
    let spare = align.wrapping_sub(page);
    let all = bytes.checked_add(spare)?;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping replaces nothing.
    let start = unsafe { libc::mmap(ptr::null_mut(), all, protection, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return None;
    }
    let start: *mut u8 = start.cast();
    let front = start.align_offset(align);
    // SAFETY: `front` is at most `spare`, so the block lies in the mapping.
    let block = NonNull::new(unsafe { start.add(front) })?;
    if front > 0 {
        unmap(NonNull::new(start)?, front);
    }
    if front < spare {
        // SAFETY: the rest begins in the mapping, behind the block.
        unmap(unsafe { block.add(bytes) }, spare.wrapping_sub(front));
    }
    Some(block)
}

fn unmap(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the pages were mapped here, and nothing uses them any more.
    unsafe { libc::munmap(start.as_ptr().cast(), bytes) };
}

/// The bytes that a block may use; `None` if it has no mapping of its own.
pub(crate) fn size(block: NonNull<u8>) -> Option<usize> {
    slot_of(block).map(|slot| slot.bytes.load(Ordering::Relaxed))
}

/// Frees a block; false if it has no mapping of its own.
///
/// # Safety
/// Nothing uses the block any more.
pub(crate) unsafe fn free(block: NonNull<u8>) -> bool {
    let Some(slot) = slot_of(block) else { return false };
    // The slot is freed first: the system may hand out the address to another thread at once.
    let bytes = remove(slot);
    keep_errno(|| unmap(block, bytes));
    true
}

/// Resizes a block that has a mapping of its own, by moving its pages; `None`, and nothing has changed, if the system
/// refuses, or the new size is too small for a mapping.
///
/// # Safety
/// The block has a mapping, and nothing uses the old address any more if it has moved.
pub(crate) unsafe fn resize(block: NonNull<u8>, new_size: usize) -> Option<NonNull<u8>> {
    let slot = slot_of(block).filter(|_| new_size >= LEAST)?;
    let new = new_size.checked_next_multiple_of(page_size())?;
    let old = remove(slot);
    let flags = libc::MREMAP_MAYMOVE;
    keep_errno(|| {
        // SAFETY: the mapping belongs to the block, and this is a call of its owner.
        let moved = unsafe { libc::mremap(block.as_ptr().cast(), old, new, flags) };
        let (at, bytes) =
            if moved == libc::MAP_FAILED { (block, old) } else { (NonNull::new(moved.cast())?, new) };
        // A slot has just been freed, but another thread may have taken it.
        if !insert(at, bytes) {
            crate::system::fatal(format_args!("too many large blocks: the table has {SLOTS} entries"));
        }
        (bytes == new).then_some(at)
    })
}

/// The number of blocks that have mappings of their own, and of their bytes.
pub(crate) fn totals() -> (usize, usize) {
    let blocks = TABLE.iter().map(|slot| slot.bytes.load(Ordering::Relaxed)).filter(|&bytes| bytes > 0);
    blocks.fold((0, 0), |(count, sum), bytes| (count.wrapping_add(1), sum.wrapping_add(bytes)))
}
