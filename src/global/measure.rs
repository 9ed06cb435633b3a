//! What a piece of a program does to the heap.

use super::SmallocGlobal;
use crate::free_list::FreeList;
use crate::inspect::{Measured, Stats};

impl<L: FreeList, const REGIONS: usize> SmallocGlobal<L, REGIONS> {
    /// Runs `work`, and says what happened in the heap meanwhile, its peak included.
    ///
    /// What other threads do in that time counts too, and the peaks of several regions are added up. Measurements may be nested and may overlap; of more than 16 at a
    /// time, some may be told a peak from before they began.
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
        let numbers = heaps.each_mut().map(|heap| heap.peaks().begin());
        let mut open = Open { global: self, numbers, ended: false };
        let before = self.stats_of(&heaps);
        drop(heaps);
        let result = work();
        (result, open.end(&before))
    }

    /// Lets [`Stats::peak_used_bytes`] and [`Stats::peak_top`] begin anew, from what they are now.
    pub fn reset_peaks(&self) {
        self.lock_all().iter_mut().for_each(|heap| heap.peaks().reset());
    }
}

/// A measurement that has begun. It ends when it is dropped, so that a panic leaves none behind.
struct Open<'a, L: FreeList, const REGIONS: usize> {
    global: &'a SmallocGlobal<L, REGIONS>,
    /// Its number in every region.
    numbers: [usize; REGIONS],
    ended: bool,
}

impl<L: FreeList, const REGIONS: usize> Open<'_, L, REGIONS> {
    fn end(&mut self, before: &Stats) -> Measured {
        let mut heaps = self.global.lock_all();
        self.ended = true;
        let (mut peak_used_bytes, mut peak_top) = (0_usize, 0_usize);
        for (heap, &number) in heaps.iter_mut().zip(&self.numbers) {
            let peak = heap.peaks().end(number);
            peak_used_bytes = peak_used_bytes.wrapping_add(peak.used_bytes());
            peak_top = peak_top.wrapping_add(peak.top_bytes());
        }
        let delta = self.global.stats_of(&heaps).since(before);
        Measured { delta, used_bytes_before: before.used_bytes, peak_used_bytes, peak_top }
    }
}

impl<L: FreeList, const REGIONS: usize> Drop for Open<'_, L, REGIONS> {
    fn drop(&mut self) {
        if !self.ended {
            for (heap, &number) in self.global.lock_all().iter_mut().zip(&self.numbers) {
                let _peak = heap.peaks().end(number);
            }
        }
    }
}
