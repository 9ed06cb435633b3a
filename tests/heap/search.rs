//! The cost of a search, counted and not timed: the linked list steps over every hole, the index does not.

use crate::MIB;
use smalloc::{FreeList, Heap, Indexed, Linked, MallocStatus};
use std::alloc::Layout;
use std::ptr::NonNull;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).unwrap()
}

fn heap<L: FreeList>(region: usize) -> Heap<L> {
    Heap::with_region_size(region).expect("a region of some mebibytes can be mapped")
}

fn take<L: FreeList>(heap: &mut Heap<L>, size: usize) -> (NonNull<u8>, MallocStatus) {
    let (start, status) = heap.smalloc(layout(size));
    (start.expect("there is room"), status)
}

fn give<L: FreeList>(heap: &mut Heap<L>, start: NonNull<u8>) {
    // SAFETY: every caller frees each of its live blocks once.
    unsafe { heap.sfree(start) };
}

/// `blocks` blocks of 32 bytes, every other one freed: only holes that are too small for 48 bytes.
///
/// They are freed from above, since the linked list searches each one's place from its head.
fn swiss_cheese<L: FreeList>(blocks: usize) -> Heap<L> {
    let mut heap = heap::<L>(blocks * 32 + MIB);
    let all: Vec<_> = (0..blocks).map(|_| take(&mut heap, 32).0).collect();
    for &start in all.iter().rev().skip(1).step_by(2) {
        give(&mut heap, start);
    }
    assert_eq!(heap.stats().free_segments, blocks / 2 + 1);
    heap
}

#[test]
fn linked_steps_over_all_of_a_swiss_cheese() {
    for blocks in [1 << 8, 1 << 12, 1 << 16] {
        let mut heap = swiss_cheese::<Linked>(blocks);
        for again in 0..2 {
            let (_, status) = take(&mut heap, 48);
            assert_eq!((status.hops, status.stepped, status.probes), (blocks / 2, blocks / 2, 0));
            assert_eq!(status.payload_offset, Some(blocks * 32 + again * 48));
        }
        let (_, status) = take(&mut heap, 32);
        assert_eq!((status.hops, status.payload_offset), (0, Some(0)));
    }
}

#[test]
fn indexed_looks_at_nothing_of_a_swiss_cheese() {
    for blocks in [1 << 8, 1 << 12, 1 << 16, 1 << 18] {
        let mut heap = swiss_cheese::<Indexed>(blocks);
        for again in 0..2 {
            let (_, status) = take(&mut heap, 48);
            assert!(status.hops <= FEW, "{status:?} among {blocks} blocks");
            assert_eq!(status.payload_offset, Some(blocks * 32 + again * 48));
        }
        let (_, status) = take(&mut heap, 32);
        assert_eq!((status.hops, status.payload_offset), (0, Some(0)));
    }
}

/// The most hops of a search in the tests below, however many holes there are: up the tree from one chunk and down to
/// another.
const FEW: usize = 12;

/// One large hole in the middle of many small ones is found without a look at the small ones in front of it.
#[test]
fn one_hole_among_many() {
    for blocks in [1 << 8, 1 << 12, 1 << 16, 1 << 18] {
        let mut heap = heap::<Indexed>(blocks * 32 + MIB);
        let all: Vec<_> = (0..blocks).map(|_| take(&mut heap, 32).0).collect();
        all.iter().step_by(2).for_each(|&start| give(&mut heap, start));
        for middle in [blocks - 3, blocks / 2 + 1, 1] {
            give(&mut heap, all[middle]);
            let (start, status) = take(&mut heap, 48);
            assert!(status.hops <= FEW, "{status:?} among {blocks} blocks");
            assert_eq!(status.payload_offset, Some((middle - 1) * 32));
            give(&mut heap, start);
        }
    }
}

/// The next hole that fits is at the other end, so the search passes over everything between.
#[test]
fn two_holes_far_apart() {
    for blocks in [1 << 8, 1 << 12, 1 << 16, 1 << 18] {
        let mut heap = heap::<Indexed>(blocks * 32 + MIB);
        let all: Vec<_> = (0..blocks).map(|_| take(&mut heap, 32).0).collect();
        all.iter().step_by(2).for_each(|&start| give(&mut heap, start));
        for wide in [blocks - 3, 1] {
            give(&mut heap, all[wide]);
        }
        for offset in [0, (blocks - 4) * 32, blocks * 32] {
            let (_, status) = take(&mut heap, 96);
            assert!(status.hops <= FEW, "{status:?} among {blocks} blocks");
            assert_eq!(status.payload_offset, Some(offset));
        }
    }
}

/// Numbers that are the same on every run (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % limit
    }

    /// Sizes as programs request them: half of them below 100 bytes, a few up to 16 KiB.
    fn size(&mut self) -> usize {
        let largest = 32 << self.below(10);
        1 + self.below(largest)
    }
}

/// Mean and largest hops of random replacements among `live` blocks.
fn random_replacements<L: FreeList>(live: usize, replacements: usize) -> (f64, usize) {
    let mut heap = heap::<L>(live * 4096 + MIB);
    let mut numbers = Numbers(0x2545_F491_4F6C_DD1D);
    let mut blocks: Vec<_> = (0..live).map(|_| take(&mut heap, numbers.size()).0).collect();
    let (mut sum, mut most) = (0, 0);
    for _ in 0..replacements {
        let index = numbers.below(live);
        give(&mut heap, blocks[index]);
        let (start, status) = take(&mut heap, numbers.size());
        blocks[index] = start;
        sum += status.hops;
        most = most.max(status.hops);
    }
    heap.check().expect("the heap is sound");
    (sum as f64 / replacements as f64, most)
}

/// The linked list shows that the sizes are hard; the hops of the index hardly depend on the number of blocks.
#[test]
fn random_sizes() {
    let (linked, _) = random_replacements::<Linked>(2_000, 4_000);
    assert!(linked > 100.0, "{linked} hops on average");
    for live in [500, 2_000, 8_000, 32_000] {
        let (mean, most) = random_replacements::<Indexed>(live, 4 * live);
        assert!(mean < 10.0 && most < 250, "{mean} hops on average, {most} at most among {live} blocks");
    }
}

/// Growing in place takes holes without a search, which leaves every bound above them too high. The next search may
/// have to correct them all, but each only once: all searches together take at most a few hops a call.
#[test]
fn stale_bounds_are_paid_once() {
    let pairs = 20_000;
    let mut heap = heap::<Indexed>(pairs * 1024 + MIB);
    let mut blocks = Vec::new();
    let mut holes = Vec::new();
    // In each chunk a block, a hole behind it, and a block in use.
    for _ in 0..pairs {
        blocks.push(take(&mut heap, 64).0);
        holes.push(take(&mut heap, 64).0);
        take(&mut heap, 896);
    }
    holes.into_iter().rev().for_each(|hole| give(&mut heap, hole));
    for &block in &blocks {
        // SAFETY: the block is live and has this layout.
        let grown = unsafe { heap.realloc(block.as_ptr(), layout(64), 128) };
        assert_eq!(grown, block.as_ptr());
    }
    for place in [0, 64] {
        let (_, status) = take(&mut heap, 64);
        assert_eq!(status.payload_offset, Some(pairs * 1024 + place));
    }
    let hops = heap.stats().hops;
    assert!(hops.sum() <= 3 * hops.count(), "{} hops in {} searches", hops.sum(), hops.count());
    let (_, status) = take(&mut heap, 64);
    assert!(status.hops <= FEW, "{status:?}");
}

/// Requests of more than a group of the index, among pairs of holes that are too small for them, together or alone.
#[test]
fn many_small_holes_are_not_taken_for_a_large_one() {
    for (first, n) in [(31, 97), (31, 99), (31, 111), (53, 83), (56, 73), (5, 127)] {
        let sizes = [127, 1, first, 1].map(|granules| 16 * granules);
        let mut heap = heap::<Indexed>(8 * MIB);
        let blocks: Vec<_> =
            (0..2_000).map(|_| (take(&mut heap, sizes[0]).0, take(&mut heap, sizes[1]))).collect();
        for &(block, _) in blocks.iter().rev() {
            give(&mut heap, block);
            let front = take(&mut heap, sizes[2]).0;
            assert_eq!(front, block);
            take(&mut heap, sizes[3]);
            give(&mut heap, front);
        }
        // The first request corrects the groups, the second one the tree above them.
        let [.., third, fourth] = [(); 4].map(|()| take(&mut heap, 16 * n).1.hops);
        assert!(third <= FEW && fourth <= FEW, "{third} and {fourth} hops for {n} beside {first}");
    }
}

/// A heap with so many groups of these granules, of which the first block of each was then freed. Returns the groups.
fn groups<const N: usize>(all: &[(usize, [usize; N])]) -> (Heap<Indexed>, Vec<[NonNull<u8>; N]>) {
    let mut heap = heap(8 * MIB);
    let sizes = all.iter().flat_map(|&(count, granules)| std::iter::repeat_n(granules, count));
    let groups: Vec<_> = sizes.map(|sizes| sizes.map(|granules| take(&mut heap, 16 * granules).0)).collect();
    groups.iter().rev().for_each(|&group| give(&mut heap, group[0]));
    (heap, groups)
}

/// A large hole that is almost large enough is never looked at, however many there are.
#[test]
fn near_misses_are_not_looked_at() {
    const HOLES: usize = 1_000;
    for granules in [64, 65, 200, 400] {
        let (mut heap, groups) = groups(&[(HOLES, [granules, 1, 1]), (10, [granules + 1, 1, 1])]);
        let (start, status) = take(&mut heap, 16 * (granules + 1));
        assert!(start == groups[HOLES][0] && status.hops <= FEW, "{status:?}");

        // A hole that appears above is found like the existing ones.
        give(&mut heap, start);
        assert_eq!(take(&mut heap, 16 * (granules + 1)).0, start);
        // A hole below that has grown until it fits is found too, and then the next one.
        for &[block, second, ..] in [&groups[HOLES / 2], &groups[HOLES / 3]] {
            give(&mut heap, second);
            let (start, status) = take(&mut heap, 16 * (granules + 1));
            assert!(start == block && status.hops <= FEW, "{status:?}");
            give(&mut heap, start);
            assert_eq!(heap.check(), Ok(()));
        }
        let lowest = [(); 2].map(|()| take(&mut heap, 16 * (granules + 1)).0);
        assert_eq!(lowest, [groups[HOLES / 3][0], groups[HOLES / 2][0]]);
    }
}

/// The lowest level of the index only says of holes of 1 MiB or more that they are so long. They are told apart all the
/// same.
#[test]
fn the_largest_holes_are_told_apart_too() {
    const HOLES: usize = 20;
    let mut heap = heap::<Indexed>(HOLES * 8 * MIB);
    let large = |heap: &mut Heap<Indexed>, size| {
        let block = take(heap, size).0;
        take(heap, 16);
        block
    };
    // Smaller holes between the large ones, and above all of them one that fits.
    let blocks: Vec<_> = (0..HOLES).flat_map(|_| [5 * MIB, MIB]).map(|size| large(&mut heap, size)).collect();
    let fitting = large(&mut heap, 6 * MIB);
    blocks.into_iter().chain([fitting]).for_each(|block| give(&mut heap, block));
    let (start, status) = take(&mut heap, 6 * MIB);
    assert!(start == fitting && status.hops <= FEW, "{status:?}");
    let (_, status) = take(&mut heap, 3 * MIB);
    assert!(status.hops <= FEW, "{status:?}");
}
