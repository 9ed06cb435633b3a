//! Measuring what a piece of code does to the heap.

use super::SmallocGlobal;
use crate::free_list::FreeList;
use crate::inspect::{Measured, Stats};

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Runs `work` and returns its result with what happened in the heap meanwhile, including the peak.
    ///
    /// Calls of other threads count too, and the peaks of several regions are added up. Measurements may be nested and
    /// may overlap. With more than 16 at a time, some may report a peak from before they began.
    ///
    /// ```
    /// # use smalloc::SmallocGlobal;
    /// #[global_allocator]
    /// static HEAP: SmallocGlobal = SmallocGlobal::new();
    ///
    /// let (sorted, measured) = HEAP.measure(|| {
    ///     let mut words: Vec<String> = "the quick brown fox".split(' ').map(str::to_owned).collect();
    ///     words.sort();
    ///     words.join(" ")
    /// });
    /// assert_eq!(sorted, "brown fox quick the");
    /// assert_eq!(measured.delta.live_segments, 1); // the result; the words are gone
    /// assert!(measured.peak_growth() > measured.delta.used_bytes as usize);
    /// println!("{measured}");
    /// ```
    pub fn measure<R>(&self, work: impl FnOnce() -> R) -> (R, Measured) {
        let mut heaps = self.lock_all();
        let indices = heaps.each_mut().map(|heap| heap.peaks().begin());
        let mut measuring = Measuring { global: self, indices, ended: false };
        let before = self.stats_of(&heaps);
        drop(heaps);
        let result = work();
        (result, measuring.end(&before))
    }

    /// Restarts [`Stats::peak_used_bytes`] and [`Stats::peak_top`] from their current values.
    pub fn reset_peaks(&self) {
        self.lock_all().iter_mut().for_each(|heap| heap.peaks().reset());
    }
}

/// A running measurement. Dropping it ends it, so that a panic leaves none behind.
struct Measuring<'a, L: FreeList, const REGIONS: usize> {
    global: &'a SmallocGlobal<L, REGIONS>,
    /// Its index in every region's peaks.
    indices: [usize; REGIONS],
    ended: bool,
}

impl<L: FreeList, const REGIONS: usize> Measuring<'_, L, REGIONS> {
    fn end(&mut self, before: &Stats) -> Measured {
        let mut heaps = self.global.lock_all();
        self.ended = true;
        let (mut peak_used_bytes, mut peak_top) = (0_usize, 0_usize);
        for (heap, &index) in heaps.iter_mut().zip(&self.indices) {
            let peak = heap.peaks().end(index);
            peak_used_bytes = peak_used_bytes.wrapping_add(peak.used_bytes());
            peak_top = peak_top.wrapping_add(peak.top_bytes());
        }
        let delta = self.global.stats_of(&heaps).since(before);
        Measured { delta, used_bytes_before: before.used_bytes, peak_used_bytes, peak_top }
    }
}

impl<L: FreeList, const REGIONS: usize> Drop for Measuring<'_, L, REGIONS> {
    fn drop(&mut self) {
        if !self.ended {
            for (heap, &index) in self.global.lock_all().iter_mut().zip(&self.indices) {
                let _peak = heap.peaks().end(index);
            }
        }
    }
}
