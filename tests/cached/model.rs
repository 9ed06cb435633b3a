//! Threads that allocate, resize, exchange and free at random: no two payloads overlap, and contents are kept.

use crate::{assert_all_free, layout};
use rand::{Rng, RngExt, SeedableRng, rngs::SmallRng};
use smalloc::{Cached, FreeList, Indexed, Linked};
use std::alloc::{GlobalAlloc, Layout};
use std::sync::Mutex;
use std::thread;

/// A payload full of one byte, which is checked before it is freed.
struct Block {
    address: usize,
    layout: Layout,
    byte: u8,
}

impl Block {
    fn new(heap: &impl GlobalAlloc, random: &mut SmallRng) -> Option<Self> {
        let size = match random.random_range(0..20) {
            0 => random.random_range(1..20_000),
            1..5 => random.random_range(1..2000),
            _ => random.random_range(1..200),
        };
        let align = if random.random_range(0..10) == 0 { 1 << random.random_range(5..9) } else { 8 };
        let (layout, byte) = (layout(size, align), random.next_u32() as u8);
        let zeroed = random.random_range(0..8) == 0;
        // SAFETY: the layout is not empty.
        let payload = unsafe { if zeroed { heap.alloc_zeroed(layout) } else { heap.alloc(layout) } };
        if payload.is_null() {
            return None;
        }
        assert_eq!(payload.addr() % align, 0);
        let block = Self { address: payload.expose_provenance(), layout, byte };
        if zeroed {
            block.assert_filled(size, 0);
        }
        block.fill();
        Some(block)
    }

    fn payload(&self) -> *mut u8 {
        std::ptr::with_exposed_provenance_mut(self.address)
    }

    fn fill(&self) {
        // SAFETY: the payload is live and this block's.
        unsafe { self.payload().write_bytes(self.byte, self.layout.size()) };
    }

    fn assert_filled(&self, size: usize, byte: u8) {
        // SAFETY: the payload is live and this block's.
        let bytes = unsafe { std::slice::from_raw_parts(self.payload(), size) };
        assert!(bytes.iter().all(|&found| found == byte), "{size} bytes at {:#x}", self.address);
    }

    fn resize(&mut self, heap: &impl GlobalAlloc, size: usize) {
        // SAFETY: the payload is live and has this layout.
        let payload = unsafe { heap.realloc(self.payload(), self.layout, size) };
        if !payload.is_null() {
            self.address = payload.expose_provenance();
            self.assert_filled(size.min(self.layout.size()), self.byte);
            self.layout = layout(size, self.layout.align());
            self.fill();
        }
    }

    fn free(self, heap: &impl GlobalAlloc) {
        self.assert_filled(self.layout.size(), self.byte);
        // SAFETY: the payload is live and has this layout.
        unsafe { heap.dealloc(self.payload(), self.layout) };
    }
}

fn work(heap: &impl GlobalAlloc, exchange: &Mutex<Vec<Block>>, seed: u64, steps: usize) {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut blocks: Vec<Block> = Vec::new();
    for _ in 0..steps {
        let any = random.random_range(0..blocks.len().max(1));
        match random.random_range(0..16) {
            0..8 => blocks.extend(Block::new(heap, &mut random)),
            8 if !blocks.is_empty() => blocks[any].resize(heap, random.random_range(1..1500)),
            9 => exchange.lock().unwrap().extend(blocks.pop()),
            10 => blocks.extend(exchange.lock().unwrap().pop()),
            _ if !blocks.is_empty() => blocks.swap_remove(any).free(heap),
            _ => {}
        }
    }
    // The other half goes to threads that come later.
    let rest = blocks.split_off(blocks.len() / 2);
    blocks.into_iter().for_each(|block| block.free(heap));
    exchange.lock().unwrap().extend(rest);
}

/// Three generations of threads, each of which frees what the last one left. Somebody trims and looks meanwhile.
fn exercise<L: FreeList, const REGIONS: usize>(heap: &Cached<L, REGIONS>, steps: usize)
where
    Cached<L, REGIONS>: Sync,
{
    let exchange = Mutex::new(Vec::new());
    for generation in 0..3 {
        thread::scope(|scope| {
            for thread in 0..4 {
                let exchange = &exchange;
                scope.spawn(move || work(heap, exchange, generation * 10 + thread, steps));
            }
            for _ in 0..20 {
                heap.trim();
                assert_eq!(heap.check(), Ok(()));
                thread::yield_now();
            }
        });
    }
    assert!(heap.stats().cache_hits > 1000, "{}", heap.stats());
    exchange.into_inner().unwrap().into_iter().for_each(|block| block.free(heap));
    assert_all_free(heap);
}

#[test]
fn threads_share_an_indexed_heap() {
    static HEAP: Cached = Cached::with_region_size(64 << 20);
    exercise(&HEAP, 20_000);
}

#[test]
fn threads_share_a_linked_heap() {
    static HEAP: Cached<Linked> = Cached::with_region_size(64 << 20);
    exercise(&HEAP, 4000);
}

#[test]
fn threads_share_several_regions() {
    static HEAP: Cached<Indexed, 3> = Cached::with_region_size(32 << 20);
    exercise(&HEAP, 10_000);
}

/// A heap that is nearly full all the time.
#[test]
fn threads_share_a_full_heap() {
    static HEAP: Cached = Cached::with_region_size(256 << 10);
    exercise(&HEAP, 10_000);
    assert!(HEAP.stats().failures > 0);
}

/// A heap in a box, which may move: its threads leave their caches to others.
#[test]
fn threads_share_a_heap_that_moves() {
    let heap = Box::new(Cached::<Indexed>::with_region_size(64 << 20));
    exercise(&*heap, 4000);
    let moved = *heap;
    exercise(&moved, 4000);
}

/// The same calls of one thread give the same places.
#[test]
fn placement_is_a_function_of_the_calls() {
    static HEAPS: [Cached; 2] = [const { Cached::with_region_size(16 << 20) }; 2];
    let places = HEAPS.each_ref().map(|heap| {
        let run = move || {
            let mut random = SmallRng::seed_from_u64(1);
            let mut live: Vec<(usize, usize)> = Vec::new();
            let mut places: Vec<usize> = vec![crate::take(heap, 16).expose_provenance()];
            for _ in 0..50_000 {
                if live.len() > 500 || (random.random() && !live.is_empty()) {
                    let (payload, size) = live.swap_remove(random.random_range(0..live.len()));
                    crate::give_many(heap, &[payload], size);
                } else {
                    let size = random.random_range(1..1200);
                    let payload = crate::take(heap, size).expose_provenance();
                    places.push(payload.wrapping_sub(*places.first().unwrap_or(&payload)));
                    live.push((payload, size));
                }
            }
            live.iter().for_each(|&(payload, size)| crate::give_many(heap, &[payload], size));
            places.split_off(1)
        };
        thread::spawn(run).join().unwrap()
    });
    assert!(places[0] == places[1]);
}
