//! Makes calls on a heap of either list.

use std::alloc::Layout;
use std::ptr::NonNull;

use smalloc::{
    Corruption, FreeList, Heap, Indexed, InitError, Linked, MallocStatus, Snapshot, SnapshotError, Stats,
};
use smalloc_terminal::List;

/// A heap, and the blocks in it by their number.
pub(super) trait Player {
    /// The name of the heap's list.
    fn list(&self) -> &'static str;
    /// Allocates block number `number`, which must not exist.
    fn alloc(&mut self, number: usize, layout: Layout) -> MallocStatus;
    /// Gives an existing block another size.
    fn realloc(&mut self, number: usize, layout: Layout, new_size: usize) -> MallocStatus;
    /// Frees an existing block.
    fn free(&mut self, number: usize, layout: Layout);
    fn set_limit(&mut self, bytes: usize);
    fn stats(&self) -> Stats;
    fn snapshot(&self) -> Result<Snapshot, SnapshotError>;
    fn check(&self) -> Result<(), Corruption>;
}

/// Makes a heap for a player.
pub(super) fn player(list: List, region: usize) -> Result<Box<dyn Player>, InitError> {
    Ok(match list {
        List::Linked => Box::new(Heaped::<Linked>::new(region)?),
        List::Indexed => Box::new(Heaped::<Indexed>::new(region)?),
    })
}

struct Heaped<L: FreeList> {
    heap: Heap<L>,
    payloads: Vec<Option<NonNull<u8>>>,
}

impl<L: FreeList> Heaped<L> {
    fn new(region: usize) -> Result<Self, InitError> {
        Ok(Self { heap: Heap::with_region_size(region)?, payloads: Vec::new() })
    }
}

impl<L: FreeList> Player for Heaped<L> {
    fn list(&self) -> &'static str {
        L::NAME
    }

    fn alloc(&mut self, number: usize, layout: Layout) -> MallocStatus {
        let (payload, status) = self.heap.smalloc(layout);
        if self.payloads.len() <= number {
            self.payloads.resize(number + 1, None);
        }
        self.payloads[number] = payload;
        status
    }

    fn realloc(&mut self, number: usize, layout: Layout, new_size: usize) -> MallocStatus {
        let payload = self.payloads[number].expect("the block is there");
        // SAFETY: the block is in use with this layout, and the caller has made a layout of the new size.
        let (moved, status) = unsafe { self.heap.realloc_with_status(payload, layout, new_size) };
        self.payloads[number] = moved.or(Some(payload));
        status
    }

    fn free(&mut self, number: usize, layout: Layout) {
        let payload = self.payloads[number].take().expect("the block is there");
        // SAFETY: the block is in use with this layout, and its number has just forgotten it.
        unsafe { self.heap.dealloc(payload.as_ptr(), layout) };
    }

    fn set_limit(&mut self, bytes: usize) {
        self.heap.set_limit(bytes);
    }

    fn stats(&self) -> Stats {
        self.heap.stats()
    }

    fn snapshot(&self) -> Result<Snapshot, SnapshotError> {
        self.heap.snapshot()
    }

    fn check(&self) -> Result<(), Corruption> {
        self.heap.check()
    }
}
