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

use crate::checkers::{self, unwatched};
use crate::free_list::{Fit, FreeList};
use crate::heap::{Heap, Missed, Owed, Peaks, Purge, Short, granules};
use crate::region::{GRANULE, Granule, Pieces, Transfer};
use crate::system::fatal::fatal;
use core::alloc::Layout;
use core::ops::Deref;
use core::ptr::NonNull;

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

/// A [`Heap`] that fills, checks, and lets rest.
pub(crate) struct Hardened<L: FreeList> {
    heap: Heap<L>,
    queue: Queue,
}

/// For what only looks.
impl<L: FreeList> Deref for Hardened<L> {
    type Target = Heap<L>;

    fn deref(&self) -> &Heap<L> {
        &self.heap
    }
}

impl<L: FreeList> Hardened<L> {
    pub(crate) const UNMAPPED: Self = Self { heap: Heap::UNMAPPED, queue: Queue::EMPTY };

    /// The heap without filling, checks and rest.
    pub(crate) fn bare(&mut self) -> &mut Heap<L> {
        &mut self.heap
    }

    pub(crate) fn peaks(&mut self) -> Peaks<'_> {
        self.heap.peaks()
    }

    pub(crate) fn set_limit(&mut self, bytes: usize) -> usize {
        self.heap.set_limit(bytes)
    }

    // ---- allocation ------------------------------------------------------------------------------------------

    /// As in [`Heap`]; what rests is given up before a request is refused.
    pub(crate) fn place(&mut self, size: usize, align: usize) -> Fit {
        let untouched = self.heap.highest_top();
        let mut placement = self.heap.place(size, align);
        if placement.start().is_none() && self.release_all() {
            placement = self.heap.place(size, align);
        }
        if let Some(at) = placement.start() {
            let to = at.up(granules(size));
            // What is left in front for alignment may never have been in use. The linked list has written to it.
            self.fill(untouched, at, L::LINK_BYTES);
            self.check_filled(at, to.min(untouched), L::LINK_BYTES);
            self.set_canary(at, size);
        }
        placement
    }

    /// As in [`Heap`].
    pub(crate) fn place_zeroed(&mut self, size: usize, align: usize) -> Fit {
        let before = self.heap.wilderness();
        let placement = self.place(size, align);
        self.heap.soil_placed(before, placement.start(), size);
        placement
    }

    /// As in [`Heap`].
    pub(crate) fn soil_grown(
        &mut self,
        before: (Granule, Granule),
        segment: (Granule, usize),
        old_size: usize,
        new_size: usize,
    ) -> NonNull<[u8]> {
        self.heap.soil_grown(before, segment, old_size, new_size)
    }

    /// There is no short way.
    pub(crate) fn place_at_once(&mut self, _size: usize, _align: usize) -> Result<Granule, Missed> {
        Err(Missed::Other)
    }

    pub(crate) fn place_searching(&mut self, size: usize, align: usize, _missed: Missed) -> Fit {
        self.place(size, align)
    }

    /// The same.
    pub(crate) fn place_any(&mut self, size: usize, align: usize) -> Fit {
        self.place(size, align)
    }

    /// There is no first look either.
    pub(crate) fn place_after_look(&mut self, size: usize) -> Fit {
        self.place(size, 1)
    }

    // ---- freeing ---------------------------------------------------------------------------------------------

    /// There is no short way.
    pub(crate) fn segment_at_once(&self, _payload: *const u8, _layout: Layout) -> Option<Short> {
        None
    }

    /// As in [`Heap`]; what rests is free for the program, and the canary is looked at.
    pub(crate) fn segment_of(&self, payload: *const u8, layout: Layout) -> (Granule, usize) {
        self.check_not_resting(payload, Some(layout));
        let (at, n) = self.heap.segment_of(payload, layout);
        self.check_canary(at, layout.size());
        (at, n)
    }

    /// The same.
    pub(crate) fn segment_of_long(&self, payload: *const u8, layout: Layout) -> (Granule, usize) {
        self.segment_of(payload, layout)
    }

    /// As above, without a layout: nobody knows then where the canary begins.
    pub(crate) fn segment_at(&self, payload: *const u8, layout: Option<Layout>) -> (Granule, usize) {
        self.check_not_resting(payload, layout);
        self.heap.segment_at(payload, layout)
    }

    fn check_not_resting(&self, payload: *const u8, layout: Option<Layout>) {
        if self.queue.holds(self.region().granule(payload)) {
            self.heap.double_free(payload, layout);
        }
    }

    /// There is no short way.
    pub(crate) fn give_back_at_once(&mut self, _short: Short) -> Option<Owed> {
        None
    }

    /// As the next.
    pub(crate) fn give_back_seen(&mut self, at: Granule, n: usize, _below: u64, _above: u64) {
        self.give_back(at, n);
    }

    /// Nothing is put off.
    pub(crate) fn settle(&mut self, _owed: Owed) {}

    pub(crate) fn give_back(&mut self, at: Granule, n: usize) {
        self.rest(Block { at, n, moved: false });
    }

    /// The same.
    pub(crate) fn give_back_here(&mut self, at: Granule, n: usize) {
        self.give_back(at, n);
    }

    pub(crate) fn give_back_moved(&mut self, at: Granule, n: usize) {
        self.rest(Block { at, n, moved: true });
    }

    pub(crate) fn free(&mut self, payload: *mut u8, layout: Layout) {
        let (at, n) = self.segment_of(payload, layout);
        checkers::back(payload, layout.size());
        self.give_back(at, n);
    }

    /// Fills a block and puts it in the queue, from which the oldest have to go.
    fn rest(&mut self, block: Block) {
        self.fill(block.at, block.end(), 0);
        if block.n > QUEUE_GRANULES {
            return self.release(block);
        }
        while !self.queue.has_room(block.n) {
            match self.queue.pop() {
                Some(oldest) => self.release(oldest),
                None => break,
            }
        }
        self.queue.push(block);
    }

    /// Gives everything in the queue to the heap. False where it was empty.
    fn release_all(&mut self) -> bool {
        let any = self.queue.count > 0;
        while let Some(block) = self.queue.pop() {
            self.release(block);
        }
        any
    }

    /// Gives a block to the heap, which counts it as freed now.
    fn release(&mut self, block: Block) {
        self.check_filled(block.at, block.end(), 0);
        if block.moved {
            self.heap.give_back_moved(block.at, block.n);
        } else {
            self.heap.give_back(block.at, block.n);
        }
    }

    /// What is freed is filled, so it is copied, and its pages stay.
    pub(crate) fn begin_transfer(&mut self, at: Granule, to: Granule, size: usize) -> Transfer {
        Transfer::of(self.region(), at, to, size)
    }

    /// As above.
    pub(crate) fn end_transfer(&mut self, _transfer: &Transfer, _done: bool) {}

    /// What is free stays filled, so nothing is given back to the system.
    pub(crate) fn purge_due(&mut self) -> Option<Purge> {
        None
    }

    /// As above.
    pub(crate) fn begin_purge(&mut self, _purge: &mut Purge, _by: usize) -> Option<Pieces> {
        None
    }

    /// As above.
    pub(crate) fn end_purge(&mut self, _purge: &mut Purge, _pieces: &Pieces) {}

    // ---- resizing --------------------------------------------------------------------------------------------

    /// As in [`Heap`]. A tail that is given back is filled, and does not rest.
    pub(crate) fn resize(&mut self, at: Granule, n: usize, new_size: usize) -> bool {
        let untouched = self.heap.highest_top();
        let (end, to) = (at.up(n), at.up(granules(new_size)));
        // Before the heap has it: the linked list writes to it then.
        self.fill(to, end, 0);
        if !self.heap.resize(at, n, new_size) {
            return false;
        }
        self.check_filled(end, to.min(untouched), L::LINK_BYTES);
        self.set_canary(at, new_size);
        true
    }

    // ---- bytes -----------------------------------------------------------------------------------------------

    /// Fills `from..to`, if that is not empty. The first `links` bytes of each granule may hold links.
    fn fill(&mut self, from: Granule, to: Granule, links: usize) {
        self.bytes(from.bytes(), to.bytes(), |bytes| {
            if links == 0 {
                return bytes.fill(FILL);
            }
            for granule in bytes.chunks_exact_mut(GRANULE) {
                granule.iter_mut().skip(links).for_each(|byte| *byte = FILL);
            }
        });
    }

    /// Ends the process if `from..to` is not filled. The first `links` bytes of each granule may hold links.
    fn check_filled(&self, from: Granule, to: Granule, links: usize) {
        let changed = self.bytes(from.bytes(), to.bytes(), |bytes| first_change(bytes, links));
        if let Some(offset) = changed {
            fatal(format_args!(
                "write after free: {:p}: the byte at {offset} of {} freed bytes has changed",
                self.region().pointer(from),
                to.above(from).wrapping_mul(GRANULE)
            ));
        }
    }

    fn set_canary(&mut self, at: Granule, size: usize) {
        let (from, to) = canary(at, size);
        self.bytes(from, to, |bytes| bytes.fill(CANARY));
    }

    /// Ends the process if what follows a payload of `size` bytes has changed.
    fn check_canary(&self, at: Granule, size: usize) {
        let (from, to) = canary(at, size);
        let changed = self.bytes(from, to, |bytes| bytes.iter().position(|&byte| byte != CANARY));
        if let Some(offset) = changed {
            fatal(format_args!(
                "overflow: {:p}: the byte {offset} bytes behind the end of its {size} bytes has changed",
                self.region().pointer(at)
            ));
        }
    }

    /// Lets `access` have the bytes from the offset `from` up to the offset `to`; none where that is not above `from`.
    fn bytes<R>(&self, from: usize, to: usize, access: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut bytes = self.region().bytes(from, to.saturating_sub(from));
        unwatched(bytes.cast(), bytes.len(), || {
            // SAFETY: the bytes are nobody's: free, resting, of a segment that was just taken or is about to be given
            // back, or behind a payload. The lock keeps other threads away.
            access(unsafe { bytes.as_mut() })
        })
    }
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
