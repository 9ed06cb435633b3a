use crate::Heap;
use crate::region::{CHUNK, GRANULE, Granule};
use crate::segment_map::{HUGE, SHORT};
use core::alloc::Layout;
use std::vec::Vec;

/// Among all pairs of segment bounds and their neighbours, exactly the segments in use that a walk reports are found.
#[test]
fn only_segments_in_use_are_found() {
    let mut heap = Heap::<crate::Indexed>::with_region_size(8 << 20).unwrap();
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |n: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % n as u64) as usize
    };
    let sizes = [1, 3, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 7, HUGE - 1, HUGE, HUGE + CHUNK];
    let mut blocks: Vec<_> = (0..120)
        .map(|_| {
            let n = sizes[below(sizes.len())] + below(2);
            heap.smalloc(Layout::from_size_align(n * GRANULE, 1).unwrap()).0.unwrap()
        })
        .collect();
    for _ in 0..50 {
        // SAFETY: the block is in use and is removed from the list.
        unsafe { heap.sfree(blocks.swap_remove(below(blocks.len()))) };
    }
    assert_eq!(heap.check(), Ok(()));
    let in_use: Vec<_> = heap
        .runs()
        .flatten()
        .filter(|run| run.in_use)
        .map(|run| (run.extent.start, run.extent.end))
        .collect();
    let ends = heap.runs().flatten().flat_map(|run| [run.extent.start.0, run.extent.end.0]);
    let mut places: Vec<_> = ends.flat_map(|at| at.saturating_sub(1)..=at + 1).map(Granule).collect();
    // The granules whose bits hold a huge segment's end.
    let huge = in_use.iter().filter(|(at, to)| to.above(*at) >= HUGE);
    places.extend(huge.flat_map(|(at, _)| (0..CHUNK).map(|bit| Granule((at.chunk() + 2) * CHUNK + bit))));
    places.retain(|&at| at <= heap.top());
    places.sort_unstable();
    places.dedup();
    let mut found = 0;
    for (index, &at) in places.iter().enumerate() {
        let begins = in_use.iter().find(|(start, _)| *start == at);
        let short = heap.tiling.ground.map.short_from(at).map(|short| short.n);
        let expected = begins.map(|(start, end)| end.above(*start)).filter(|&n| n <= SHORT);
        assert_eq!(short, expected.filter(|_| at < heap.top()), "{at:?}");
        let payload = heap.region().pointer(at);
        assert_eq!(heap.usable_size(payload), begins.map(|(start, end)| end.above(*start) * GRANULE));
        for &to in places.iter().skip(index + 1).take_while(|to| to.above(at) < HUGE) {
            let is_one = heap.tiling.ground.map.is_segment(at, to);
            assert_eq!(is_one, in_use.contains(&(at, to)), "{at:?} to {to:?}");
            found += usize::from(is_one);
        }
    }
    assert_eq!(found, in_use.iter().filter(|(at, to)| to.above(*at) < HUGE).count());
}
