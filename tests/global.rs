//! A program that runs on smalloc: collections, strings, threads and their destructors.

use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hint::black_box;
use std::ptr::NonNull;
use std::sync::mpsc;
use std::thread;

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

/// Not installed: called by its methods, with the other list.
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(64 << 20);
static INDEXED: SmallocGlobal<Indexed> = SmallocGlobal::with_region_size(64 << 20);

/// Conditions for the whole program's heap that hold at any moment, whatever the other tests are doing.
fn assert_sound() {
    HEAP.check().expect("the heap is sound");
    let stats = HEAP.stats();
    assert_eq!(stats.used_bytes + stats.free_bytes, stats.region_size);
    assert!(stats.live_segments > 0 && stats.allocs > stats.frees);
}

#[test]
fn boxes_and_vectors_lie_in_the_heap() {
    let number = Box::new(black_box(42_u64));
    let vector: Vec<usize> = (0..black_box(10_000)).collect();
    let snapshot = HEAP.snapshot().expect("the heap can be copied");
    let starts: Vec<usize> = snapshot.used_segments().map(|segment| segment.offset).collect();
    let (_, status) = HEAP.smalloc(Layout::new::<u64>());
    assert!(status.success);
    let base = base_of(&HEAP);
    for address in [&raw const *number as usize, vector.as_ptr() as usize] {
        assert!(starts.binary_search(&(address - base)).is_ok(), "{address:#x} is a segment");
    }
    assert_eq!((*number, vector.iter().sum::<usize>()), (42, 49_995_000));
}

/// The address of offset 0, from a block whose offset is known.
fn base_of<L: FreeList>(heap: &SmallocGlobal<L>) -> usize {
    let (start, status) = heap.smalloc(Layout::new::<u64>());
    let start = start.expect("there is room");
    let base = start.as_ptr() as usize - status.payload_offset.expect("it succeeded");
    // SAFETY: the block is live.
    unsafe { heap.sfree(start) };
    base
}

#[test]
fn collections_keep_what_they_hold() {
    let mut map = HashMap::new();
    let mut tree = BTreeMap::new();
    for number in 0..20_000_u64 {
        let key = format!("key {}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40);
        *map.entry(key.clone()).or_insert(0) += number;
        *tree.entry(key).or_insert(0) += number;
    }
    map.retain(|_, sum| *sum % 3 != 0);
    tree.retain(|_, sum| *sum % 3 != 0);
    assert!(map.len() > 5_000);
    let mut sorted: Vec<_> = map.into_iter().collect();
    sorted.sort_unstable();
    assert_eq!(sorted, tree.into_iter().collect::<Vec<_>>());
    assert_sound();
}

#[test]
fn vectors_grow_and_shrink() {
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); 50];
    for number in 0..100_000_u32 {
        rows[number as usize * 7 % 50].push(number);
    }
    for row in &mut rows {
        row.retain(|number| number % 2 == 0);
        row.shrink_to_fit();
    }
    let mut all: Vec<u32> = rows.concat();
    all.sort_unstable();
    assert!(all.into_iter().eq((0..100_000).step_by(2)));

    let mut queue = VecDeque::new();
    let mut text = String::new();
    for number in 0..5_000 {
        queue.push_back(Box::new(number));
        if number % 3 == 0 {
            text.push_str(&queue.pop_front().expect("just pushed").to_string());
        }
    }
    assert_eq!((queue.len(), text.len()), (3_333, (0..1_667).map(|n: i32| n.to_string().len()).sum()));
    assert_sound();
}

/// Blocks made by one thread are checked and freed by another, while all of them allocate. `SMALLOC_TEST_SCALE=10`
/// passes on ten times as many.
#[test]
fn threads_hand_blocks_over() {
    const THREADS: u64 = 4;
    let scale = std::env::var("SMALLOC_TEST_SCALE").ok().and_then(|scale| scale.parse::<u64>().ok());
    let blocks = 20_000 * scale.unwrap_or(1);
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..THREADS).map(|_| mpsc::channel::<Vec<u64>>()).unzip();
    let workers: Vec<_> = receivers
        .into_iter()
        .zip(0..THREADS)
        .map(|(receiver, number)| {
            let next = senders[(number as usize + 1) % senders.len()].clone();
            thread::spawn(move || {
                let mut sum = 0;
                for round in 0..blocks {
                    let len = 1 + (round * 31 + number) % 200;
                    next.send(vec![round; len as usize]).expect("the next thread still listens");
                    let block = receiver.recv().expect("the one before still sends");
                    assert!(block.iter().all(|&number| number == round), "the block is as it was sent");
                    sum += block.iter().sum::<u64>();
                }
                // Kept until everything is sent, so that no sender finds its receiver gone.
                (sum, receiver)
            })
        })
        .collect();
    drop(senders);
    let results: Vec<_> =
        workers.into_iter().map(|worker| worker.join().expect("no thread panics")).collect();
    let expected: u64 = (0..THREADS)
        .flat_map(|number| (0..blocks).map(move |round| round * (1 + (round * 31 + number) % 200)))
        .sum();
    assert_eq!(results.iter().map(|(sum, _)| sum).sum::<u64>(), expected);
    assert_sound();
}

/// A thread's own data is dropped after its main function. The allocator has no thread-local state that could be gone
/// by then.
#[test]
fn thread_locals_allocate_in_their_destructors() {
    struct Last(mpsc::Sender<String>);
    impl Drop for Last {
        fn drop(&mut self) {
            let words: Vec<String> = (0..100).map(|number| number.to_string()).collect();
            self.0.send(words.join(" ")).expect("the main thread listens");
        }
    }
    thread_local! {
        static LAST: std::cell::RefCell<Option<Last>> = const { std::cell::RefCell::new(None) };
    }
    let (sender, receiver) = mpsc::channel();
    for _ in 0..50 {
        let sender = sender.clone();
        thread::spawn(move || LAST.with(|last| *last.borrow_mut() = Some(Last(sender)))).join().unwrap();
    }
    drop(sender);
    let received: Vec<String> = receiver.iter().collect();
    assert_eq!(received.len(), 50);
    assert!(received.iter().all(|words| words.starts_with("0 1 2 ") && words.ends_with(" 98 99")));
    assert_sound();
}

/// Unwinding and a backtrace allocate much, at unexpected moments.
#[test]
fn panics_unwind_and_backtraces_are_captured() {
    let outcome = thread::spawn(|| -> usize {
        let kept = vec![String::from("dropped by unwinding"); 100];
        std::panic::resume_unwind(Box::new(kept.len()));
    });
    let payload = outcome.join().expect_err("it panics");
    assert_eq!(payload.downcast_ref::<usize>(), Some(&100));
    let trace = std::backtrace::Backtrace::force_capture().to_string();
    assert!(trace.contains("panics_unwind_and_backtraces_are_captured"), "{trace}");
    assert_sound();
}

/// A growing `Vec` whose request is refused returns an error and keeps its contents.
#[test]
fn a_refused_reservation_is_an_error() {
    let mut vector: Vec<u8> = Vec::from(*b"kept");
    for size in [HEAP.stats().region_size, isize::MAX.unsigned_abs() - 15] {
        assert!(vector.try_reserve_exact(size).is_err());
        assert_eq!(vector, b"kept");
    }
    assert_sound();
}

/// The first call may be of any kind, before there is a region.
fn first_requests<L: FreeList>() {
    for (size, align) in [(1, 1), (100, 32), (100, 4096), (5000, 16), (5000, 64), (1 << 17, 1 << 14)] {
        let heap = SmallocGlobal::<L>::with_region_size(1 << 20);
        let layout = Layout::from_size_align(size, align).expect("a layout");
        // SAFETY: the layout is not empty.
        assert!(!unsafe { heap.alloc(layout) }.is_null(), "{size} bytes aligned to {align}");
        let heap = SmallocGlobal::<L>::with_region_size(1 << 20);
        // SAFETY: as above.
        assert!(!unsafe { heap.alloc_zeroed(layout) }.is_null(), "{size} zeros aligned to {align}");
    }
}

#[test]
fn any_request_may_be_the_first() {
    first_requests::<Indexed>();
    first_requests::<Linked>();
}

#[test]
fn all_sizes_and_alignments() {
    sizes_and_alignments(&HEAP);
    sizes_and_alignments(&LINKED);
    sizes_and_alignments(&INDEXED);
}

fn sizes_and_alignments<L: FreeList>(heap: &SmallocGlobal<L>) {
    for align in (0..=16).map(|power| 1 << power) {
        let mut live = Vec::new();
        for size in (1..=130).chain([500, 1023, 1024, 1025, 4095, 4096, 4097, 65_537]) {
            let layout = Layout::from_size_align(size, align).unwrap();
            // SAFETY: the layout is not empty.
            let start = unsafe { heap.alloc(layout) };
            assert!(!start.is_null() && (start as usize).is_multiple_of(align.max(16)), "{layout:?}");
            // SAFETY: the block is live and has this size.
            unsafe { start.write_bytes(pattern(size), size) };
            live.push((start, layout));
        }
        for (start, layout) in live {
            // SAFETY: the block is live and was written.
            let bytes = unsafe { std::slice::from_raw_parts(start, layout.size()) };
            assert!(bytes.iter().all(|&byte| byte == pattern(layout.size())), "{layout:?}");
            // SAFETY: the block is live and has this layout.
            unsafe { heap.dealloc(start, layout) };
        }
    }
    heap.check().expect("the heap is sound");
}

fn pattern(size: usize) -> u8 {
    (size % 255).to_le_bytes()[0] + 1
}

#[test]
fn zeroed_over_dirty_blocks() {
    dirty_and_zero(&HEAP);
    dirty_and_zero(&LINKED);
    dirty_and_zero(&INDEXED);
}

fn dirty_and_zero<L: FreeList>(heap: &SmallocGlobal<L>) {
    for size in [1, 8, 15, 16, 17, 100, 1000, 4096, 5000, 100_000, 1_000_003] {
        let layout = Layout::from_size_align(size, 8).unwrap();
        for _again in 0..3 {
            // SAFETY: the layout is not empty.
            let start = unsafe { heap.alloc_zeroed(layout) };
            assert!(!start.is_null(), "{layout:?}");
            // SAFETY: the block is live, and zeroed memory may be read.
            let bytes = unsafe { std::slice::from_raw_parts(start, size) };
            assert!(bytes.iter().all(|&byte| byte == 0), "{layout:?}");
            // SAFETY: the block is live and has this size.
            unsafe { start.write_bytes(0xDB, size) };
            // SAFETY: the block is live and has this layout.
            unsafe { heap.dealloc(start, layout) };
        }
    }
    let zeros = black_box(vec![0_u64; black_box(100_000)]);
    assert!(zeros.iter().all(|&number| number == 0));
}

#[test]
fn realloc_keeps_contents() {
    grow_and_shrink(&HEAP);
    grow_and_shrink(&LINKED);
    grow_and_shrink(&INDEXED);
}

/// The blocks between the sizes make the block move again and again.
fn grow_and_shrink<L: FreeList>(heap: &SmallocGlobal<L>) {
    let mut layout = Layout::from_size_align(1, 32).unwrap();
    // SAFETY: the layout is not empty.
    let mut start = unsafe { heap.alloc(layout) };
    let mut walls = Vec::new();
    let sizes = [3, 16, 17, 100, 1000, 5000, 70_000, 1_000_000, 999_999, 65_000, 1000, 33, 32, 1];
    for size in sizes {
        let kept = layout.size().min(size);
        // SAFETY: the block is live and has this size.
        let bytes = unsafe { std::slice::from_raw_parts_mut(start, layout.size()) };
        bytes.iter_mut().enumerate().for_each(|(index, byte)| *byte = (index % 251).to_le_bytes()[0]);
        // SAFETY: the block is live, has this layout, and the size is small and not zero.
        start = unsafe { heap.realloc(start, layout, size) };
        assert!(!start.is_null() && (start as usize).is_multiple_of(32), "{size} bytes");
        layout = Layout::from_size_align(size, 32).unwrap();
        // SAFETY: the block is live, and what was copied was written before.
        let bytes = unsafe { std::slice::from_raw_parts(start, kept) };
        let wrong = bytes.iter().enumerate().position(|(index, byte)| usize::from(*byte) != index % 251);
        assert_eq!(wrong, None, "the first {kept} of {size} bytes");
        walls.extend(heap.smalloc(Layout::new::<u64>()).0);
    }
    assert_eq!(walls.len(), sizes.len());
    for wall in walls {
        // SAFETY: the block is live.
        unsafe { heap.sfree(wall) };
    }
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(start, layout) };
    heap.check().expect("the heap is sound");
}

/// A block is freed without its size, by another thread than the one that allocated it.
#[test]
fn freed_by_pointer_in_another_thread() {
    let live = HEAP.stats().live_segments;
    assert!(live > 0);
    let blocks: Vec<usize> = (1..500)
        .map(|size| {
            HEAP.smalloc(Layout::from_size_align(size, 1).unwrap()).0.unwrap().expose_provenance().get()
        })
        .collect();
    thread::spawn(move || {
        for address in blocks {
            let start = NonNull::new(std::ptr::with_exposed_provenance_mut(address)).expect("not null");
            // SAFETY: the block is live, and belongs to this thread alone now.
            unsafe { HEAP.sfree(start) };
        }
    })
    .join()
    .expect("the thread ends");
    assert_sound();
}
