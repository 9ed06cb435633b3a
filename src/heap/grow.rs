//! Mapping the region, and opening more of it as the heap grows.

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

/// The first step by which the heap opens memory, in bytes: as `malloc` of the C library grows at first.
const FIRST_STEP: usize = 128 << 10;
/// The largest step, in bytes: a heap of a gibibyte then makes a call of the system for every 32 MiB, which take longer to
/// be written than the call does. What is open and not used takes no memory.
const LARGEST_STEP: usize = 32 << 20;

/// Maps the regions of `heaps`, none of which is mapped yet, one behind the other, each of `wanted` bytes. Where there are
/// several, each has room for `beside` bytes [more](Heap::open_beside), and a closed page behind them. Returns how many bytes
/// lie between the starts of two, a power of two where there are several. If the address space is refused, regions of half
/// the size are tried, and so on.
pub(crate) fn map_side_by_side<L: FreeList>(
    heaps: &mut [&mut Heap<L>],
    wanted: usize,
    beside: usize,
) -> Result<usize, InitError> {
    let mut size = whole_pages(wanted.clamp(MIN_REGION, MAX_REGION));
    loop {
        match map_all(heaps, size, beside) {
            Ok(stride) => return Ok(stride),
            Err(errno) if size <= MIN_REGION => return Err(InitError { region_size: wanted, errno }),
            Err(_) => size = whole_pages((size / 2).max(MIN_REGION)),
        }
    }
}

/// Maps all of `heaps` with regions of `size` bytes, or none of them.
fn map_all<L: FreeList>(heaps: &mut [&mut Heap<L>], size: usize, beside: usize) -> Result<usize, i32> {
    let bytes = Heap::<L>::mapped_bytes(size);
    let stride = if heaps.len() > 1 {
        bytes.saturating_add(Reservation::end_bytes(beside)).max(BASE_ALIGN).next_power_of_two()
    } else {
        whole_pages(bytes)
    };
    let mut rest = Reservation::new(stride.saturating_mul(heaps.len()))?;
    let count = heaps.len();
    let mapped = heaps.iter_mut().try_for_each(|heap| {
        heap.purge_policy.share(count);
        heap.map_region(rest.cut(stride), size)
    });
    if mapped.is_err() {
        // A heap gives back what it has mapped when it is dropped.
        heaps.iter_mut().for_each(|heap| **heap = Heap::UNMAPPED);
        // SAFETY: nobody has a part of what is left.
        unsafe { rest.release() };
    }
    mapped.map(|()| stride)
}

impl<L: FreeList> Heap<L> {
    /// Bytes of address space that a region of `size` bytes takes with its tables, three of which may have to begin with a page.
    fn mapped_bytes(size: usize) -> usize {
        size.saturating_add(Self::tables(size)).saturating_add(whole_pages(1).saturating_mul(3))
    }

    /// Bytes of what is seldom written. It lies between the region and the tables. In a mapping of the heap's own it has a page
    /// to itself, which takes no memory until it is written.
    pub(super) fn seldom_bytes() -> usize {
        Counters::seldom_bytes().saturating_add(Moved::bytes())
    }

    fn map_region(&mut self, reservation: Reservation, size: usize) -> Result<(), i32> {
        let opened = self.attach(&reservation, size);
        self.reservation = reservation;
        if opened { Ok(()) } else { Err(errno::get()) }
    }

    /// Opens the `beside` bytes of a heap that is one of [several](map_side_by_side): zeros, at the end of a page. None when
    /// the system refuses.
    pub(crate) fn open_beside(&self, beside: usize) -> Option<NonNull<u8>> {
        self.reservation.open_end(beside)
    }

    /// Lays the region of `size` bytes and the tables out in a reservation. False when the system refuses.
    pub(super) fn attach(&mut self, reservation: &Reservation, size: usize) -> bool {
        let chunks = (size / GRANULE).div_ceil(CHUNK);
        let [used, heads] = SegmentMap::bytes(chunks);
        let mut seldom = reservation.part(size, Self::seldom_bytes());
        let pages_at = reservation.next_page(size.saturating_add(Self::seldom_bytes()));
        let list_at = pages_at.saturating_add(Pages::bytes(size));
        let used_at = reservation.place(list_at.saturating_add(L::bytes(chunks)), used);
        let heads_at = reservation.place(used_at.saturating_add(used), heads);
        if !seldom.commit(Self::seldom_bytes()) {
            return false;
        }
        self.tiling.counters.attach(&mut seldom);
        self.tiling.pages =
            Pages::new(reservation, (pages_at, heads_at.saturating_add(heads)), size, &mut seldom);
        self.tiling.list.attach(reservation, list_at, chunks);
        self.tiling.ground.map = SegmentMap::new(reservation, [used_at, heads_at], chunks);
        self.tiling.ground.region = Region::new(reservation, size);
        // The tables' first pages are opened now: looking at an empty heap reads them.
        self.tiling.ground.map.commit(0) && self.tiling.list.commit(0) && self.tiling.pages.commit(Granule(0))
    }

    /// Whether `n` granules above `from`, which is top, can be used: opens region and tables for them if they are not open. False
    /// when the region has not that many, or the system no memory.
    #[inline(always)]
    pub(super) fn make_ready(&mut self, from: Granule, n: usize) -> bool {
        n <= self.tiling.ready.above(from) || self.open_more(from, n)
    }

    /// Opens more, and still more if the heap is growing.
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
        let step = (self.tiling.ready.bytes() / 4).clamp(FIRST_STEP, LARGEST_STEP) / GRANULE;
        let ahead = self.tiling.ready.up(step).max(needed).min(end);
        errno::unchanged(|| self.open(ahead) || (ahead > needed && self.open(needed)))
    }

    fn open(&mut self, end: Granule) -> bool {
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
