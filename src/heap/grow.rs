//! Mapping the region, and committing more of it as the heap grows.

use super::Heap;
use super::counters::Counters;
use crate::checkers;
use crate::free_list::FreeList;
use crate::pages::{Moved, Pages};
use crate::region::{
    BASE_ALIGN, CHUNK, GRANULE, Granule, InitError, MAX_REGION, MIN_REGION, Region, Reservation,
};
use crate::segment_map::SegmentMap;
use crate::system::errno;
use crate::system::mapping::whole_pages;
use core::ptr::NonNull;

/// The smallest step by which the heap commits memory, in bytes: as in the C library's `malloc`.
const MIN_STEP: usize = 128 << 10;
/// The largest step, in bytes: writing 32 MiB takes far longer than the system call that commits them.
const MAX_STEP: usize = 32 << 20;

/// Maps the regions of `heaps` side by side, each of `wanted` bytes, and returns the stride in bytes. If there are
/// several, the stride is a power of two, with room for `beside` [more](Heap::open_beside) bytes and a guard page
/// behind each, and so is that of a single region with `beside` bytes. If the system refuses the address space, halves
/// the size and retries. With a `base`, the first region begins there, or nothing is mapped.
pub(crate) fn map_side_by_side<L: FreeList>(
    heaps: &mut [&mut Heap<L>],
    wanted: usize,
    beside: usize,
    base: Option<usize>,
) -> Result<usize, InitError> {
    let mut size = whole_pages(wanted.clamp(MIN_REGION, MAX_REGION));
    loop {
        match map_all(heaps, size, beside, base) {
            Ok(stride) => return Ok(stride),
            // A smaller region would not be the requested one.
            Err(errno) if size <= MIN_REGION || (base.is_some() && errno != libc::ENOMEM) => {
                return Err(InitError { region_size: wanted, errno, base });
            }
            Err(_) => size = whole_pages((size / 2).max(MIN_REGION)),
        }
    }
}

/// The largest size of a region, in bytes, with which `count` heaps side by side take at most `bytes` of addresses; 0
/// if there is none.
pub(crate) fn largest_region<L: FreeList>(bytes: usize, count: usize, beside: usize) -> usize {
    let each = (bytes / count.max(1)).min(MAX_REGION);
    // With several heaps, the stride is a power of two.
    let stride = if count > 1 { each.checked_ilog2().map_or(0, |bits| 1 << bits) } else { each };
    let end = if count > 1 { Reservation::end_bytes(beside) } else { 0 };
    let tables = Heap::<L>::mapped_bytes(stride).saturating_sub(stride);
    stride.saturating_sub(tables).saturating_sub(end) & !whole_pages(1).wrapping_sub(1)
}

/// Maps all of `heaps` with regions of `size` bytes, or none of them. Returns the stride; the error is the `errno`.
fn map_all<L: FreeList>(
    heaps: &mut [&mut Heap<L>],
    size: usize,
    beside: usize,
    base: Option<usize>,
) -> Result<usize, i32> {
    let bytes = Heap::<L>::mapped_bytes(size);
    let stride = if beside > 0 {
        bytes.saturating_add(Reservation::end_bytes(beside)).max(BASE_ALIGN).next_power_of_two()
    } else {
        whole_pages(bytes)
    };
    let all = stride.saturating_mul(heaps.len());
    let mut rest = base.map_or_else(|| Reservation::new(all), |base| Reservation::at(base, all))?;
    let count = heaps.len();
    let mapped = heaps.iter_mut().try_for_each(|heap| {
        heap.purge_policy.share(count);
        heap.map_region(rest.carve(stride), size)
    });
    if mapped.is_err() {
        // Dropping a heap unmaps its region.
        heaps.iter_mut().for_each(|heap| **heap = Heap::UNMAPPED);
        // SAFETY: no heap uses a part of the rest.
        unsafe { rest.release() };
    }
    mapped.map(|()| stride)
}

impl<L: FreeList> Heap<L> {
    /// Bytes of address space for a region of `size` bytes and its tables, three of which may start on a new page.
    fn mapped_bytes(size: usize) -> usize {
        size.saturating_add(Self::tables(size)).saturating_add(whole_pages(1).saturating_mul(3))
    }

    /// Bytes of the cold part: rarely written data, between the region and the tables. In the heap's own mapping it has
    /// a page to itself, which takes no memory until it is written.
    pub(super) fn cold_bytes() -> usize {
        Counters::cold_bytes().saturating_add(Moved::bytes())
    }

    fn map_region(&mut self, reservation: Reservation, size: usize) -> Result<(), i32> {
        let opened = self.attach(&reservation, size);
        self.reservation = reservation;
        if let Some(memory) = self.reservation.own_mapping() {
            checkers::mapped(memory);
        }
        if opened { Ok(()) } else { Err(errno::get()) }
    }

    /// Commits the `beside` zeroed bytes of one of [several](map_side_by_side) heaps. None if the system refuses.
    pub(crate) fn open_beside(&self, beside: usize) -> Option<NonNull<u8>> {
        self.reservation.commit_end(beside)
    }

    /// Lays out the region of `size` bytes and the tables in a reservation. False if the system refuses.
    pub(super) fn attach(&mut self, reservation: &Reservation, size: usize) -> bool {
        let chunks = (size / GRANULE).div_ceil(CHUNK);
        let [used, heads] = SegmentMap::bytes(chunks);
        let mut cold = reservation.part(size, Self::cold_bytes());
        let pages_at = reservation.next_page(size.saturating_add(Self::cold_bytes()));
        let list_at = pages_at.saturating_add(Pages::bytes(size));
        let used_at = reservation.place(list_at.saturating_add(L::bytes(chunks)), used);
        let heads_at = reservation.place(used_at.saturating_add(used), heads);
        if !cold.commit(Self::cold_bytes()) {
            return false;
        }
        self.tiling.counters.attach(&mut cold);
        self.tiling.pages =
            Pages::new(reservation, (pages_at, heads_at.saturating_add(heads)), size, &mut cold);
        self.tiling.list.attach(reservation, list_at, chunks);
        self.tiling.ground.map = SegmentMap::new(reservation, [used_at, heads_at], chunks);
        self.tiling.ground.region = Region::new(reservation, size);
        // The first pages of the tables are committed now, since reads of an empty heap touch them.
        self.tiling.ground.map.commit(0) && self.tiling.list.commit(0) && self.tiling.pages.commit(Granule(0))
    }

    /// Commits `n` granules from `from`, which is top. False if the region has fewer or the system refuses.
    #[inline(always)]
    pub(super) fn commit_from(&mut self, from: Granule, n: usize) -> bool {
        n <= self.tiling.ready.above(from) || self.open_more(from, n)
    }

    /// Commits what is needed, and more if the heap is growing.
    #[cold]
    fn open_more(&mut self, from: Granule, n: usize) -> bool {
        if self.tiling.ground.region.base().is_null() {
            return false;
        }
        let end = Granule(self.tiling.ground.region.size() / GRANULE).min(self.limit);
        if n > end.above(from) {
            return false;
        }
        let needed = from.up(n);
        let step = (self.tiling.ready.bytes() / 4).clamp(MIN_STEP, MAX_STEP) / GRANULE;
        let ahead = self.tiling.ready.up(step).max(needed).min(end);
        errno::unchanged(|| self.open(ahead) || (ahead > needed && self.open(needed)))
    }

    /// Commits region and tables up to `end`. False if the system refuses.
    pub(super) fn open(&mut self, end: Granule) -> bool {
        let chunks = end.0.div_ceil(CHUNK);
        let before = self.tiling.ground.region.committed();
        let tables = self.tiling.ground.map.commit(chunks)
            && self.tiling.list.commit(chunks)
            && self.tiling.pages.commit(end);
        let done = tables && self.tiling.ground.region.commit(end);
        if done {
            let opened = self.tiling.ground.region.committed().saturating_sub(before);
            checkers::opened(self.tiling.ground.region.pointer(Granule(before / GRANULE)), opened);
            let open = self.tiling.ground.region.committed() / GRANULE;
            self.tiling.ready =
                Granule(open.min(chunks.wrapping_mul(CHUNK)).max(self.tiling.ready.0)).min(self.limit);
        }
        done
    }
}

const _: () = assert!(MAX_REGION.is_multiple_of(BASE_ALIGN));

#[cfg(test)]
#[path = "../../tests/unit/heap/grow.rs"]
mod tests;
