//! The page that a heap publishes to.

use crate::inspect::LivePage;

pub(super) struct Published<const REGIONS: usize> {
    pub(super) page: LivePage,
    /// Bytes in use and top, per region.
    pub(super) used_and_top: [(usize, usize); REGIONS],
}

impl<const REGIONS: usize> Published<REGIONS> {
    /// Updates a region's numbers and returns the totals.
    pub(super) fn update(&mut self, region: usize, used_and_top: (usize, usize)) -> (usize, usize) {
        if let Some(own) = self.used_and_top.get_mut(region) {
            *own = used_and_top;
        }
        let add = |sum: (usize, usize), one: &(usize, usize)| {
            (sum.0.wrapping_add(one.0), sum.1.wrapping_add(one.1))
        };
        self.used_and_top.iter().fold((0, 0), add)
    }
}
