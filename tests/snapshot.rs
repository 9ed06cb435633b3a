//! A snapshot of a million segments, and for how long it holds the lock. The times are printed and not asserted, since
//! they depend on the machine as much as on the code.
//!
//! ```sh
//! cargo test --release --test snapshot -- --nocapture --test-threads=1
//! ```

use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::Layout;
use std::time::Duration;

const SEGMENTS: usize = 1_000_000;

/// Blocks of 16 to 256 bytes, and now and then one of 100 KiB, with `free` of every `of` freed again.
fn fill<L: FreeList>(heap: &SmallocGlobal<L>, free: usize, of: usize) -> Vec<(usize, usize)> {
    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    let mut expected = Vec::new();
    let mut freed = Vec::new();
    while heap.stats().live_segments < SEGMENTS {
        for _ in 0..1000 {
            let size = if random(1000) == 0 { 100 << 10 } else { 16 + 16 * random(16) };
            let layout = Layout::from_size_align(size, 16).expect("a layout");
            let (block, status) = heap.smalloc(layout);
            let offset = status.payload_offset.expect("there is room");
            if expected.len() % of < free {
                freed.extend(block);
            }
            expected.push((offset, size));
        }
    }
    // From the top down: the free list is searched from the bottom, so the place of each freed block is found at once.
    for block in freed.into_iter().rev() {
        // SAFETY: the block is live.
        unsafe { heap.sfree(block) };
    }
    expected
}

fn hold<L: FreeList>(name: &str, free: usize, of: usize) {
    let heap = SmallocGlobal::<L>::with_region_size(2 << 30);
    let blocks = fill(&heap, free, of);
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let snapshot = heap.snapshot().expect("there is memory for a snapshot");
        best = best.min(snapshot.held());
        let stats = snapshot.stats();
        assert_eq!(*stats, heap.stats());
        assert_eq!(snapshot.segments().len(), stats.live_segments + stats.free_segments);
        assert_eq!(snapshot.segments().map(|segment| segment.size).sum::<usize>(), stats.region_size);
        let used: Vec<_> = snapshot.used_segments().map(|segment| (segment.offset, segment.size)).collect();
        let kept = blocks.iter().enumerate().filter(|(number, _)| number % of >= free);
        assert!(kept.map(|(_, &block)| block).eq(used));
    }
    let segments = heap.stats().live_segments + heap.stats().free_segments;
    println!("{name}: {segments} segments copied with the lock held for {best:?} at best of 5");
}

#[test]
fn a_million_segments_and_no_hole() {
    hold::<Indexed>("indexed, no hole", 0, 1);
}

#[test]
fn every_second_segment_is_a_hole() {
    hold::<Indexed>("indexed, every second free", 1, 2);
    hold::<Linked>("linked, every second free", 1, 2);
}

#[test]
fn holes_of_several_blocks() {
    hold::<Indexed>("indexed, 3 of 10 free", 3, 10);
}
