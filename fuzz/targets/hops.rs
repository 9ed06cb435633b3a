//! Searches for programs with long searches: libFuzzer keeps an input that takes more hops than any before, as it keeps
//! one that reaches new code.

#![no_main]

use libfuzzer_sys::fuzz_target;
use smalloc::{Heap, Indexed};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, Ordering};

/// No search takes more hops.
const MOST: usize = 400;
/// Each byte of the input stands for so many calls of its kind: a long program in a short input.
const BURST: usize = 64;

/// libFuzzer reads these counters in addition to its own. There is one for each power of two that a program's sum of
/// hops reaches, and one for each eight hops of its longest search.
#[used]
#[unsafe(link_section = "__libfuzzer_extra_counters")]
static COUNTERS: [AtomicU8; 128] = [const { AtomicU8::new(0) }; 128];

/// The heap, its live blocks, and the hops of its searches.
struct Player {
    heap: Heap<Indexed>,
    live: Vec<NonNull<u8>>,
    random: u64,
    sum: usize,
    longest: usize,
}

impl Player {
    fn below(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.random >> 33) as usize % limit
    }

    fn take(&mut self, layout: Layout) {
        let (block, status) = self.heap.smalloc(layout);
        self.live.extend(block);
        self.sum += status.hops;
        self.longest = self.longest.max(status.hops);
        assert!(status.hops <= MOST, "{status:?} for {layout:?}");
    }

    fn give(&mut self, index: usize) {
        let block = self.live.swap_remove(index);
        // SAFETY: the block is live.
        unsafe { self.heap.sfree(block) };
    }

    /// The calls of a byte: two bits are the kind, the others select one of 64 layouts, or a set of blocks.
    fn play(&mut self, byte: u8) {
        let (kind, value) = (byte >> 6, usize::from(byte & 63));
        for turn in 0..BURST {
            match kind {
                0 | 1 => self.take(layout(value)),
                // Every so many of the blocks, or random ones.
                2 if !self.live.is_empty() => self.give((turn * value) % self.live.len()),
                3 if !self.live.is_empty() => {
                    let index = self.below(self.live.len());
                    self.give(index);
                    self.take(layout(value));
                }
                _ => {}
            }
        }
    }
}

/// Sizes around powers of two and three, every fourth one aligned.
fn layout(value: usize) -> Layout {
    let granules = [1, 2, 3, 4, 5, 31, 47, 48, 63, 64, 65, 94, 95, 127, 188, 189];
    let align = [1, 32, 64, 4096][value / 16];
    Layout::from_size_align(16 * granules[value % 16], align).expect("a power of two")
}

fuzz_target!(|bytes: &[u8]| {
    let heap = Heap::with_region_size(1 << 30).expect("addresses are free");
    let mut player = Player { heap, live: Vec::new(), random: 1, sum: 0, longest: 0 };
    bytes.iter().for_each(|&byte| player.play(byte));
    player.heap.check().expect("the heap is sound");
    let (sums, longest) = COUNTERS.split_at(64);
    sums[player.sum.checked_ilog2().unwrap_or(0) as usize].store(1, Ordering::Relaxed);
    longest[(player.longest / 8).min(63)].store(1, Ordering::Relaxed);
});
