//! What a piece of a program does to the heap.

use super::{Heap, SmallocGlobal};
use crate::free_list::FreeList;
use crate::inspect::{Measured, Stats};
use crate::lock::Guard;

impl<L: FreeList> SmallocGlobal<L> {
    /// Runs `work`, and says what happened in the heap meanwhile, its peak included.
    ///
    /// What other threads do in that time counts too. Measurements may be nested and may overlap; of more than 16 at a
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
        let mut heap = self.heap.lock();
        let mut open = Open { global: self, number: heap.peaks().begin(), ended: false };
        let before = self.stats_of(&heap);
        drop(heap);
        let result = work();
        (result, open.end(&before))
    }

    /// Lets [`Stats::peak_used_bytes`] and [`Stats::peak_top`] begin anew, from what they are now.
    pub fn reset_peaks(&self) {
        self.heap.lock().peaks().reset();
    }
}

/// A measurement that has begun. It ends when it is dropped, so that a panic leaves none behind.
struct Open<'a, L: FreeList> {
    global: &'a SmallocGlobal<L>,
    number: usize,
    ended: bool,
}

impl<L: FreeList> Open<'_, L> {
    fn end(&mut self, before: &Stats) -> Measured {
        let mut heap: Guard<'_, Heap<L>> = self.global.heap.lock();
        self.ended = true;
        let peak = heap.peaks().end(self.number);
        let delta = self.global.stats_of(&heap).since(before);
        Measured {
            delta,
            used_bytes_before: before.used_bytes,
            peak_used_bytes: peak.used_bytes(),
            peak_top: peak.top_bytes(),
        }
    }
}

impl<L: FreeList> Drop for Open<'_, L> {
    fn drop(&mut self) {
        if !self.ended {
            let _peak = self.global.heap.lock().peaks().end(self.number);
        }
    }
}
