//! Mapping the region, and opening more of it as the heap grows.

use super::Heap;
use super::counters::Counters;
use crate::errno;
use crate::free_list::FreeList;
use crate::region::{
    BASE_ALIGN, CHUNK, GRANULE, Granule, InitError, MAX_REGION, MIN_REGION, Region, Reservation, page_size,
};
use crate::segment_map::SegmentMap;

/// The region of a heap that was not told a size.
const DEFAULT_REGION: usize = 32 << 30;
/// The first step by which the heap opens memory, in bytes.
const FIRST_STEP: usize = 128 << 10;
/// The largest step, in bytes.
const LARGEST_STEP: usize = 32 << 20;

impl<L: FreeList> Heap<L> {
    /// Maps the region, unless it is mapped. If the address space for it is refused, half of it is tried, and so on.
    pub(crate) fn init(&mut self) -> Result<(), InitError> {
        if !self.region.base().is_null() {
            return Ok(());
        }
        let wanted = if self.wanted == 0 { DEFAULT_REGION } else { self.wanted };
        let mut size = wanted.clamp(MIN_REGION, MAX_REGION).next_multiple_of(page_size());
        loop {
            match self.map_region(size) {
                Ok(()) => return Ok(()),
                Err(errno) if size <= MIN_REGION => return Err(InitError { region_size: wanted, errno }),
                Err(_) => size = (size / 2).max(MIN_REGION).next_multiple_of(page_size()),
            }
        }
    }

    fn map_region(&mut self, size: usize) -> Result<(), i32> {
        let chunks = (size / GRANULE).div_ceil(CHUNK);
        let map_bytes = SegmentMap::bytes(chunks);
        let list_at = size.saturating_add(map_bytes);
        let mut reservation = Reservation::new(list_at.saturating_add(L::bytes(chunks)))?;
        self.map = SegmentMap::new(&reservation, size, chunks);
        self.list.attach(&reservation, list_at, chunks);
        // The tables' first pages are opened now: looking at an empty heap reads them.
        if !(self.map.commit(0) && self.list.commit(0)) {
            // SAFETY: no segment exists yet, and the tables in it are not used again.
            unsafe { reservation.release() };
            return Err(libc::ENOMEM);
        }
        self.region = Region::new(&reservation, size);
        self.reservation = reservation;
        // Requests that came before there was a region did not fail.
        self.counters = Counters::ZERO;
        Ok(())
    }

    /// Opens region and tables for `n` granules above `from`, and for more if the heap is growing. False when the
    /// region has not that many, or the system no memory.
    #[cold]
    pub(super) fn make_ready(&mut self, from: Granule, n: usize) -> bool {
        if self.region.base().is_null() {
            return false;
        }
        let end = Granule(self.region.size() / GRANULE);
        if n > end.above(from) {
            return false;
        }
        let needed = from.up(n);
        let step = (self.ready.bytes() / 4).clamp(FIRST_STEP, LARGEST_STEP) / GRANULE;
        let ahead = Granule(self.ready.0.wrapping_add(step).clamp(needed.0, end.0));
        errno::unchanged(|| self.open(ahead) || (ahead > needed && self.open(needed)))
    }

    fn open(&mut self, end: Granule) -> bool {
        let chunks = end.0.div_ceil(CHUNK);
        let done = self.map.commit(chunks) && self.list.commit(chunks) && self.region.commit(end);
        if done {
            let open = self.region.committed() / GRANULE;
            self.ready = Granule(open.min(chunks.wrapping_mul(CHUNK)).max(self.ready.0));
        }
        done
    }
}

const _: () = assert!(MAX_REGION.is_multiple_of(BASE_ALIGN));
