//! The feature `hardened`: finds writes after a free and past a payload's end, at a cost in time and memory.
//!
//! ```text
//!   in use          | payload                 | canary |    up to the end of the segment, 0 to 16 bytes
//!   quarantined     | filled                           |    in use for the heap, in the queue's order
//!   free            | filled, but for links            |
//!   never in use    | zeros                            |
//! ```
//!
//! A freed block is filled and goes into quarantine, a queue. If it is not filled any more when it leaves the queue, or
//! when it is handed out again, the program wrote to it after the free. A changed canary means a write past the
//! payload's end. Each ends the process with a message.
//!
//! - **F1** every byte of a free segment below the highest top so far is filled, but for current and former links of
//!   [`Linked`](crate::Linked), which lie in the first bytes of a granule.
//! - **F2** every segment in the queue is in use for the heap, and filled.
//! - **F3** canary bytes lie behind the payload of every other segment in use, up to the segment's end.
//!
//! All of this happens under the lock: a block that was for a moment neither in use nor in the queue could be freed
//! twice in that moment. Placement is that of [`Heap`] with blocks freed later.

use super::{Free, Named, Request, Resize, Watch};
use crate::checkers::unwatched;
use crate::free_list::{Broken, Fit, FreeList};
use crate::heap::{Heap, Run, granules};
use crate::region::{Extent, GRANULE, Granule};
use crate::system::fatal::fatal;
use core::alloc::Layout;

/// Fill byte of freed memory. Eight of them are not a valid address, so a stale pointer that is followed faults.
const FILL: u8 = 0xdf;
const FILLED: u128 = u128::from_le_bytes([FILL; GRANULE]);
const CANARY: u8 = 0xc5;
/// Blocks in quarantine at most; every free compares its pointer with all of them.
const QUEUE_BLOCKS: usize = 256;
/// Granules in quarantine at most, 1 MiB: memory withheld from reuse. A larger block is not quarantined.
const QUEUE_GRANULES: usize = (1 << 20) / GRANULE;

pub(crate) struct Hardened {
    queue: Quarantine,
    /// The highest top so far. Memory above was never handed out, and is not filled.
    highest_top: Granule,
}

impl Hardened {
    pub(crate) const NEW: Self = Self { queue: Quarantine::EMPTY, highest_top: Granule(0) };

    /// Whether a payload is in quarantine: free for the program, in use for the heap.
    pub(crate) fn holds<L: FreeList>(&self, heap: &Heap<L>, payload: *const u8) -> bool {
        self.queue.holds(heap.region().granule(payload))
    }

    /// Looks for writes after a free in all memory that is filled (F1, F2).
    pub(crate) fn check<L: FreeList>(&self, heap: &Heap<L>) -> Result<(), Broken> {
        let filled = |invariant, from: Granule, to: Granule, links| match bytes_of(
            heap,
            from.bytes(),
            to.bytes(),
            |bytes| first_change(bytes, links),
        ) {
            Some(_) => Err(Broken { invariant, at: from, what: "freed bytes have changed" }),
            None => Ok(()),
        };
        for run in heap.runs() {
            let Run { extent, in_use } = run?;
            if !in_use {
                filled("F1", extent.start, extent.end, L::LINK_BYTES)?;
            } else if self.queue.holds(extent.start) {
                filled("F2", extent.start, extent.end, 0)?;
            }
        }
        filled("F1", heap.top(), self.highest_top, L::LINK_BYTES)
    }

    /// Fills a block and puts it in quarantine, which the oldest blocks leave to make room.
    fn quarantine<L: FreeList>(&mut self, heap: &mut Heap<L>, block: Block) {
        fill(heap, block.at, block.end(), 0);
        if block.n > QUEUE_GRANULES {
            return release(heap, block);
        }
        while !self.queue.has_room(block.n) {
            match self.queue.pop() {
                Some(oldest) => release(heap, oldest),
                None => break,
            }
        }
        self.queue.push(block);
    }
}

impl<L: FreeList> Watch<L> for &mut Hardened {
    /// Every call must be seen.
    const FAST: bool = false;
    /// Moving pages would leave freed memory unfilled.
    const MOVES_PAGES: bool = false;
    /// Purging would leave freed memory unfilled.
    const PURGES: bool = false;

    /// A quarantined block is free for the program.
    fn check_pointer(&mut self, heap: &Heap<L>, payload: *const u8, layout: Option<Layout>) {
        if self.holds(heap, payload) {
            heap.double_free(payload, layout);
        }
    }

    fn placed(&mut self, heap: &Heap<L>, request: &Request, fit: Fit) {
        if let Some(at) = fit.start() {
            let to = at.up(granules(request.size));
            // Padding in front may be new memory, where `Linked` has written its links.
            fill(heap, self.highest_top, at, L::LINK_BYTES);
            check_filled(heap, at, to.min(self.highest_top), L::LINK_BYTES);
            set_canary(heap, at, request.size);
            self.highest_top = heap.highest_top();
        }
    }

    fn make_room(&mut self, heap: &mut Heap<L>) -> bool {
        let any = self.queue.count > 0;
        while let Some(block) = self.queue.pop() {
            release(heap, block);
        }
        any
    }

    /// Without a layout the canary's start is unknown, so it is not checked.
    fn freeing(&mut self, heap: &mut Heap<L>, segment: Extent, named: Named) -> Free {
        if let Named::Layout(layout) = named {
            check_canary(heap, segment.start, layout.size());
        }
        let moved = matches!(named, Named::MovedFrom(_));
        self.quarantine(heap, Block { at: segment.start, n: segment.len(), moved });
        Free::Later
    }

    /// Fills the tail of a shrink, which is not quarantined, before `Linked` writes its links there.
    fn resizing(&mut self, heap: &Heap<L>, resize: &Resize) {
        let at = resize.segment.start;
        check_canary(heap, at, resize.layout.size());
        fill(heap, at.up(granules(resize.new_size)), resize.segment.end, 0);
    }

    fn resized(&mut self, heap: &Heap<L>, resize: &Resize) {
        let Extent { start: at, end } = resize.segment;
        let to = at.up(granules(resize.new_size));
        check_filled(heap, end, to.min(self.highest_top), L::LINK_BYTES);
        set_canary(heap, at, resize.new_size);
        self.highest_top = heap.highest_top();
    }
}

/// Gives a block back to the heap, which counts the free now.
fn release<L: FreeList>(heap: &mut Heap<L>, block: Block) {
    check_filled(heap, block.at, block.end(), 0);
    heap.give_back(Extent::of(block.at, block.n), block.moved);
}

/// Fills `from..to`, if it is not empty, except for the first `links` bytes of each granule.
fn fill<L: FreeList>(heap: &Heap<L>, from: Granule, to: Granule, links: usize) {
    bytes_of(heap, from.bytes(), to.bytes(), |bytes| {
        if links == 0 {
            return bytes.fill(FILL);
        }
        for granule in bytes.chunks_exact_mut(GRANULE) {
            granule.iter_mut().skip(links).for_each(|byte| *byte = FILL);
        }
    });
}

/// Ends the process if `from..to` is not filled, except for the first `links` bytes of each granule.
fn check_filled<L: FreeList>(heap: &Heap<L>, from: Granule, to: Granule, links: usize) {
    let changed = bytes_of(heap, from.bytes(), to.bytes(), |bytes| first_change(bytes, links));
    if let Some(offset) = changed {
        fatal(format_args!(
            "write after free: {:p}: the byte at {offset} of {} freed bytes has changed",
            heap.region().pointer(from),
            to.above(from).wrapping_mul(GRANULE)
        ));
    }
}

fn set_canary<L: FreeList>(heap: &Heap<L>, at: Granule, size: usize) {
    let (from, to) = canary(at, size);
    bytes_of(heap, from, to, |bytes| bytes.fill(CANARY));
}

/// Ends the process if the bytes after a payload of `size` bytes have changed.
fn check_canary<L: FreeList>(heap: &Heap<L>, at: Granule, size: usize) {
    let (from, to) = canary(at, size);
    let changed = bytes_of(heap, from, to, |bytes| bytes.iter().position(|&byte| byte != CANARY));
    if let Some(offset) = changed {
        fatal(format_args!(
            "overflow: {:p}: the byte {offset} bytes behind the end of its {size} bytes has changed",
            heap.region().pointer(at)
        ));
    }
}

/// Calls `access` with the bytes at the offsets `from..to`; with none if `to` is not above `from`.
fn bytes_of<L: FreeList, R>(
    heap: &Heap<L>,
    from: usize,
    to: usize,
    access: impl FnOnce(&mut [u8]) -> R,
) -> R {
    let mut bytes = heap.region().bytes(from, to.saturating_sub(from));
    unwatched(bytes.cast(), bytes.len(), || {
        // SAFETY: no payload has these bytes: they are free, quarantined, behind a payload, or of a segment that was
        // just taken or is about to be given back. The lock keeps other threads away.
        access(unsafe { bytes.as_mut() })
    })
}

/// Offsets of the start and the end of the canary of a payload of `size` bytes.
fn canary(at: Granule, size: usize) -> (usize, usize) {
    (at.bytes().wrapping_add(size), at.up(granules(size)).bytes())
}

/// Index of the first byte of whole granules that is not filled, not counting the first `links` bytes of each granule.
fn first_change(bytes: &[u8], links: usize) -> Option<usize> {
    let (granules, _) = bytes.as_chunks::<GRANULE>();
    // Little-endian: the lowest bits are the first bytes.
    let compared = u128::MAX.wrapping_shl(8 * links as u32);
    let change = |granule: &[u8; GRANULE]| (u128::from_le_bytes(*granule) ^ FILLED) & compared;
    let index = granules.iter().position(|granule| change(granule) != 0)?;
    let bits = change(granules.get(index)?).trailing_zeros() as usize;
    Some(index.wrapping_mul(GRANULE).wrapping_add(bits / 8))
}

#[derive(Clone, Copy)]
struct Block {
    at: Granule,
    n: usize,
    /// Whether a `realloc` moved out of it.
    moved: bool,
}

impl Block {
    fn end(self) -> Granule {
        self.at.up(self.n)
    }
}

/// The quarantine, a ring buffer.
struct Quarantine {
    /// First granule of each block; `NO_BLOCK` in empty entries. Granule numbers of a region fit in 32 bits.
    starts: [u32; QUEUE_BLOCKS],
    /// Granules of each block, with the bit `MOVED`.
    sizes: [u32; QUEUE_BLOCKS],
    /// Index of the oldest block.
    oldest: usize,
    count: usize,
    granules: usize,
}

/// No segment begins at this granule: regions are smaller.
const NO_BLOCK: u32 = u32::MAX;
/// Marks a block that a `realloc` moved out of. No quarantined block has so many granules.
const MOVED: u32 = 1 << 31;

impl Quarantine {
    const EMPTY: Self =
        Self { starts: [NO_BLOCK; QUEUE_BLOCKS], sizes: [0; QUEUE_BLOCKS], oldest: 0, count: 0, granules: 0 };

    /// Whether a block begins at `at`. Compares all entries, which vectorises and is faster than stopping early.
    fn holds(&self, at: Granule) -> bool {
        self.starts.iter().fold(false, |found, &start| found | (start as usize == at.0))
    }

    fn has_room(&self, n: usize) -> bool {
        self.count < QUEUE_BLOCKS && self.granules.saturating_add(n) <= QUEUE_GRANULES
    }

    /// Adds a block, for which there is room.
    fn push(&mut self, block: Block) {
        let index = self.oldest.wrapping_add(self.count) % QUEUE_BLOCKS;
        let places = (self.starts.get_mut(index), self.sizes.get_mut(index));
        if let (Some(start), Some(size)) = places {
            *start = block.at.0 as u32;
            *size = block.n as u32 | if block.moved { MOVED } else { 0 };
            self.count = self.count.wrapping_add(1);
            self.granules = self.granules.wrapping_add(block.n);
        }
    }

    fn pop(&mut self) -> Option<Block> {
        let start = self.starts.get_mut(self.oldest).filter(|start| **start != NO_BLOCK)?;
        let at = Granule(*start as usize);
        *start = NO_BLOCK;
        let size = *self.sizes.get(self.oldest)?;
        let n = (size & !MOVED) as usize;
        self.oldest = self.oldest.wrapping_add(1) % QUEUE_BLOCKS;
        self.count = self.count.wrapping_sub(1);
        self.granules = self.granules.wrapping_sub(n);
        Some(Block { at, n, moved: size & MOVED != 0 })
    }
}
