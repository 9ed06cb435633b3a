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
use crate::system::fatal::refuse;
use crate::system::mapping::whole_pages;
use core::ptr::NonNull;

/// The region of a heap that was not told a size.
const DEFAULT_REGION: usize = 32 << 30;
/// The first step by which the heap opens memory, in bytes.
const FIRST_STEP: usize = 128 << 10;
/// The largest step, in bytes.
const LARGEST_STEP: usize = 32 << 20;

/// Maps the regions of `heaps`, none of which is mapped yet, one behind the other, each of `wanted` bytes; 0 asks for as
/// much as is sensible. Where there are several, each has room for `beside` bytes [more](Heap::open_beside), and a closed
/// page behind them. Returns how many bytes lie between the starts of two, a power of two where there are several. If the
/// address space is refused, regions of half the size are tried, and so on.
pub(crate) fn map_side_by_side<L: FreeList>(
    heaps: &mut [&mut Heap<L>],
    wanted: usize,
    beside: usize,
) -> Result<usize, InitError> {
    let wanted = match wanted {
        0 => region_from_environment().unwrap_or(DEFAULT_REGION),
        wanted => wanted,
    };
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
        heap.keep_a_share(count);
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
        self.counters.attach(&mut seldom);
        self.pages = Pages::new(reservation, (pages_at, heads_at.saturating_add(heads)), size, &mut seldom);
        self.list.attach(reservation, list_at, chunks);
        self.ground.map = SegmentMap::new(reservation, [used_at, heads_at], chunks);
        self.ground.region = Region::new(reservation, size);
        // The tables' first pages are opened now: looking at an empty heap reads them.
        self.ground.map.commit(0) && self.list.commit(0) && self.pages.commit(Granule(0))
    }

    /// Opens region and tables for `n` granules above `from`, and for more if the heap is growing. False when the
    /// region has not that many, or the system no memory.
    #[cold]
    pub(super) fn make_ready(&mut self, from: Granule, n: usize) -> bool {
        if self.ground.region.base().is_null() {
            return false;
        }
        let end = Granule(self.ground.region.size() / GRANULE).min(self.limit);
        if n > end.above(from) {
            return false;
        }
        let needed = from.up(n);
        let step = (self.ready.bytes() / 4).clamp(FIRST_STEP, LARGEST_STEP) / GRANULE;
        let ahead = self.ready.up(step).max(needed).min(end);
        errno::unchanged(|| self.open(ahead) || (ahead > needed && self.open(needed)))
    }

    fn open(&mut self, end: Granule) -> bool {
        let chunks = end.0.div_ceil(CHUNK);
        let before = self.ground.region.committed();
        let tables = self.ground.map.commit(chunks) && self.list.commit(chunks) && self.pages.commit(end);
        let done = tables && self.ground.region.commit(end);
        if done {
            let opened = self.ground.region.committed().saturating_sub(before);
            checkers::opened(self.ground.region.pointer(Granule(before / GRANULE)), opened);
            let open = self.ground.region.committed() / GRANULE;
            self.ready = Granule(open.min(chunks.wrapping_mul(CHUNK)).max(self.ready.0)).min(self.limit);
        }
        done
    }
}

const _: () = assert!(MAX_REGION.is_multiple_of(BASE_ALIGN));

/// The size that the environment variable `SMALLOC_REGION` asks for, none where it is not set. What cannot be read as
/// a size ends the process: whoever sets a budget wants to know.
fn region_from_environment() -> Option<usize> {
    // SAFETY: the name ends in a zero byte.
    let value = unsafe { libc::getenv(c"SMALLOC_REGION".as_ptr()) };
    let value = NonNull::new(value)?;
    // SAFETY: what the environment holds ends in a zero byte.
    let text = unsafe { core::ffi::CStr::from_ptr(value.as_ptr()) };
    let size = text.to_str().ok().and_then(parse_size);
    if size.is_none() {
        let text = text.to_bytes().escape_ascii();
        refuse(format_args!("SMALLOC_REGION: \"{text}\" is not a size (bytes, or a number with K, M or G)"));
    }
    size
}

/// A number of bytes, or of KiB, MiB or GiB with `K`, `M` or `G` behind it.
fn parse_size(text: &str) -> Option<usize> {
    let (digits, unit) = match text.as_bytes().last()? {
        b'k' | b'K' => (text.strip_suffix(['k', 'K'])?, 1 << 10),
        b'm' | b'M' => (text.strip_suffix(['m', 'M'])?, 1 << 20),
        b'g' | b'G' => (text.strip_suffix(['g', 'G'])?, 1 << 30),
        _ => (text, 1),
    };
    digits.parse::<usize>().ok()?.checked_mul(unit).filter(|&size| size > 0)
}

#[cfg(test)]
mod tests {
    use super::parse_size;
    use crate::region::{GRANULE, NEAR};
    use crate::{FreeList, Heap, Indexed, Linked};
    use core::alloc::Layout;

    /// What the small tables say of the heap's beginning they say after they have moved, too.
    #[test]
    fn tables_that_move_keep_what_they_hold() {
        grow_past_near::<Indexed>();
        grow_past_near::<Linked>();
    }

    fn grow_past_near<L: FreeList>() {
        const PIECE: Layout = Layout::new::<[u8; 64 << 10]>();
        let mut heap = Heap::<L>::with_region_size(2 * NEAR).unwrap();
        let pieces = NEAR / PIECE.size();
        let blocks: std::vec::Vec<_> = (0..pieces).map(|_| heap.smalloc(PIECE).0.unwrap()).collect();
        let before = heap.stats().metadata_bytes;
        for block in blocks.iter().skip(1).step_by(100) {
            // SAFETY: the block is in use, and has this layout.
            unsafe { heap.dealloc(block.as_ptr(), PIECE) };
        }
        let large = Layout::from_size_align(NEAR - GRANULE, GRANULE).unwrap();
        assert_eq!(heap.smalloc(large).1.payload_offset, Some(NEAR));
        assert!(
            heap.stats().metadata_bytes > 3 * before / 2,
            "the tables are those of a heap twice as large"
        );
        assert_eq!(heap.check(), Ok(()));
        assert_eq!(heap.smalloc(PIECE).1.payload_offset, Some(PIECE.size()));
        assert_eq!(heap.smalloc(PIECE).1.payload_offset, Some(101 * PIECE.size()));
        // With links in them, holes keep their first pages.
        let kept = if L::LINK_BYTES > 0 { 4 << 10 } else { 0 };
        let holes = (pieces - 1).div_ceil(100) - 2;
        assert_eq!(heap.trim(), holes * (PIECE.size() - kept));
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("64K"), Some(64 << 10));
        assert_eq!(parse_size("3m"), Some(3 << 20));
        assert_eq!(parse_size("2G"), Some(2 << 30));
        for bad in ["", "K", "0", "12Q", "-1", "1.5G", "1 G", "99999999999G"] {
            assert_eq!(parse_size(bad), None, "{bad:?}");
        }
    }
}
