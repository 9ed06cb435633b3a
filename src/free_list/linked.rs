//! The textbook free list: doubly linked, in ascending address order, with its links in the free segments.
//!
//! It is the reference implementation for [`Indexed`](super::Indexed): short, readable, and the baseline for tests. A
//! search walks from the head over every free segment that does not fit, and a heap of some size has thousands of them.

use super::{Broken, Deferred, Fit, FreeList, Ground, Look, Search};
use crate::region::{Extent, Granule, LINK_BYTES, Reservation};

/// The end of the list in either direction. Regions are too small for a segment to start at this granule.
const NIL: u32 = u32::MAX;

/// A doubly linked free list in address order. Each free segment stores `prev` and `next` as granule numbers.
///
/// ```
/// use core::alloc::Layout;
/// use smalloc::{Heap, Linked};
///
/// let mut heap = Heap::<Linked>::with_region_size(1 << 16)?;
/// let layout = Layout::new::<[u8; 32]>();
/// let blocks: Vec<_> = (0..6).map(|_| heap.smalloc(layout).0.unwrap()).collect();
/// for &i in &[0, 2, 4] {
///     unsafe { heap.sfree(blocks[i]) };
/// }
/// // The search steps over three holes of 32 bytes before the wilderness serves 48.
/// let (_, status) = heap.smalloc(Layout::new::<[u8; 48]>());
/// assert_eq!(status.hops, 3);
/// # Ok::<(), smalloc::InitError>(())
/// ```
#[derive(Debug)]
pub struct Linked {
    head: u32,
}

impl FreeList for Linked {}

/// The links of a free segment.
#[derive(Clone, Copy)]
struct Links {
    prev: u32,
    next: u32,
}

impl Linked {
    fn links(ground: &Ground, at: u32) -> Links {
        let [prev, next] = ground.region.links(Granule(at as usize));
        Links { prev, next }
    }

    fn set_links(ground: &Ground, at: u32, links: Links) {
        ground.region.set_links(Granule(at as usize), [links.prev, links.next]);
    }

    /// Sets the forward link of `prev`, or the head, to `to`.
    fn set_next(&mut self, ground: &Ground, prev: u32, to: u32) {
        if prev == NIL {
            self.head = to;
        } else {
            Self::set_links(ground, prev, Links { next: to, ..Self::links(ground, prev) });
        }
    }

    /// Sets the back link of `next`, if there is one, to `to`.
    fn set_prev(ground: &Ground, next: u32, to: u32) {
        if next != NIL {
            Self::set_links(ground, next, Links { prev: to, ..Self::links(ground, next) });
        }
    }

    fn link(&mut self, ground: &Ground, at: u32, links: Links) {
        Self::set_links(ground, at, links);
        self.set_next(ground, links.prev, at);
        Self::set_prev(ground, links.next, at);
    }

    /// Walks from `at` to the lowest free segment that has `n` granules.
    fn search_for_fit(ground: &Ground, mut at: u32, n: usize) -> Fit {
        let mut fit = Fit::NONE;
        while at != NIL {
            if hole(ground, at).len() >= n {
                return fit.at(Granule(at as usize));
            }
            fit.step();
            at = Self::links(ground, at).next;
        }
        fit
    }

    /// The first free segment at or above `from`, which is 0 or the head of a segment in use.
    fn first_from(&self, ground: &Ground, from: Granule) -> u32 {
        if from == Granule(0) {
            // The map may not exist yet.
            return self.head;
        }
        let start = ground.map.hole_start(from);
        if start < from {
            return Self::links(ground, number(start)).next;
        }
        let mut at = self.head;
        while at != NIL && at < number(from) {
            at = Self::links(ground, at).next;
        }
        at
    }

    /// Walks to the place of `at` in the list and inserts it.
    fn add_to_free_list(&mut self, ground: &Ground, at: u32) {
        let mut links = Links { prev: NIL, next: self.head };
        while links.next != NIL && links.next < at {
            links = Links { prev: links.next, next: Self::links(ground, links.next).next };
        }
        self.link(ground, at, links);
    }

    fn remove_from_free_list(&mut self, ground: &Ground, at: u32) {
        let links = Self::links(ground, at);
        self.set_next(ground, links.prev, links.next);
        Self::set_prev(ground, links.next, links.prev);
    }

    /// Replaces the free segment that started at `from` by one that starts at `to`, with the same neighbours.
    fn replace(&mut self, ground: &Ground, from: u32, to: u32) {
        let links = Self::links(ground, from);
        self.link(ground, to, links);
    }
}

/// A granule's number, as stored in a link.
fn number(at: Granule) -> u32 {
    at.0 as u32
}

/// The free segment at `at`.
fn hole(ground: &Ground, at: u32) -> Extent {
    let start = Granule(at as usize);
    Extent::new(start, ground.hole_end(start))
}

impl Search for Linked {
    const NAME: &'static str = "linked";
    const LINK_BYTES: usize = LINK_BYTES;
    const EMPTY: Self = Self { head: NIL };

    fn bytes(_chunks: usize) -> usize {
        0
    }

    fn attach(&mut self, _reservation: &Reservation, _offset: usize, _chunks: usize) {
        self.head = NIL;
    }

    fn commit(&mut self, _chunks: usize) -> bool {
        true
    }

    fn committed(&self) -> usize {
        0
    }

    #[inline(always)]
    fn look(&self, ground: &Ground, n: usize) -> Look {
        if self.head == NIL {
            return Look::Wilderness;
        }
        let head = Granule(self.head as usize);
        if ground.map.free_from(head) < n { Look::Search } else { Look::Crosses(head) }
    }

    fn search(&mut self, ground: &Ground, n: usize) -> Fit {
        Self::search_for_fit(ground, self.head, n)
    }

    fn search_aligned(&mut self, ground: &Ground, n: usize, align: usize) -> (Fit, Granule) {
        let mut fit = Fit::NONE;
        let mut at = self.head;
        while at != NIL {
            if let Some(place) = ground.place_in(hole(ground, at), n, align) {
                return (fit.at(Granule(at as usize)), place);
            }
            fit.step();
            at = Self::links(ground, at).next;
        }
        (fit, Granule(0))
    }

    fn next_hole(&self, ground: &Ground, from: Granule, n: usize) -> Option<Granule> {
        Self::search_for_fit(ground, self.first_from(ground, from), n).start()
    }

    fn takes_front(&mut self, _chunk: usize, _seen: usize) -> bool {
        false
    }

    fn took(&mut self, ground: &Ground, hole: Extent, part: Extent) {
        let at = number(hole.start);
        match (hole.start < part.start, part.end < hole.end) {
            (false, false) => self.remove_from_free_list(ground, at),
            (false, true) => self.replace(ground, at, number(part.end)),
            (true, false) => {}
            (true, true) => {
                let next = Self::links(ground, at).next;
                self.link(ground, number(part.end), Links { prev: at, next });
            }
        }
    }

    fn gave(&mut self, ground: &Ground, hole: Extent, segment: Extent) -> Deferred {
        match (hole.start < segment.start, segment.end < hole.end) {
            (false, false) => self.add_to_free_list(ground, number(segment.start)),
            (false, true) => self.replace(ground, number(segment.end), number(segment.start)),
            (true, false) => {}
            (true, true) => self.remove_from_free_list(ground, number(segment.end)),
        }
        Deferred::Nothing
    }

    #[inline(always)]
    fn top_fell(&mut self, ground: &Ground, _from: Granule, to: Granule, at: Granule) -> Deferred {
        if to < at {
            self.remove_from_free_list(ground, number(to));
        }
        Deferred::Nothing
    }

    fn settle(&mut self, _ground: &Ground, _deferred: Deferred) {}

    fn covered(&mut self, _ground: &Ground, _segment: Extent) {}

    fn largest(&self, ground: &Ground) -> usize {
        let mut largest = 0;
        let mut at = self.head;
        while at != NIL {
            largest = largest.max(hole(ground, at).len());
            at = Self::links(ground, at).next;
        }
        largest
    }

    fn check(&self, ground: &Ground, holes: &mut dyn Iterator<Item = Extent>) -> Result<(), Broken> {
        let mut prev = NIL;
        let mut at = self.head;
        for Extent { start, .. } in holes {
            let broken = |invariant, what| Err(Broken { invariant, at: start, what });
            if at == NIL {
                return broken("L1", "the list ends before this free segment");
            }
            if at != number(start) {
                let skipped = at > number(start);
                return if skipped {
                    broken("L1", "the list steps over this free segment")
                } else {
                    broken("L2", "the list holds something that is not the next free segment")
                };
            }
            let links = Self::links(ground, at);
            if links.prev != prev {
                return broken("L3", "the next segment's prev is another");
            }
            prev = at;
            at = links.next;
        }
        if at == NIL {
            Ok(())
        } else {
            Err(Broken {
                invariant: "L1",
                at: Granule(at as usize),
                what: "the list goes on behind the last free segment",
            })
        }
    }
}
