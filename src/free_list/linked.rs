//! The textbook free list: doubly linked, in ascending address order, links in the free segments.
//!
//! It exists to be read, to teach, and to be the measure for [`Indexed`](super::Indexed): a search walks from the head
//! and steps over every free segment that does not fit, which are thousands in a heap of some size.

use super::{Broken, Fit, FreeList, Look, Rest, Search, View};
use crate::region::{Granule, LINK_BYTES, Reservation, WINDOW};

/// The end of the list, in either direction. No segment starts there: regions end before.
const NIL: u32 = u32::MAX;

/// A doubly linked free list in address order. A free segment holds `prev` and `next`, as granule numbers.
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
/// // Three holes of 32 bytes are stepped over before the wilderness serves 48.
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
    fn links(view: View<'_>, at: u32) -> Links {
        let [prev, next] = view.region.links(Granule(at as usize));
        Links { prev, next }
    }

    fn set_links(view: View<'_>, at: u32, links: Links) {
        view.region.set_links(Granule(at as usize), [links.prev, links.next]);
    }

    /// Makes `prev` point forward to `to`.
    fn set_next(&mut self, view: View<'_>, prev: u32, to: u32) {
        if prev == NIL {
            self.head = to;
        } else {
            Self::set_links(view, prev, Links { next: to, ..Self::links(view, prev) });
        }
    }

    /// Makes `next` point back to `to`.
    fn set_prev(view: View<'_>, next: u32, to: u32) {
        if next != NIL {
            Self::set_links(view, next, Links { prev: to, ..Self::links(view, next) });
        }
    }

    /// Puts `at` between two neighbours of the list.
    fn link(&mut self, view: View<'_>, at: u32, links: Links) {
        Self::set_links(view, at, links);
        self.set_next(view, links.prev, at);
        Self::set_prev(view, links.next, at);
    }

    /// Walks to where `at` belongs and links it there.
    fn add_to_free_list(&mut self, view: View<'_>, at: u32) {
        let mut links = Links { prev: NIL, next: self.head };
        while links.next != NIL && links.next < at {
            links = Links { prev: links.next, next: Self::links(view, links.next).next };
        }
        self.link(view, at, links);
    }

    fn remove_from_free_list(&mut self, view: View<'_>, at: u32) {
        let links = Self::links(view, at);
        self.set_next(view, links.prev, links.next);
        Self::set_prev(view, links.next, links.prev);
    }

    /// The free segment that began at `from` begins at `to` now, with the same neighbours in the list.
    fn replace(&mut self, view: View<'_>, from: u32, to: u32) {
        let links = Self::links(view, from);
        self.link(view, to, links);
    }
}

/// A granule's number as it stands in a link.
fn number(at: Granule) -> u32 {
    at.0 as u32
}

/// Whether the free segment at `at` has `n` granules.
fn fits(view: View<'_>, at: u32, n: usize) -> bool {
    let start = Granule(at as usize);
    let seen = view.map.free_from(start);
    if seen < WINDOW { seen >= n } else { view.map.hole_end(start, view.top).above(start) >= n }
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
    fn look(&self, view: View<'_>, n: usize) -> Look {
        if self.head == NIL {
            return Look::Wilderness;
        }
        let head = Granule(self.head as usize);
        let seen = view.map.free_from(head);
        if seen < n { Look::Search } else { Look::Fits(head, seen) }
    }

    fn search(&mut self, view: View<'_>, n: usize) -> Fit {
        self.search_from(view, Granule(0), n)
    }

    fn search_from(&mut self, view: View<'_>, from: Granule, n: usize) -> Fit {
        let mut stepped = 0_usize;
        let mut at = self.head;
        while at != NIL {
            if at as usize >= from.0 {
                if fits(view, at, n) {
                    return Fit { start: Some(Granule(at as usize)), stepped, probes: 0 };
                }
                stepped = stepped.wrapping_add(1);
            }
            at = Self::links(view, at).next;
        }
        Fit { start: None, stepped, probes: 0 }
    }

    fn took(&mut self, view: View<'_>, start: Granule, from: Granule, to: Granule, rest: Rest) {
        match (start < from, rest != Rest::Exact(0)) {
            (false, false) => self.remove_from_free_list(view, number(start)),
            (false, true) => self.replace(view, number(start), number(to)),
            (true, false) => {}
            (true, true) => {
                let next = Self::links(view, number(start)).next;
                self.link(view, number(to), Links { prev: number(start), next });
            }
        }
    }

    fn gave(&mut self, view: View<'_>, hole: (Granule, Granule), from: Granule, to: Granule) {
        let (start, end) = hole;
        match (start < from, to < end) {
            (false, false) => self.add_to_free_list(view, number(from)),
            (false, true) => self.replace(view, number(to), number(from)),
            (true, false) => {}
            (true, true) => self.remove_from_free_list(view, number(to)),
        }
    }

    #[inline(always)]
    fn top_fell(&mut self, view: View<'_>, _from: Granule, to: Granule, joined: bool) {
        if joined {
            self.remove_from_free_list(view, number(to));
        }
    }

    fn covered(&mut self, _from: Granule, _to: Granule) {}

    fn largest(&self, view: View<'_>) -> usize {
        let mut largest = 0;
        let mut at = self.head;
        while at != NIL {
            let start = Granule(at as usize);
            largest = largest.max(view.map.hole_end(start, view.top).above(start));
            at = Self::links(view, at).next;
        }
        largest
    }

    fn check(
        &self,
        view: View<'_>,
        holes: &mut dyn Iterator<Item = (Granule, Granule)>,
    ) -> Result<(), Broken> {
        let mut prev = NIL;
        let mut at = self.head;
        for (start, _) in holes {
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
            let links = Self::links(view, at);
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
