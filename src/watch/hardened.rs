//! The heap of the feature `hardened`: it looks for what a program writes where it must not, and takes time for it.
//!
//! ```text
//!   in use          | payload                 | canary |    up to the end of the segment, 0 to 16 bytes
//!   resting         | filled                           |    in use for the heap, in the queue's order
//!   free            | filled, but for links            |
//!   never in use    | zeros                            |
//! ```
//!
//! What is freed is filled and rests in a queue; when it leaves, it is still filled, or somebody has written to it
//! after the free. The same holds when it is handed out again. A canary that has changed tells of a write past the
//! payload's end. Each ends the process with a message.
//!
//! - **F1** every byte of a free segment below the highest top so far is filled, but for the links of
//!   [`Linked`](crate::Linked), current and former: those lie in the first bytes of a granule.
//! - **F2** every segment in the queue is in use for the heap, and filled.
//! - **F3** behind the payload of every other segment in use, up to the segment's end, are canary bytes.
//!
//! All of this happens under the lock: a block that was neither in use nor in the queue for a moment could be freed
//! twice in that moment. Everything else is as in [`Heap`], whose placement only sees that blocks come back later.

use super::{Free, Named, Request, Resize, Watch};
use crate::checkers::unwatched;
use crate::free_list::{Fit, FreeList};
use crate::heap::{Heap, granules};
use crate::region::{Extent, GRANULE, Granule};
use crate::system::fatal::fatal;
use core::alloc::Layout;

/// What freed memory is filled with. As an address, eight of these lie where no program has memory.
const FILL: u8 = 0xdf;
/// What a granule of freed memory reads as.
const FILLED: u128 = u128::from_le_bytes([FILL; GRANULE]);
/// What lies between a payload and the end of its segment.
const CANARY: u8 = 0xc5;
/// Blocks that rest at most.
const QUEUE_BLOCKS: usize = 256;
/// Granules that rest at most: a mebibyte. A larger block does not rest.
const QUEUE_GRANULES: usize = (1 << 20) / GRANULE;

/// The watcher, with what it keeps for a heap.
pub(crate) struct Hardened {
    queue: Queue,
    /// The highest top so far: above it, memory was never handed out, and is not filled.
    highest_top: Granule,
}

impl Hardened {
    pub(crate) const NEW: Self = Self { queue: Queue::EMPTY, highest_top: Granule(0) };

    /// Fills a block and puts it in the queue, from which the oldest have to go.
    fn rest<L: FreeList>(&mut self, heap: &mut Heap<L>, block: Block) {
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
    /// All calls are seen.
    const FAST: bool = false;
    /// Freed memory is filled: pages stay where they are.
    const MOVES_PAGES: bool = false;
    /// Free memory stays filled, so none is purged.
    const PURGES: bool = false;

    /// A block that rests is free for the program.
    fn named(&mut self, heap: &Heap<L>, payload: *const u8, layout: Option<Layout>) {
        if self.queue.holds(heap.region().granule(payload)) {
            heap.double_free(payload, layout);
        }
    }

    fn placed(&mut self, heap: &Heap<L>, request: &Request, fit: Fit) {
        if let Some(at) = fit.start() {
            let to = at.up(granules(request.size));
            // What is left in front for alignment may never have been in use. The linked list has written to it.
            fill(heap, self.highest_top, at, L::LINK_BYTES);
            check_filled(heap, at, to.min(self.highest_top), L::LINK_BYTES);
            set_canary(heap, at, request.size);
            self.highest_top = heap.highest_top();
        }
    }

    /// Gives up everything that rests.
    fn starved(&mut self, heap: &mut Heap<L>) -> bool {
        let any = self.queue.count > 0;
        while let Some(block) = self.queue.pop() {
            release(heap, block);
        }
        any
    }

    /// Without a layout, nobody knows where the canary begins.
    fn freeing(&mut self, heap: &mut Heap<L>, segment: Extent, named: Named) -> Free {
        if let Named::Layout(layout) = named {
            check_canary(heap, segment.start, layout.size());
        }
        let moved = matches!(named, Named::MovedFrom(_));
        self.rest(heap, Block { at: segment.start, n: segment.len(), moved });
        Free::Later
    }

    /// A tail that is given back is filled, and does not rest. Before the heap has it: the linked list writes to it then.
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

/// Gives a block to the heap, which counts it as freed now.
fn release<L: FreeList>(heap: &mut Heap<L>, block: Block) {
    check_filled(heap, block.at, block.end(), 0);
    heap.give_back(Extent::of(block.at, block.n), block.moved);
}

/// Fills `from..to`, if that is not empty. The first `links` bytes of each granule may hold links.
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

/// Ends the process if `from..to` is not filled. The first `links` bytes of each granule may hold links.
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

/// Ends the process if what follows a payload of `size` bytes has changed.
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

/// Lets `access` have the bytes from the offset `from` up to the offset `to`; none where that is not above `from`.
fn bytes_of<L: FreeList, R>(
    heap: &Heap<L>,
    from: usize,
    to: usize,
    access: impl FnOnce(&mut [u8]) -> R,
) -> R {
    let mut bytes = heap.region().bytes(from, to.saturating_sub(from));
    unwatched(bytes.cast(), bytes.len(), || {
        // SAFETY: the bytes are nobody's: free, resting, of a segment that was just taken or is about to be given
        // back, or behind a payload. The lock keeps other threads away.
        access(unsafe { bytes.as_mut() })
    })
}

/// The offsets between which the canary of a payload of `size` bytes lies.
fn canary(at: Granule, size: usize) -> (usize, usize) {
    (at.bytes().wrapping_add(size), at.up(granules(size)).bytes())
}

/// The first byte of whole granules that is not filled, but for the first `links` of each.
fn first_change(bytes: &[u8], links: usize) -> Option<usize> {
    let (granules, _) = bytes.as_chunks::<GRANULE>();
    // In memory's order from the lowest byte on: the library is for little-endian systems.
    let looked_at = u128::MAX.wrapping_shl(8 * links as u32);
    let change = |granule: &[u8; GRANULE]| (u128::from_le_bytes(*granule) ^ FILLED) & looked_at;
    let index = granules.iter().position(|granule| change(granule) != 0)?;
    let bits = change(granules.get(index)?).trailing_zeros() as usize;
    Some(index.wrapping_mul(GRANULE).wrapping_add(bits / 8))
}

/// A segment that rests.
#[derive(Clone, Copy)]
struct Block {
    at: Granule,
    n: usize,
    /// Whether a `realloc` has moved from there.
    moved: bool,
}

impl Block {
    fn end(self) -> Granule {
        self.at.up(self.n)
    }
}

/// What rests, in the order of arrival.
struct Queue {
    /// Where the blocks begin, each in the place of its turn; `NOWHERE` where none is. Numbers fit, as regions do.
    starts: [u32; QUEUE_BLOCKS],
    /// Granules of each, and `MOVED`.
    sizes: [u32; QUEUE_BLOCKS],
    /// The turn of the oldest.
    oldest: usize,
    count: usize,
    granules: usize,
}

/// No segment begins there: regions end before.
const NOWHERE: u32 = u32::MAX;
/// Marks what a `realloc` has moved from. No block that rests is as large.
const MOVED: u32 = 1 << 31;

impl Queue {
    const EMPTY: Self =
        Self { starts: [NOWHERE; QUEUE_BLOCKS], sizes: [0; QUEUE_BLOCKS], oldest: 0, count: 0, granules: 0 };

    /// Whether a block begins at `at`. Looks at all places, which is faster than to stop at the first.
    fn holds(&self, at: Granule) -> bool {
        self.starts.iter().fold(false, |found, &start| found | (start as usize == at.0))
    }

    fn has_room(&self, n: usize) -> bool {
        self.count < QUEUE_BLOCKS && self.granules.saturating_add(n) <= QUEUE_GRANULES
    }

    /// Adds a block, for which there is room.
    fn push(&mut self, block: Block) {
        let turn = self.oldest.wrapping_add(self.count) % QUEUE_BLOCKS;
        let places = (self.starts.get_mut(turn), self.sizes.get_mut(turn));
        if let (Some(start), Some(size)) = places {
            *start = block.at.0 as u32;
            *size = block.n as u32 | if block.moved { MOVED } else { 0 };
            self.count = self.count.wrapping_add(1);
            self.granules = self.granules.wrapping_add(block.n);
        }
    }

    /// Removes the oldest block.
    fn pop(&mut self) -> Option<Block> {
        let start = self.starts.get_mut(self.oldest).filter(|start| **start != NOWHERE)?;
        let at = Granule(*start as usize);
        *start = NOWHERE;
        let size = *self.sizes.get(self.oldest)?;
        let n = (size & !MOVED) as usize;
        self.oldest = self.oldest.wrapping_add(1) % QUEUE_BLOCKS;
        self.count = self.count.wrapping_sub(1);
        self.granules = self.granules.wrapping_sub(n);
        Some(Block { at, n, moved: size & MOVED != 0 })
    }
}
