//! The low-memory callback is called again as long as it frees memory and the request still does not fit.

use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;

const KIB: usize = 1 << 10;
const ENTRY: Layout = Layout::new::<[u8; 8 * KIB]>();

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
    /// Set while the callback frees nothing.
    static FILLING: Cell<bool> = const { Cell::new(false) };
    /// Blocks that the callback may free, the next one last.
    static CACHE: RefCell<Vec<NonNull<u8>>> = const { RefCell::new(Vec::new()) };
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// Fills the heap with entries of the cache, so that entries freed one by one are neighbours.
fn fill<L: FreeList, const REGIONS: usize>(heap: &SmallocGlobal<L, REGIONS>) {
    FILLING.set(true);
    while let Some(entry) = heap.smalloc(ENTRY).0 {
        CACHE.with_borrow_mut(|cache| cache.push(entry));
    }
    FILLING.set(false);
}

/// Frees one entry of the cache.
fn evict<L: FreeList, const REGIONS: usize>(heap: &SmallocGlobal<L, REGIONS>) -> bool {
    if FILLING.get() {
        return false;
    }
    CALLS.set(CALLS.get() + 1);
    let entry = CACHE.with_borrow_mut(Vec::pop);
    // SAFETY: the entry is live, and is in the cache no more.
    entry.inspect(|&entry| unsafe { heap.sfree(entry) }).is_some()
}

type Heap<L, const REGIONS: usize> = &'static SmallocGlobal<L, REGIONS>;

/// A request for 32 entries needs 32 calls of the callback, whatever the kind of request.
fn is_called_until_it_fits<L: FreeList, const REGIONS: usize>(heap: Heap<L, REGIONS>, calls: usize) {
    let large = layout(32 * ENTRY.size());
    let grown = || {
        // SAFETY: the entry is live and has this layout.
        let entry = CACHE.with_borrow_mut(|cache| cache.remove(0)).as_ptr();
        // SAFETY: as above.
        unsafe { heap.realloc(entry, ENTRY, large.size()) }
    };
    let requests: [&dyn Fn() -> *mut u8; 4] = [
        // SAFETY: the layout is not empty.
        &|| unsafe { heap.alloc(large) },
        // SAFETY: as above.
        &|| unsafe { heap.alloc_zeroed(large) },
        &|| heap.smalloc(large).0.map_or(std::ptr::null_mut(), NonNull::as_ptr),
        &grown,
    ];
    for (number, request) in requests.iter().enumerate() {
        fill(heap);
        CALLS.take();
        let block = NonNull::new(request()).unwrap_or_else(|| panic!("request {number} finds no room"));
        assert_eq!(CALLS.take(), calls, "request {number}");
        // SAFETY: the block is live, and nothing uses it.
        unsafe { heap.sfree(block) };
        assert_eq!(heap.check(), Ok(()));
    }
    // The callback empties the cache, and the request still does not fit. Its first answer that nothing was freed is
    // final.
    fill(heap);
    let entries = CACHE.with_borrow(Vec::len);
    // One block in the middle of each region stays.
    let middles = (0..REGIONS).rev().map(|region| entries * (2 * region + 1) / (2 * REGIONS));
    let kept: Vec<_> = middles.map(|middle| CACHE.with_borrow_mut(|cache| cache.remove(middle))).collect();
    // SAFETY: the layout is not empty.
    assert!(unsafe { heap.alloc(layout(1000 * KIB)) }.is_null());
    assert_eq!(CALLS.take(), entries - REGIONS + 1);
    // SAFETY: the blocks are live, and nothing uses them.
    kept.into_iter().for_each(|kept| unsafe { heap.sfree(kept) });
}

#[test]
fn is_called_until_the_request_fits() {
    static INDEXED: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
    INDEXED.on_low_memory(Some(|_| evict(&INDEXED)));
    is_called_until_it_fits(&INDEXED, 32);
    static LINKED: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(1 << 20);
    LINKED.on_low_memory(Some(|_| evict(&LINKED)));
    is_called_until_it_fits(&LINKED, 32);
}

#[test]
fn is_called_until_the_request_fits_in_a_region() {
    static SEVERAL: SmallocGlobal<Indexed, 3> = SmallocGlobal::with_region_size(1 << 20);
    SEVERAL.on_low_memory(Some(|_| evict(&SEVERAL)));
    is_called_until_it_fits(&SEVERAL, 32);
}

/// The claim that memory was freed is believed once, if none was.
#[test]
fn a_false_answer_ends_it() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
    fn lie(_: Layout) -> bool {
        CALLS.set(CALLS.get() + 1);
        true
    }
    fill(&HEAP);
    HEAP.on_low_memory(Some(lie));
    // SAFETY: the layout is not empty.
    assert!(unsafe { HEAP.alloc(layout(64 * KIB)) }.is_null());
    assert_eq!(CALLS.take(), 1);
    let entry = CACHE.with_borrow_mut(Vec::pop).expect("the heap is full of them").as_ptr();
    // SAFETY: the entry is live and has this layout.
    assert!(unsafe { HEAP.realloc(entry, ENTRY, 64 * KIB) }.is_null());
    assert_eq!(CALLS.take(), 1);
}

/// Memory that is freed by a shrinking `realloc` counts as freed.
#[test]
fn shrinking_counts() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
    static SIZE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
    use std::sync::atomic::Ordering::Relaxed;
    fn shrink(_: Layout) -> bool {
        CALLS.set(CALLS.get() + 1);
        let (old, block) = (SIZE.fetch_sub(64 * KIB, Relaxed), CACHE.with_borrow(|cache| cache[0]));
        // SAFETY: the block is live and has this layout.
        !unsafe { HEAP.realloc(block.as_ptr(), layout(old), old - 64 * KIB) }.is_null()
    }
    SIZE.store(1 << 20, Relaxed);
    CACHE.with_borrow_mut(|cache| cache.extend(HEAP.smalloc(layout(1 << 20)).0));
    HEAP.on_low_memory(Some(shrink));
    // SAFETY: the layout is not empty.
    assert!(!unsafe { HEAP.alloc(layout(300 * KIB)) }.is_null());
    assert_eq!(CALLS.take(), 5);
}

/// A callback that frees memory and allocates it again does not hold up a request for ever.
#[test]
fn calls_are_bounded() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
    fn turn_over(_: Layout) -> bool {
        CALLS.set(CALLS.get() + 1);
        evict(&HEAP);
        CACHE.with_borrow_mut(|cache| cache.extend(HEAP.smalloc(ENTRY).0));
        true
    }
    fill(&HEAP);
    HEAP.on_low_memory(Some(turn_over));
    // SAFETY: the layout is not empty.
    assert!(unsafe { HEAP.alloc(layout(64 * KIB)) }.is_null());
    // Counted twice, by the callback and by `evict`.
    assert_eq!(CALLS.take(), 2 << 16);
}
