//! One program of calls, run on a heap and on the oracle side by side.
//!
//! `run` panics at the first difference. The model test takes its programs from proptest, the fuzz target those that
//! `Program::decode` reads from bytes.

use super::oracle::{Oracle, Placed};
use smalloc::{FreeList, Heap, Stats};
use std::alloc::Layout;
use std::ptr::NonNull;
use std::sync::LazyLock;

/// One call. An index chooses among the live blocks, modulo their number. Without live blocks the call is left out, so
/// that every list of calls is a valid program.
#[derive(Clone, Debug)]
pub enum Op {
    Alloc { size: usize, align: usize },
    AllocZeroed { size: usize, align: usize },
    Realloc { index: usize, size: usize },
    Free { index: usize },
}

/// A region's size and the calls made on it.
#[derive(Clone, Debug)]
pub struct Program {
    pub region_size: usize,
    pub ops: Vec<Op>,
}

impl Program {
    /// Reads a program from any bytes: one for the region, then five for each call.
    pub fn decode(bytes: &[u8]) -> Self {
        let (&region, calls) = bytes.split_first().unwrap_or((&0, &[]));
        let region_size = [64 << 10, 128 << 10, 1 << 20, 8 << 20][usize::from(region % 4)];
        let ops = calls.chunks_exact(5).map(|call| Op::decode(call, region_size)).collect();
        Self { region_size, ops }
    }
}

impl Op {
    /// Kind and alignment, shape of the size, number for the size (two bytes), index.
    fn decode(call: &[u8], region_size: usize) -> Self {
        let number = usize::from(u16::from_le_bytes([call[2], call[3]]));
        let size = match call[1] % 4 {
            0 => number % 256,
            1 => 960 + number % 192,
            2 => number,
            _ => number * (region_size / 2) / usize::from(u16::MAX),
        };
        // Half of the requests need only a granule's alignment. 2 MiB is the alignment of the region itself.
        let power = usize::from(call[0] / 4);
        let align = if power < 32 { 1 << (power % 5) } else { 1 << (power % 22) };
        let index = usize::from(call[4]);
        match call[0] % 4 {
            0 => Self::Alloc { size, align },
            1 => Self::AllocZeroed { size, align },
            2 => Self::Realloc { index, size },
            _ => Self::Free { index },
        }
    }
}

/// Runs `program` on a heap with the free list `L`, compares after every call, and frees all blocks at the end.
pub fn run<L: FreeList>(program: &Program) {
    let heap = Heap::<L>::with_region_size(program.region_size).expect("a small region can be mapped");
    play(program, heap);
}

/// The largest alignment in any program. Two bases of lent heaps differ if they differ modulo this.
pub const LARGEST_ALIGN: usize = 64 << 10;

/// Runs `program` on a heap in lent memory that begins `offset` bytes above a multiple of [`LARGEST_ALIGN`].
#[allow(dead_code, reason = "not every test program lends memory")]
pub fn run_lent<L: FreeList>(program: &Program, offset: usize) {
    let mut memory = vec![0xA5_u8; program.region_size + 2 * LARGEST_ALIGN];
    let skipped = memory.as_ptr().align_offset(LARGEST_ALIGN) + offset;
    let lent = &mut memory[skipped..][..program.region_size];
    let start = NonNull::new(lent.as_mut_ptr()).expect("a slice begins somewhere");
    // SAFETY: the memory belongs to this function, which does not touch it while the heap exists.
    let heap = unsafe { Heap::<L>::from_raw_parts(start, program.region_size) };
    play(program, heap.expect("the memory is large enough"));
}

fn play<L: FreeList>(program: &Program, heap: Heap<L>) {
    let mut session = Session::new(heap);
    for (step, op) in program.ops.iter().enumerate() {
        session.play(op);
        session.compare();
        if step % 16 == 0 {
            session.compare_segments();
        }
    }
    session.compare_segments();
    session.free_all();
}

/// A live block and the expected content of its payload.
struct Block {
    start: NonNull<u8>,
    layout: Layout,
    pattern: &'static [u8],
}

/// A prime, so that the pattern does not repeat at any multiple of a granule or of a page.
const PATTERN_SIZE: usize = 4093;

/// Pseudo-random bytes. Every window of `PATTERN_SIZE` bytes is the pattern of one block.
static NOISE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..2 * PATTERN_SIZE).map(step).collect()
});

impl Block {
    fn payload(&self, size: usize) -> &[u8] {
        // SAFETY: the heap gave the block to this session; it is live, of at least `size` bytes, and was
        // written before it is read.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), size) }
    }

    fn fill(&mut self) {
        // SAFETY: the block is live, has this size, and only this session writes to it.
        let payload = unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) };
        for part in payload.chunks_mut(PATTERN_SIZE) {
            part.copy_from_slice(&self.pattern[..part.len()]);
        }
    }

    fn assert_intact(&self, size: usize) {
        for part in self.payload(size).chunks(PATTERN_SIZE) {
            assert_eq!(part, &self.pattern[..part.len()], "payload of {:?} at {:p}", self.layout, self.start);
        }
    }

    /// Compares the first and the last granule only, which is cheap enough for every block after every call.
    fn assert_ends_intact(&self) {
        let payload = self.payload(self.layout.size());
        let last = (payload.len().saturating_sub(1)) / 16 * 16;
        for begin in [0, last] {
            let in_pattern = begin % PATTERN_SIZE;
            let len = (payload.len() - begin).min(16).min(PATTERN_SIZE - in_pattern);
            let (found, expected) =
                (&payload[begin..begin + len], &self.pattern[in_pattern..in_pattern + len]);
            assert_eq!(found, expected, "payload of {:?} at {:p} + {begin}", self.layout, self.start);
        }
    }
}

struct Session<L: FreeList> {
    heap: Heap<L>,
    oracle: Oracle,
    live: Vec<Block>,
    /// Blocks handed out so far, which choose the pattern of the next one.
    made: usize,
    hops: Hops,
    expected: Counters,
}

/// Free segments stepped over by all searches of the oracle.
#[derive(Default)]
struct Hops {
    successful: u64,
    failed: u64,
}

/// The expected counters of the heap.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counters {
    allocs: u64,
    frees: u64,
    reallocs: u64,
    in_place: u64,
    moved: u64,
    failures: u64,
}

impl<L: FreeList> Session<L> {
    fn new(heap: Heap<L>) -> Self {
        let oracle = Oracle::new(heap.base() as usize, heap.region_size());
        Self { heap, oracle, live: Vec::new(), made: 0, hops: Hops::default(), expected: Counters::default() }
    }

    fn play(&mut self, op: &Op) {
        match *op {
            Op::Alloc { size, align } => self.alloc(Layout::from_size_align(size, align).unwrap()),
            Op::AllocZeroed { size, align } => {
                self.alloc_zeroed(Layout::from_size_align(size, align).unwrap());
            }
            Op::Realloc { .. } | Op::Free { .. } if self.live.is_empty() => {}
            Op::Realloc { index, size } => self.realloc(index % self.live.len(), size.max(1)),
            Op::Free { index } => self.free(index % self.live.len()),
        }
    }

    fn alloc(&mut self, layout: Layout) {
        let placed = self.expect(layout);
        let (start, status) = self.heap.smalloc(layout);
        assert_eq!(status.payload_offset, placed.offset, "offset of {layout:?}");
        assert_eq!(status.success, placed.offset.is_some(), "success of {layout:?}");
        assert_eq!(status.hops, status.stepped + status.probes, "parts of the hops of {layout:?}");
        if L::NAME == "linked" {
            assert_eq!((status.hops, status.probes), (placed.hops, 0), "hops of {layout:?}");
        }
        self.keep(start, layout, placed);
    }

    fn alloc_zeroed(&mut self, layout: Layout) {
        let placed = self.expect(layout);
        let start = NonNull::new(self.heap.alloc_zeroed(layout));
        if let Some(start) = start {
            let block = Block { start, layout, pattern: &[] };
            let dirty = block.payload(layout.size()).iter().position(|&byte| byte != 0);
            assert_eq!(dirty, None, "a byte of zeroed {layout:?} is not zero");
        }
        self.keep(start, layout, placed);
    }

    fn expect(&mut self, layout: Layout) -> Placed {
        let placed = self.oracle.alloc(layout);
        self.count_search(placed);
        self.expected.allocs += u64::from(placed.offset.is_some());
        placed
    }

    fn count_search(&mut self, placed: Placed) {
        match placed.offset {
            Some(_) => self.hops.successful += placed.hops as u64,
            None => {
                self.hops.failed += placed.hops as u64;
                self.expected.failures += 1;
            }
        }
    }

    fn keep(&mut self, start: Option<NonNull<u8>>, layout: Layout, placed: Placed) {
        assert_eq!(start.map(|start| self.offset(start)), placed.offset, "place of {layout:?}");
        let Some(start) = start else { return };
        let mut block = Block { start, layout, pattern: self.next_pattern() };
        block.fill();
        self.live.push(block);
    }

    fn realloc(&mut self, index: usize, new_size: usize) {
        let (start, layout) = (self.live[index].start, self.live[index].layout);
        let offset = self.offset(start);
        let placed = self.oracle.realloc(offset, layout, new_size);
        let expected = placed.map_or(Some(offset), |placed| placed.offset);
        self.expected.reallocs += 1;
        match placed {
            None => self.expected.in_place += 1,
            Some(placed) => {
                self.count_search(placed);
                self.expected.moved += u64::from(placed.offset.is_some());
            }
        }
        self.live[index].assert_intact(layout.size());
        // SAFETY: the block is live, has this layout, and its new size is not zero and far from overflow.
        let moved = NonNull::new(unsafe { self.heap.realloc(start.as_ptr(), layout, new_size) });
        assert_eq!(
            moved.map(|start| self.offset(start)),
            expected,
            "{layout:?} at offset {offset:#x} resized to {new_size}"
        );
        let Some(moved) = moved else { return };
        let pattern = self.next_pattern();
        let block = &mut self.live[index];
        block.start = moved;
        block.layout = Layout::from_size_align(new_size, layout.align()).unwrap();
        block.assert_intact(layout.size().min(new_size));
        block.pattern = pattern;
        block.fill();
    }

    /// Every other block is freed by the call without a layout.
    fn free(&mut self, index: usize) {
        let block = self.live.swap_remove(index);
        block.assert_intact(block.layout.size());
        self.oracle.free(self.offset(block.start));
        self.expected.frees += 1;
        if self.live.len().is_multiple_of(2) {
            // SAFETY: the block is live and has this layout.
            unsafe { self.heap.dealloc(block.start.as_ptr(), block.layout) };
        } else {
            // SAFETY: the block is live.
            unsafe { self.heap.sfree(block.start) };
        }
    }

    fn free_all(mut self) {
        while !self.live.is_empty() {
            // A block at neither end of the list, so that frees come in no order of addresses.
            self.free(self.live.len() * 5 / 8);
            self.compare();
        }
        let region_size = self.heap.region_size();
        assert_eq!(self.oracle.segments(), [(0, region_size, false)]);
        self.compare_segments();
    }

    fn compare(&self) {
        if let Err(corruption) = self.heap.check() {
            panic!("the heap is broken: {corruption}");
        }
        self.live.iter().for_each(Block::assert_ends_intact);
        self.compare_stats(&self.heap.stats());
    }

    fn compare_stats(&self, stats: &Stats) {
        let segments = self.oracle.segments();
        let (used, free): (Vec<_>, Vec<_>) = segments.into_iter().partition(|&(_, _, in_use)| in_use);
        let top = used.last().map_or(0, |&(offset, size, _)| offset + size);
        let holes = free.iter().filter(|&&(offset, ..)| offset < top).map(|&(_, size, _)| size);
        assert_eq!(stats.used_bytes, used.iter().map(|&(_, size, _)| size).sum(), "used bytes");
        assert_eq!(stats.used_bytes + stats.free_bytes, stats.region_size, "used and free bytes");
        assert_eq!(stats.top, top, "top");
        assert_eq!(
            (stats.live_segments, stats.free_segments),
            (used.len(), free.len()),
            "live, free segments"
        );
        assert_eq!(stats.hole_bytes, holes.clone().sum(), "bytes in holes");
        assert_eq!(stats.largest_hole, holes.max().unwrap_or(0), "the largest hole");
        let counted = Counters {
            allocs: stats.allocs,
            frees: stats.frees,
            reallocs: stats.reallocs,
            in_place: stats.reallocs_in_place,
            moved: stats.reallocs_moved,
            failures: stats.failures,
        };
        assert_eq!(counted, self.expected);
        if L::NAME == "linked" {
            assert_eq!(stats.hops.sum(), self.hops.successful, "hops of all searches");
            assert_eq!(stats.failed_hops.sum(), self.hops.failed, "hops of all failed searches");
        }
    }

    fn compare_segments(&self) {
        let snapshot = self.heap.snapshot().expect("a small heap can be copied");
        let segments: Vec<_> = snapshot.segments().map(|s| (s.offset, s.size, s.in_use)).collect();
        assert_eq!(segments, self.oracle.segments());
        self.live.iter().for_each(|block| block.assert_intact(block.layout.size()));
    }

    fn offset(&self, start: NonNull<u8>) -> usize {
        (start.as_ptr() as usize).wrapping_sub(self.heap.base() as usize)
    }

    fn next_pattern(&mut self) -> &'static [u8] {
        self.made += 1;
        let window = self.made * 17 % PATTERN_SIZE;
        &NOISE[window..window + PATTERN_SIZE]
    }
}
