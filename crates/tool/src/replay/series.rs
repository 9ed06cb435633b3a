//! Numbers over time. The number of calls is not known in advance, so bins are joined in pairs when there are too many.

use smalloc::Stats;

/// Bins that are joined in pairs when there are twice as many.
const BINS: usize = 600;

/// The searches of one heap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Searches {
    pub(crate) count: u64,
    pub(crate) hops: u64,
    pub(crate) most: usize,
}

impl Searches {
    fn join(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            hops: self.hops + other.hops,
            most: self.most.max(other.most),
        }
    }

    /// Mean hops of a search; none without a search.
    pub(crate) fn mean(self) -> Option<f64> {
        (self.count > 0).then(|| self.hops as f64 / self.count as f64)
    }
}

/// The sizes of a heap in bytes, and its holes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) live: usize,
    pub(crate) used: usize,
    pub(crate) top: usize,
    pub(crate) footprint: usize,
    pub(crate) holes: usize,
}

impl Sizes {
    /// The sizes that a heap knows of this moment.
    pub(crate) fn of(stats: &Stats) -> Self {
        Self {
            live: 0,
            used: stats.used_bytes,
            top: stats.top,
            footprint: stats.committed_bytes + stats.metadata_bytes,
            holes: stats.holes(),
        }
    }

    /// The larger of each, and the holes of the later.
    fn join(self, later: Self) -> Self {
        Self {
            live: self.live.max(later.live),
            used: self.used.max(later.used),
            top: self.top.max(later.top),
            footprint: self.footprint.max(later.footprint),
            holes: later.holes,
        }
    }
}

/// Some calls.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Bin {
    /// The number of the last call in it.
    pub(crate) end: u64,
    /// The searches of each heap.
    pub(crate) searches: Vec<Searches>,
    /// The most live and used bytes, and the highest top; holes at the end.
    pub(crate) sizes: Sizes,
}

/// The pair with the larger first number, or else the first pair.
fn max_by_first(first: (usize, u64), second: (usize, u64)) -> (usize, u64) {
    if second.0 > first.0 { second } else { first }
}

/// All bins so far.
#[derive(Default)]
pub(crate) struct Series {
    pub(crate) bins: Vec<Bin>,
    /// The most bytes that were free below top at the end of a bin, and the call.
    pub(crate) widest: (usize, u64),
    calls_per_bin: u64,
    current: Bin,
}

impl Series {
    /// For so many heaps.
    pub(crate) fn new(heaps: usize) -> Self {
        let current = Bin { searches: vec![Searches::default(); heaps], ..Bin::default() };
        Self { bins: Vec::new(), widest: (0, 0), calls_per_bin: 1, current }
    }

    /// Sets the sizes before the first call.
    pub(crate) fn start(&mut self, sizes: Sizes) {
        self.current.sizes = self.current.sizes.join(sizes);
    }

    /// Adds call number `call`. `hops` are those of its search on each heap, empty if there was none. `sizes` are known
    /// without asking the heap, and `ask` asks it.
    pub(crate) fn tick(&mut self, call: u64, hops: &[usize], sizes: Sizes, ask: impl FnOnce() -> Sizes) {
        for (searches, &hops) in self.current.searches.iter_mut().zip(hops) {
            *searches = searches.join(Searches { count: 1, hops: hops as u64, most: hops });
        }
        self.current.end = call;
        self.current.sizes = self.current.sizes.join(sizes);
        if call.is_multiple_of(self.calls_per_bin) {
            let sizes = ask();
            self.widest = max_by_first(self.widest, (sizes.top - sizes.used, call));
            self.finish(sizes);
            if self.bins.len() >= 2 * BINS {
                self.join();
            }
        }
    }

    /// Ends the bin that is under way.
    pub(crate) fn finish(&mut self, sizes: Sizes) {
        if self.bins.last().is_some_and(|last| last.end == self.current.end) || self.current.end == 0 {
            return;
        }
        let empty = vec![Searches::default(); self.current.searches.len()];
        let end = self.current.end;
        let whole = std::mem::replace(&mut self.current, Bin { end, searches: empty, ..Bin::default() });
        self.bins.push(Bin { sizes: whole.sizes.join(sizes), ..whole });
    }

    /// The number of calls, and at least one, as charts need it.
    pub(crate) fn calls(&self) -> f64 {
        self.bins.last().map_or(1.0, |bin| bin.end as f64)
    }

    fn join(&mut self) {
        let bins = std::mem::take(&mut self.bins);
        for pair in bins.chunks(2) {
            let last = &pair[pair.len() - 1];
            let mut joined = last.clone();
            if let [first, _] = pair {
                let both = joined.searches.iter_mut().zip(&first.searches);
                both.for_each(|(sum, more)| *sum = sum.join(*more));
                joined.sizes = first.sizes.join(last.sizes);
            }
            self.bins.push(joined);
        }
        self.calls_per_bin *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joining_keeps_every_search() {
        let mut series = Series::new(2);
        for call in 1..=10_001_u64 {
            let hops = [call as usize % 7, 1];
            let hops: &[usize] = if call % 2 == 0 { &hops } else { &[] };
            let live = Sizes { live: call as usize, ..Sizes::default() };
            let free_below_top = call as usize % 5000;
            series.tick(call, hops, live, || Sizes {
                holes: call as usize,
                top: free_below_top,
                ..Sizes::default()
            });
        }
        assert!(series.widest.0 >= 4990 && series.widest.0 as u64 == series.widest.1 % 5000);
        series.finish(Sizes { holes: 10_001, ..Sizes::default() });
        assert!((BINS..2 * BINS).contains(&series.bins.len()));
        let all = series.bins.iter().map(|bin| bin.searches[0]).fold(Searches::default(), Searches::join);
        let hops: u64 = (1..=5_000).map(|half| 2 * half % 7).sum();
        assert_eq!(all, Searches { count: 5_000, hops, most: 6 });
        let at_end = |bin: &Bin| (bin.sizes.live, bin.sizes.holes) == (bin.end as usize, bin.end as usize);
        assert!(series.bins.iter().all(at_end));
        assert_eq!(series.bins.last().map(|bin| bin.end), Some(10_001));
    }
}
