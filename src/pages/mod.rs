//! Which pages of free memory may hold something: one bit a page, beside the heap.
//!
//! A page is clean as the system gives it, when it was purged, and when a payload has taken what it held along. It becomes
//! dirty by being handed out, but it is marked only when it comes back, and there only by the long way: what is freed by
//! the short way makes no hole of a whole page. So what happens most knows nothing of pages. What is promised is less than
//! for every byte:
//!
//! - **P1** a page that lies wholly in a hole, but for the links of [`Linked`](crate::Linked) at the hole's start,
//!   and is not marked, is zero;
//! - **P2** a page that lies wholly above top and above the heap's `touched`, and is not marked, is zero.
//!
//! The mark of a page of which any part is in use says nothing.

mod moved;

pub(crate) use moved::Moved;

use crate::region::{Extent, GRANULE, Granule, NEAR, Reservation, Span, Table};
use crate::system::mapping::page_size;

/// Pages in a word of the bitmap.
const WORD: usize = u64::BITS as usize;

/// The bitmap.
#[derive(Debug)]
pub(crate) struct Pages {
    dirty: Table<u64>,
    /// Where the bitmap moves when it grows.
    far: Span,
    /// Granules of a page, as a power of two.
    shift: u32,
    /// No page from here on is marked.
    end: Granule,
    /// Pages that were moved to where they are.
    pub(crate) moved: Moved,
}

impl Pages {
    pub(crate) const NONE: Self =
        Self { dirty: Table::NONE, far: Span::NONE, shift: 0, end: Granule(0), moved: Moved::NONE };

    /// Bytes of the reservation that the bitmap of a region of `size` bytes takes in its first place.
    pub(crate) fn bytes(size: usize) -> usize {
        Table::<u64>::near_bytes(words(size), words(NEAR))
    }

    /// The same for its second.
    pub(crate) fn far_bytes(size: usize) -> usize {
        Table::<u64>::far_bytes(words(size), words(NEAR))
    }

    /// The bitmap of a region of `size` bytes, at `offset` of the reservation and then at `far`, and the list of what was
    /// moved, among what is `seldom` written.
    pub(crate) fn new(
        reservation: &Reservation,
        (offset, far): (usize, usize),
        size: usize,
        seldom: &mut Span,
    ) -> Self {
        let (dirty, far) = Table::small(reservation, (offset, words(NEAR)), (far, words(size)));
        let shift = page_size().trailing_zeros() - GRANULE.trailing_zeros();
        Self { dirty, far, shift, end: Granule(0), moved: Moved::new(seldom) }
    }

    /// Opens the bitmap for pages below `end`. False when the system refuses.
    pub(crate) fn commit(&mut self, end: Granule) -> bool {
        self.dirty.commit_small(&mut self.far, words(end.bytes()))
    }

    /// Bytes of the bitmap that are open.
    pub(crate) fn committed(&self) -> usize {
        self.dirty.committed()
    }

    /// No page from here on is marked.
    pub(crate) fn end(&self) -> Granule {
        self.end
    }

    /// Granules of a page.
    pub(crate) fn granules(&self) -> usize {
        1 << self.shift
    }

    /// The whole pages in a range; an empty range if there are none.
    pub(crate) fn whole(&self, range: Extent) -> Extent {
        let first = self.page(range.start.up(self.granules().wrapping_sub(1)));
        let end = self.page(range.end).max(first);
        Extent::new(self.start(first), self.start(end))
    }

    /// Marks every page of which a part lies in the range. Mostly that is one, or two.
    #[inline(always)]
    pub(crate) fn soil(&mut self, range: Extent) {
        if range.is_empty() {
            return;
        }
        let (first, last) = (self.page(range.start), self.page(range.end.down(1)));
        self.mark(first);
        if last > first {
            self.mark(last);
            if last.wrapping_sub(first) > 1 {
                self.write(first.wrapping_add(1), last, u64::MAX);
            }
        }
        self.end = self.end.max(self.start(last.wrapping_add(1)));
    }

    #[inline(always)]
    fn mark(&mut self, page: usize) {
        let word = page / WORD;
        self.dirty.set(word, self.dirty.get(word) | 1 << (page % WORD));
    }

    /// Unmarks pages, which are whole.
    pub(crate) fn clean(&mut self, pages: Extent) {
        self.write(self.page(pages.start), self.page(pages.end), 0);
        if pages.end >= self.end && pages.start < self.end {
            self.end = pages.start;
        }
    }

    /// The lowest run of marked pages among `pages`, which are whole.
    pub(crate) fn dirty_run(&self, pages: Extent) -> Option<Extent> {
        let to = self.page(pages.end.min(self.end));
        let first = self.find(self.page(pages.start), to, 0)?;
        let end = self.find(first, to, u64::MAX).unwrap_or(to);
        Some(Extent::new(self.start(first), self.start(end)))
    }

    /// The first page in `from..to` whose mark, flipped by `flip`, is set.
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

/// Words for the pages of so many bytes, and one for a look at the page behind them.
fn words(bytes: usize) -> usize {
    ((bytes >> page_size().trailing_zeros()) / WORD).wrapping_add(2)
}
