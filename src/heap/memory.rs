//! The bytes of the heap that are in RAM.

use super::Heap;
use crate::free_list::FreeList;
use crate::inspect::Memory;
use crate::region::{Extent, GRANULE, Granule};
use crate::system::resident::{process_resident, visit_resident};

/// The whole pages of free segments, upward.
struct FreePages<'a, L: FreeList> {
    heap: &'a Heap<L>,
    /// The end of a hole, or 0; `None` behind the wilderness.
    cursor: Option<Granule>,
}

impl<L: FreeList> Iterator for FreePages<'_, L> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        let (tiling, cursor) = (&self.heap.tiling, self.cursor?);
        let pages = &tiling.pages;
        let hole = tiling.list.next_hole(&tiling.ground, cursor, pages.granules());
        let free = match hole {
            Some(start) => {
                Extent::new(start.up(L::LINKS), tiling.ground.map.hole_end(start, self.heap.top()))
            }
            None => Extent::new(self.heap.top(), Granule(self.heap.region_size() / GRANULE)),
        };
        self.cursor = hole.map(|_| free.end);
        Some(pages.whole(free))
    }
}

impl<L: FreeList> Heap<L> {
    /// Asks the system which bytes of this heap and of the process are in RAM. Takes about 10 µs for a GiB in use, plus
    /// some nanoseconds for each hole of a page or more.
    #[must_use]
    pub fn memory(&self) -> Memory {
        Memory { process: process_resident(), ..self.resident() }
    }

    pub(crate) fn resident(&self) -> Memory {
        let mut memory = Memory::default();
        let base = self.base().addr();
        if base == 0 {
            return memory;
        }
        let mut free_pages = FreePages { heap: self, cursor: Some(Granule(0)) };
        let mut free = free_pages.next();
        visit_resident(base, self.region().committed(), &mut |start, bytes| {
            memory.region = memory.region.saturating_add(bytes);
            let pages = Extent::of(Granule(start.wrapping_sub(base) / GRANULE), bytes / GRANULE);
            while let Some(range) = free.filter(|range| range.start < pages.end) {
                let (from, to) = (range.start.max(pages.start), range.end.min(pages.end));
                if from < to {
                    memory.kept = memory.kept.saturating_add(Extent::new(from, to).bytes());
                }
                if range.end > pages.end {
                    break;
                }
                free = free_pages.next();
            }
        });
        let (size, all) = (self.region_size(), self.reservation.bytes());
        visit_resident(base.saturating_add(size), all.saturating_sub(size), &mut |_, bytes| {
            memory.bookkeeping = memory.bookkeeping.saturating_add(bytes);
        });
        memory
    }
}
