//! Searches for a place at a multiple of an alignment: by the alignment's [index](super::aligned), or without one.

use super::Indexed;
use super::aligned::{Alignment, Place, place_in_chunk};
use super::bounds::bound_of;
use super::hints::LARGEST;
use super::hints::NONE;
use super::lengths::GROUP;
use crate::free_list::{Fit, Ground};
use crate::region::{CHUNK, Granule};

/// Hops of a search without an index after which one is made for the rest of it.
const MOST_HOPS: usize = 300;

impl Indexed {
    /// The lowest place for `n` granules at a multiple of `align` bytes.
    pub(super) fn search_for_place(&mut self, ground: &Ground, n: usize, align: usize) -> (Fit, Granule) {
        let mut fit = Fit::NONE;
        let alignment = Alignment::of(align);
        let place = if self.aligned.has(alignment) {
            self.aligned.note_use(alignment);
            self.aligned.search(ground, &self.bounds, n, align, &mut fit)
        } else {
            let place = self.walk(ground, n, align, &mut fit);
            if self.aligned.is_wanted(alignment, fit.stepped()) {
                self.make_index(ground, alignment);
            }
            place
        };
        place.map_or((fit, Granule(0)), |place| (fit.at(place.hole), place.at))
    }

    /// The search without an index: chunk after chunk that promises enough. If that takes long, the index is made.
    fn walk(&mut self, ground: &Ground, n: usize, align: usize, fit: &mut Fit) -> Option<Place> {
        let mut from = if n <= LARGEST { self.hints.get(n) } else { 0 };
        while let Some(chunk) = self.candidate(ground, from, n, fit) {
            if let Some(place) = place_in_chunk(ground, chunk, n, align) {
                return Some(place);
            }
            fit.step();
            if fit.hops() >= MOST_HOPS && self.make_index(ground, Alignment::of(align)) {
                return self.aligned.search(ground, &self.bounds, n, align, fit);
            }
            from = chunk.wrapping_add(1);
        }
        None
    }

    fn make_index(&mut self, ground: &Ground, alignment: Alignment) -> bool {
        let made = self.aligned.make(ground, &self.bounds, alignment);
        self.update_trust();
        made
    }

    /// The lowest chunk from `from` on whose bound promises a free segment of `n` granules.
    fn candidate(&mut self, ground: &Ground, from: usize, n: usize, fit: &mut Fit) -> Option<usize> {
        if from == NONE {
            return None;
        }
        if n < CHUNK {
            let fits = self.bounds.get(from) >= bound_of(n);
            let chunk = if fits { from } else { self.bounds.next(from, bound_of(n), fit) };
            return (chunk != NONE).then_some(chunk);
        }
        let mut group = from / GROUP;
        loop {
            group = self.long.next(0, group, n, fit)?;
            for hole in self.long_holes(ground, group).filter(|hole| hole.start.chunk() >= from) {
                if hole.len() >= n {
                    return Some(hole.start.chunk());
                }
                fit.step();
            }
            group = group.wrapping_add(1);
        }
    }
}
