//! The limit of a heap, and the low-memory callback.

mod case;

use smalloc::{FreeList, Heap, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::os::unix::process::ExitStatusExt;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

const CASES: [case::Case; 1] = [("panics", panics)];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 1).expect("a layout")
}

// ---- the limit ---------------------------------------------------------------------------------------------------

/// The number of blocks of a size for which there is room. All are freed again.
fn room<L: FreeList>(heap: &mut Heap<L>, size: usize) -> usize {
    let mut blocks = Vec::new();
    while let Some(block) = ptr::NonNull::new(heap.alloc(layout(size))) {
        blocks.push(block);
    }
    assert_eq!(heap.check(), Ok(()));
    // SAFETY: the blocks are live and have this layout.
    blocks.iter().for_each(|block| unsafe { heap.dealloc(block.as_ptr(), layout(size)) });
    blocks.len()
}

fn limits<L: FreeList>() {
    let mut heap = Heap::<L>::with_region_size(16 * MIB).expect("addresses are free");
    assert_eq!(room(&mut heap, 16 * KIB), 1024);
    for limit in [0, 15, 16, 100, 4096, 1_000_000, 3 * MIB, 16 * MIB - 1, 16 * MIB, usize::MAX] {
        let in_force = heap.set_limit(limit);
        assert_eq!(in_force, limit.min(16 * MIB) / 16 * 16);
        for size in [if limit < MIB { 16 } else { 512 }, 1024, 16 * KIB, 100 * KIB] {
            assert_eq!(room(&mut heap, size), in_force / size, "{size} bytes below {limit}");
        }
        // Aligned requests and growing blocks keep to the limit too.
        assert!(heap.alloc(Layout::from_size_align(in_force + 1, 4096).expect("a layout")).is_null());
        let block = heap.alloc(layout(16));
        if !block.is_null() {
            // SAFETY: the block is live, has this layout, and the sizes are not zero.
            unsafe {
                assert!(heap.realloc(block, layout(16), in_force + 1).is_null());
                assert_eq!(heap.realloc(block, layout(16), in_force), block);
                heap.dealloc(block, layout(in_force));
            }
        }
        assert_eq!(heap.stats().used_bytes, 0);
    }
}

#[test]
fn nothing_is_placed_above_the_limit() {
    limits::<Indexed>();
    limits::<Linked>();
}

/// Blocks in use stay, holes below are used, and the limit can be lowered further once top has fallen.
#[test]
fn a_limit_below_top_is_top() {
    let mut heap = Heap::<Indexed>::with_region_size(MIB).expect("addresses are free");
    let blocks: Vec<_> = (0..10).map(|_| heap.alloc(layout(KIB))).collect();
    assert_eq!(heap.set_limit(5 * KIB), 10 * KIB);
    assert!(heap.alloc(layout(16)).is_null());
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(blocks[3], layout(KIB)) };
    assert_eq!(heap.alloc(layout(KIB)), blocks[3]);
    for &block in &blocks[2..] {
        // SAFETY: as above.
        unsafe { heap.dealloc(block, layout(KIB)) };
    }
    assert_eq!(heap.set_limit(5 * KIB), 5 * KIB);
    assert_eq!(room(&mut heap, KIB), 3);
}

#[test]
fn a_limit_holds_for_all_threads() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20);
    // Set before the region is mapped.
    assert_eq!(HEAP.set_limit(MIB), MIB);
    let taken = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                // SAFETY: the layout is not empty.
                while !unsafe { HEAP.alloc(layout(512)) }.is_null() {
                    taken.fetch_add(512, Ordering::Relaxed);
                }
            });
        }
    });
    assert_eq!((taken.into_inner(), HEAP.stats().top), (MIB, MIB));
    assert_eq!(HEAP.check(), Ok(()));
}

// ---- being asked -------------------------------------------------------------------------------------------------

static ASKED: SmallocGlobal = SmallocGlobal::with_region_size(MIB);
static CACHE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
const LARGE: usize = 700 * KIB;

thread_local! {
    static TIMES: Cell<usize> = const { Cell::new(0) };
}

/// Uses the heap in every way, then frees what is cached.
fn drop_cache(wanted: Layout) -> bool {
    TIMES.set(TIMES.get() + 1);
    assert!(ASKED.stats().used_bytes > 0 && ASKED.check().is_ok());
    let (small, _) = ASKED.smalloc(layout(1));
    // SAFETY: the block is live, and nobody uses it.
    small.into_iter().for_each(|small| unsafe { ASKED.sfree(small) });
    // SAFETY: the layout is not empty. There is no room here, and nobody is asked for more.
    assert!(unsafe { ASKED.alloc(wanted) }.is_null());
    let cache = CACHE.swap(ptr::null_mut(), Ordering::Relaxed);
    if !cache.is_null() {
        // SAFETY: the block is live, has this layout, and is in the cache no more.
        unsafe { ASKED.dealloc(cache, layout(LARGE)) };
    }
    !cache.is_null()
}

#[test]
fn the_callback_makes_room() {
    // SAFETY: layouts are not empty; blocks are live when they are used, and have these layouts.
    unsafe {
        let fill = || CACHE.store(ASKED.alloc(layout(LARGE)), Ordering::Relaxed);
        let requests: [fn() -> *mut u8; 4] = [
            || ASKED.alloc(layout(LARGE)),
            || ASKED.alloc_zeroed(layout(LARGE)),
            || ASKED.smalloc(layout(LARGE)).0.map_or(ptr::null_mut(), ptr::NonNull::as_ptr),
            || ASKED.realloc(ASKED.alloc(layout(100)), layout(100), LARGE),
        ];
        fill();
        assert!(requests.iter().all(|request| request().is_null()), "nobody is asked");
        ASKED.on_low_memory(Some(drop_cache));
        for (number, request) in requests.iter().enumerate() {
            let block = request();
            assert!(!block.is_null(), "request {number}");
            assert_eq!(TIMES.take(), 1, "request {number}");
            // There is no cache any more: the answer is no.
            assert!(ASKED.alloc(layout(LARGE)).is_null());
            assert_eq!(TIMES.take(), 1);
            ASKED.dealloc(block, layout(LARGE));
            fill();
        }
        // The callback makes room, but not enough: the request is retried once and fails.
        assert!(ASKED.alloc(layout(2 * MIB)).is_null());
        assert_eq!(TIMES.take(), 1);
        ASKED.on_low_memory(None);
        assert!(ASKED.alloc(layout(2 * MIB)).is_null());
        assert_eq!(TIMES.take(), 0);
    }
}

/// Each thread's request calls the callback by itself, however many threads do so at the same time.
#[test]
fn threads_ask_side_by_side() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(1 << 16);
    static ANSWERED: AtomicUsize = AtomicUsize::new(0);
    fn answer(_: Layout) -> bool {
        ANSWERED.fetch_add(1, Ordering::Relaxed);
        std::thread::yield_now();
        true
    }
    HEAP.on_low_memory(Some(answer));
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    // SAFETY: the layout is not empty.
                    assert!(unsafe { HEAP.alloc(layout(MIB)) }.is_null());
                }
            });
        }
    });
    assert_eq!(ANSWERED.load(Ordering::Relaxed), 800);
    assert_eq!(HEAP.stats().failures, 1600);
}

/// The callback panics. The panic must not leave the allocator.
fn panics() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(MIB);
    HEAP.on_low_memory(Some(|_| panic!("no room")));
    // SAFETY: the layout is not empty.
    let caught = std::panic::catch_unwind(|| unsafe { HEAP.alloc(layout(2 * MIB)) });
    println!("came back: {}", caught.is_err());
}

#[test]
fn a_panic_does_not_leave_the_allocator() {
    let outcome = case::run("panics");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(lines.last(), Some(&"smalloc: the low-memory callback panicked"), "{lines:?}");
    assert!(outcome.status.signal() == Some(libc::SIGABRT) && !outcome.stdout.contains("came back"));
}
