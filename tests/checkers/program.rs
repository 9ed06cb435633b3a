//! The program for the checkers: `clean` has no fault, every other argument names a fault.

use smalloc::{Cached, FreeList, Heap, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::HashMap;
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::{Barrier, OnceLock};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(1 << 24);
static CACHED: Cached = Cached::with_region_size(1 << 24);
static SEVERAL: SmallocGlobal<Indexed, 3> = SmallocGlobal::with_region_size(1 << 24);

fn main() {
    let name = std::env::args().nth(1).expect("an argument");
    match name.as_str() {
        "clean" => clean(),
        "read_after_free" => read_after_free(&HEAP, 240),
        // The linked list has its links there.
        "read_after_free_linked" => read_after_free(&LINKED, 0),
        "write_after_free" => write_after_free(),
        "read_after_move" => read_after_move(),
        "read_after_shrink" => read_after_shrink(),
        "past_the_end" => past_the_end(),
        "in_the_wilderness" => in_the_wilderness(),
        "leak" => drop(black_box(Box::leak(Box::new([7_u8; 321])).as_ptr().addr())),
        // On the stack of a thread that has ended, so that no pointer is left there.
        "leak_of_malloc" => thread::spawn(|| drop(memory_of_malloc())).join().expect("it does not panic"),
        "race" => race(),
        _ => panic!("no such thing to do: {name}"),
    }
    println!("done");
}

unsafe extern "C" {
    fn malloc(size: usize) -> *mut u8;
}

/// Memory of the C library, to which only the box refers.
#[inline(never)]
fn memory_of_malloc() -> Box<[usize; 3]> {
    // SAFETY: the call has no precondition.
    black_box(Box::new([(); 3].map(|()| unsafe { malloc(1234) }.expose_provenance())))
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

fn block(heap: &impl GlobalAlloc, size: usize) -> *mut u8 {
    // SAFETY: the layout is not empty.
    let block = black_box(unsafe { heap.alloc(layout(size)) });
    // SAFETY: the block has so many bytes.
    unsafe { block.write_bytes(1, size) };
    block
}

fn read(place: *const u8) {
    // SAFETY: none; this is the fault to be found.
    black_box(unsafe { place.read_volatile() });
}

fn read_after_free(heap: &impl GlobalAlloc, offset: usize) {
    let [freed, _above] = [block(heap, 480), block(heap, 480)];
    // SAFETY: the block is in use.
    unsafe { heap.dealloc(freed, layout(480)) };
    read(freed.wrapping_add(offset));
}

fn write_after_free() {
    let mut numbers = black_box(vec![1_u64; 100]);
    let place = &raw mut numbers[50];
    drop(numbers);
    // SAFETY: none; this is the fault to be found.
    unsafe { place.write_volatile(2) };
}

fn read_after_move() {
    let [old, _above] = [block(&HEAP, 480), block(&HEAP, 480)];
    // SAFETY: the block is in use.
    let new = black_box(unsafe { HEAP.realloc(old, layout(480), 4800) });
    assert_ne!(old, new);
    read(old.wrapping_add(240));
}

fn read_after_shrink() {
    let block = block(&HEAP, 480);
    // SAFETY: the block is in use.
    assert_eq!(unsafe { HEAP.realloc(block, layout(480), 48) }, block);
    read(block.wrapping_add(47));
    read(block.wrapping_add(48));
}

/// One byte past the end, in the same granule as the last byte of the block.
fn past_the_end() {
    read(block(&HEAP, 41).wrapping_add(41));
}

fn in_the_wilderness() {
    read(block(&HEAP, 48).wrapping_add(10_000));
}

/// Two threads write a number that nothing protects.
fn race() {
    static mut NUMBER: u64 = 0;
    // A block that two threads allocate one after the other is properly ordered; these write at the same time.
    let start = &Barrier::new(2);
    let count = || {
        start.wait();
        for _ in 0..100_000 {
            let number = &raw mut NUMBER;
            // SAFETY: none; this is the fault to be found.
            unsafe { number.write_volatile(number.read_volatile() + 1) };
        }
    };
    thread::scope(|scope| [scope.spawn(count), scope.spawn(count)].map(|thread| thread.join().is_ok()));
}

// ---- nothing wrong ---------------------------------------------------------------------------------------------------

fn clean() {
    static KEPT: OnceLock<Box<[usize; 3]>> = OnceLock::new();
    thread::spawn(|| black_box(KEPT.set(memory_of_malloc())).is_ok()).join().expect("it does not panic");
    let threads: Vec<_> = (0..4_u64).map(|seed| thread::spawn(move || live(seed))).collect();
    let total: usize = threads.into_iter().map(|thread| thread.join().expect("it does not panic")).sum();
    println!("{total}");
    every_call(&HEAP);
    every_call(&LINKED);
    own_heap::<Indexed>();
    own_heap::<Linked>();
    hand_around();
    produce_and_consume();
    HEAP.check().expect("the heap is whole");
    LINKED.check().expect("the heap is whole");
}

/// Threads with different homes write to and free blocks of each other. They synchronise by atomics alone, which the
/// checkers see.
fn hand_around() {
    const SIZE: usize = 200;
    static PLACES: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];
    let work = |number: usize| {
        let (mine, next) = (&PLACES[number], &PLACES[(number + 1) % PLACES.len()]);
        for _ in 0..500 {
            let block = block(&SEVERAL, SIZE).expose_provenance();
            while mine.compare_exchange(0, block, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                thread::yield_now();
            }
            let other = loop {
                match next.swap(0, Ordering::AcqRel) {
                    0 => thread::yield_now(),
                    other => break std::ptr::with_exposed_provenance_mut::<u8>(other),
                }
            };
            // SAFETY: the block is in use, belongs to this thread, and has so many bytes.
            unsafe { other.write_bytes(2, SIZE) };
            // SAFETY: as above.
            unsafe { SEVERAL.dealloc(other, layout(SIZE)) };
        }
    };
    let threads: Vec<_> = (0..PLACES.len()).map(|number| thread::spawn(move || work(number))).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("it does not panic"));
    let stats = SEVERAL.stats();
    assert!(stats.handed_over > 1000 && stats.used_bytes == 0, "{stats}");
    SEVERAL.check().expect("the heap is whole");
}

/// One thread writes to blocks that the other one has written to and freed: they pass through caches and depot.
fn produce_and_consume() {
    const SIZE: usize = 200;
    static PLACE: AtomicUsize = AtomicUsize::new(0);
    let give = |block: *mut u8| {
        // SAFETY: the block is in use, this thread's, and has so many bytes.
        unsafe { block.write_bytes(2, SIZE) };
        // SAFETY: as above.
        unsafe { CACHED.dealloc(block, layout(SIZE)) };
    };
    let consumer = thread::spawn(move || {
        for _ in 0..3000 {
            loop {
                match PLACE.swap(0, Ordering::Acquire) {
                    0 => thread::yield_now(),
                    other => break give(std::ptr::with_exposed_provenance_mut(other)),
                }
            }
        }
    });
    for _ in 0..3000 {
        let block = block(&CACHED, SIZE).expose_provenance();
        while PLACE.compare_exchange(0, block, Ordering::Release, Ordering::Relaxed).is_err() {
            thread::yield_now();
        }
        // Somebody else's cache is emptied now and then.
        if block % 1024 == 0 {
            CACHED.trim();
        }
    }
    consumer.join().expect("it does not panic");
    CACHED.trim();
    let stats = CACHED.stats();
    assert!(stats.used_bytes == 0, "{stats}");
    CACHED.check().expect("the heap is whole");
}

/// Collections that grow, move and shrink, and strings that other threads free.
fn live(seed: u64) -> usize {
    let mut words: HashMap<u64, String> = HashMap::new();
    for step in 0..2000_u64 {
        let key = (step * 2_654_435_761 + seed) % 301;
        let word = words.entry(key).or_default();
        word.push_str(&format!("{step:x}"));
        if step % 5 == 0 {
            word.shrink_to_fit();
        }
        if step % 3 == 0 {
            let old = words.remove(&(key / 2));
            thread::Builder::new().spawn(move || drop(old)).expect("a thread").join().expect("no panic");
        }
    }
    words.values().map(String::len).sum()
}

fn every_call<L: FreeList>(heap: &SmallocGlobal<L>) {
    let mut blocks: Vec<(*mut u8, usize)> = Vec::new();
    for step in 1..=3000_usize {
        let size = 1 + step * 7919 % 700;
        let at = step * 31 % (blocks.len() + 1);
        match step % 5 {
            0 | 1 => blocks.push((block(heap, size), size)),
            2 => {
                // SAFETY: the layout is not empty.
                let zeroed = unsafe { heap.alloc_zeroed(layout(size)) };
                // SAFETY: the block has so many bytes.
                let bytes = unsafe { std::slice::from_raw_parts(zeroed, size) };
                assert!(bytes.iter().all(|&byte| byte == 0));
                blocks.push((zeroed, size));
            }
            3 if at < blocks.len() => {
                let (old, old_size) = blocks[at];
                // SAFETY: the block is in use and has this layout.
                let new = unsafe { heap.realloc(old, layout(old_size), size) };
                // SAFETY: the block has so many bytes.
                unsafe { new.write_bytes(3, size) };
                blocks[at] = (new, size);
            }
            _ if at < blocks.len() => {
                let (block, size) = blocks.swap_remove(at);
                if step % 2 == 0 {
                    // SAFETY: the block is in use and has this layout.
                    unsafe { heap.dealloc(block, layout(size)) };
                } else {
                    // SAFETY: as above.
                    unsafe { heap.sfree(NonNull::new(block).expect("a block")) };
                }
            }
            _ => {}
        }
    }
    for (block, size) in blocks {
        // SAFETY: as above.
        unsafe { heap.dealloc(block, layout(size)) };
    }
}

/// The second region is mapped where the first one was, and neither heap frees its blocks.
fn own_heap<L: FreeList>() {
    for _ in 0..2 {
        let mut heap = Heap::<L>::with_region_size(1 << 23).expect("there is room");
        let aligned = heap.alloc(Layout::from_size_align(100, 256).expect("a layout"));
        // SAFETY: the block has so many bytes.
        unsafe { aligned.write_bytes(1, 100) };
        let zeroed = heap.alloc_zeroed(layout(100));
        // SAFETY: as above.
        assert_eq!(unsafe { zeroed.read() }, 0);
        // SAFETY: the block is in use and has this layout.
        let larger = unsafe { heap.realloc(zeroed, layout(100), 1000) };
        // SAFETY: as above.
        unsafe { larger.write_bytes(2, 1000) };
        let large = heap.alloc(layout(1 << 20));
        // SAFETY: as above.
        unsafe { large.write_bytes(3, 1 << 20) };
        let (block, _) = heap.smalloc(layout(30));
        // A larger block would move with its pages, which checkers do not see.
        // SAFETY: the block is in use and has this layout.
        let moved = unsafe { heap.realloc(large, layout(1 << 20), 2 << 20) };
        // SAFETY: as above.
        assert!(moved != large && unsafe { moved.add((1 << 20) - 1).read() } == 3);
        // SAFETY: as above.
        unsafe { heap.sfree(block.expect("there is room")) };
        // SAFETY: as above.
        unsafe { heap.dealloc(aligned, Layout::from_size_align(100, 256).expect("a layout")) };
        heap.check().expect("the heap is whole");
    }
}
