//! Dirty pages: which pages of free memory may hold data, one bit per page in a bitmap beside the heap.
//!
//! A page is clean when the system has just supplied it, after a purge, and after its contents were moved away by
//! `mremap`. Handing it out makes it dirty, but it is marked only when it is freed, and only by the slow path: the fast
//! path frees too little to make a hole of a whole page. So common calls do no work for pages. The marks promise:
//!
//! - **P1** a page that lies wholly in a hole and is not marked is zero, except for the links of
//!   [`Linked`](crate::Linked) at the hole's start;
//! - **P2** a page that lies wholly above top and above the heap's `touched`, and is not marked, is zero.
//!
//! The mark of a page that is partly in use means nothing.

mod moved;

pub(crate) use moved::Moved;

use crate::region::{Extent, GRANULE, Granule, NEAR, Reservation, Span, Table};
use crate::system::mapping::page_size;

/// Pages per word of the bitmap.
const WORD: usize = u64::BITS as usize;

/// The bitmap of dirty pages, and the list of moved ones.
#[derive(Debug)]
pub(crate) struct Pages {
    dirty: Table<u64>,
    /// The larger place that the bitmap moves to when it grows.
    far: Span,
    /// Granules per page, as a power of two.
    shift: u32,
    /// No page at or above this is marked.
    end: Granule,
    /// The pages that were moved to where they are.
    pub(crate) moved: Moved,
}

impl Pages {
    pub(crate) const NONE: Self =
        Self { dirty: Table::NONE, far: Span::NONE, shift: 0, end: Granule(0), moved: Moved::NONE };

    /// Bytes that the bitmap of a region of `size` bytes reserves in its first place.
    pub(crate) fn bytes(size: usize) -> usize {
        Table::<u64>::near_bytes(words(size), words(NEAR))
    }

    /// Bytes that it reserves in its second place.
    pub(crate) fn far_bytes(size: usize) -> usize {
        Table::<u64>::far_bytes(words(size), words(NEAR))
    }

    /// The bitmap of a region of `size` bytes, at `offset` of the reservation and later at `far`, and the list.
    pub(crate) fn new(
        reservation: &Reservation,
        (offset, far): (usize, usize),
        size: usize,
        cold: &mut Span,
    ) -> Self {
        let (dirty, far) = Table::small(reservation, (offset, words(NEAR)), (far, words(size)));
        let shift = page_size().trailing_zeros() - GRANULE.trailing_zeros();
        Self { dirty, far, shift, end: Granule(0), moved: Moved::new(cold) }
    }

    /// Commits the bitmap for pages below `end`. False if the system refuses.
    pub(crate) fn commit(&mut self, end: Granule) -> bool {
        self.dirty.commit_small(&mut self.far, words(end.bytes()))
    }

    pub(crate) fn committed(&self) -> usize {
        self.dirty.committed()
    }

    /// No page at or above this is marked.
    pub(crate) fn end(&self) -> Granule {
        self.end
    }

    /// Granules per page.
    pub(crate) fn granules(&self) -> usize {
        1 << self.shift
    }

    /// The whole pages in a range; empty if there are none.
    pub(crate) fn whole(&self, range: Extent) -> Extent {
        let first = self.page(range.start.up(self.granules().wrapping_sub(1)));
        let end = self.page(range.end).max(first);
        Extent::new(self.start(first), self.start(end))
    }

    /// Marks every page that overlaps the range. Usually that is one or two.
    #[inline(always)]
    pub(crate) fn mark_dirty(&mut self, range: Extent) {
        if range.is_empty() {
            return;
        }
        let (first, last) = (self.page(range.start), self.page(range.end.down(1)));
        self.mark_page(first);
        if last > first {
            self.mark_page(last);
            if last.wrapping_sub(first) > 1 {
                self.write(first.wrapping_add(1), last, u64::MAX);
            }
        }
        self.end = self.end.max(self.start(last.wrapping_add(1)));
    }

    #[inline(always)]
    fn mark_page(&mut self, page: usize) {
        let word = page / WORD;
        self.dirty.set(word, self.dirty.get(word) | 1 << (page % WORD));
    }

    /// Unmarks whole pages.
    pub(crate) fn mark_clean(&mut self, pages: Extent) {
        self.write(self.page(pages.start), self.page(pages.end), 0);
        if pages.end >= self.end && pages.start < self.end {
            self.end = pages.start;
        }
    }

    /// The lowest run of marked pages in `pages`, which are whole.
    pub(crate) fn dirty_run(&self, pages: Extent) -> Option<Extent> {
        let to = self.page(pages.end.min(self.end));
        let first = self.find(self.page(pages.start), to, 0)?;
        let end = self.find(first, to, u64::MAX).unwrap_or(to);
        Some(Extent::new(self.start(first), self.start(end)))
    }

    /// The first page in `from..to` whose mark, XORed with `flip`, is set.
    fn find(&self, from: usize, to: usize, flip: u64) -> Option<usize> {
        let mut word = from / WORD;
        let mut mask = u64::MAX << (from % WORD);
        while word.wrapping_mul(WORD) < to {
            let marks = (self.dirty.get(word) ^ flip) & mask;
            if marks != 0 {
                let page = word.wrapping_mul(WORD).wrapping_add(marks.trailing_zeros() as usize);
                return (page < to).then_some(page);
            }
            mask = u64::MAX;
            word = word.wrapping_add(1);
        }
        None
    }

    /// Writes the marks of the pages `from..to`: all ones or all zeros.
    #[inline(never)]
    fn write(&mut self, from: usize, to: usize, value: u64) {
        let mut word = from / WORD;
        let mut mask = u64::MAX << (from % WORD);
        while word.wrapping_mul(WORD) < to {
            let left = to.wrapping_sub(word.wrapping_mul(WORD));
            if left < WORD {
                mask &= !(u64::MAX << left);
            }
            self.dirty.set(word, self.dirty.get(word) & !mask | value & mask);
            mask = u64::MAX;
            word = word.wrapping_add(1);
        }
    }

    fn page(&self, at: Granule) -> usize {
        at.0 >> self.shift
    }

    fn start(&self, page: usize) -> Granule {
        Granule(page << self.shift)
    }
}

/// Words for the pages of `bytes` bytes, plus one for a partial word and one for a read of the page behind them.
fn words(bytes: usize) -> usize {
    ((bytes >> page_size().trailing_zeros()) / WORD).wrapping_add(2)
}
