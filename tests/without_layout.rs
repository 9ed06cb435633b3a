//! Calls without a layout do what the calls with one do, and know no more of a pointer than the heap does.
#![cfg(not(feature = "hardened"))]

use smalloc::{FreeList, Heap, Indexed, Linked, SmallocGlobal};
use std::alloc::Layout;
use std::ptr::{self, NonNull};

const SIZES: [usize; 9] = [0, 1, 16, 100, 900, 1000, 5000, 70_000, 300_000];

/// Numbers that look random, each below `n`.
fn below(state: &mut u64, n: usize) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize % n
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).unwrap()
}

/// Two heaps get the same calls, one of them with layouts.
fn twins<L: FreeList>(global: &SmallocGlobal<L>) {
    let mut heap = Heap::<L>::with_region_size(64 << 20).unwrap();
    global.init_with_size(64 << 20).unwrap();
    let mut blocks: Vec<(NonNull<u8>, NonNull<u8>, usize)> = Vec::new();
    let mut state = 7;
    let base = heap.base().addr();
    let global_base = global.smalloc(layout(1)).0.map(|first| (first.addr().get(), first)).unwrap();
    heap.smalloc(layout(1)).0.unwrap();
    for round in 0..3000_u64 {
        let size = SIZES[below(&mut state, SIZES.len())] + below(&mut state, 40);
        match below(&mut state, 5) {
            0 | 1 if !blocks.is_empty() => {
                let (with, without, old) = blocks.swap_remove(below(&mut state, blocks.len()));
                // SAFETY: both blocks are in use, and the layout is the first one's.
                unsafe { heap.dealloc(with.as_ptr(), layout(old)) };
                // SAFETY: the block is in use.
                unsafe { global.sfree(without) };
                assert_eq!(global.usable_size(without), None);
            }
            2 if !blocks.is_empty() => {
                let index = below(&mut state, blocks.len());
                let (with, without, old) = &mut blocks[index];
                // SAFETY: the block is in use and has this layout.
                let moved = unsafe { heap.realloc(with.as_ptr(), layout(*old), size) };
                *with = NonNull::new(moved).unwrap();
                // SAFETY: the block is in use.
                *without = unsafe { global.srealloc(*without, size) }.unwrap();
                if *old > 0 && size > 0 {
                    // SAFETY: the first byte was written when the block was allocated.
                    assert_eq!(unsafe { without.read() }, unsafe { with.read() });
                }
                // A block of no bytes is moved without its first byte by a call that knows its layout.
                // SAFETY: a block has at least 16 bytes.
                unsafe { (with.write(round as u8), without.write(round as u8)) };
                *old = size;
            }
            _ => {
                let pair = (heap.smalloc(layout(size)).0.unwrap(), global.smalloc(layout(size)).0.unwrap());
                // SAFETY: a block has at least 16 bytes.
                unsafe { (pair.0.write(round as u8), pair.1.write(round as u8)) };
                blocks.push((pair.0, pair.1, size));
            }
        }
        for (with, without, size) in blocks.iter().rev().take(2) {
            assert_eq!(with.addr().get() - base, without.addr().get() - global_base.0, "round {round}");
            assert_eq!(global.usable_size(*without), Some(size.next_multiple_of(16).max(16)));
            assert_eq!(heap.usable_size(*with), global.usable_size(*without));
            assert!(heap.contains(with.as_ptr()) && global.contains(without.as_ptr()));
            assert!(!heap.contains(without.as_ptr()) && !global.contains(with.as_ptr()));
        }
    }
    assert!(blocks.len() > 10, "{} blocks", blocks.len());
    assert_eq!((heap.check(), global.check()), (Ok(()), Ok(())));
    assert_eq!(heap.totals(), global.totals());
}

#[test]
fn the_same_places_with_a_layout_and_without() {
    static INDEXED: SmallocGlobal = SmallocGlobal::new();
    static LINKED: SmallocGlobal<Linked> = SmallocGlobal::new();
    twins(&INDEXED);
    twins(&LINKED);
}

#[test]
fn a_heap_contains_its_region_and_nothing_else() {
    static HEAP: SmallocGlobal<Indexed, 2> = SmallocGlobal::with_region_size(1 << 20).with_homes(1);
    let local = 0_u8;
    assert!(!HEAP.contains(&local) && !HEAP.contains(ptr::null()), "nothing is mapped yet");
    let first = HEAP.smalloc(layout(1)).0.unwrap().as_ptr();
    let snapshot = HEAP.snapshots().unwrap();
    assert_eq!(snapshot[0].segments().len(), 2);
    assert!(HEAP.contains(first) && HEAP.contains(first.wrapping_add((1 << 20) - 1)));
    assert!(!HEAP.contains(first.wrapping_sub(1)) && !HEAP.contains(first.wrapping_add(1 << 20)));
    // SAFETY: the block is in use.
    unsafe { HEAP.sfree(NonNull::new(first).unwrap()) };
    assert!(HEAP.contains(first), "free memory belongs to the heap too");
    assert_eq!(HEAP.usable_size(NonNull::from(&local)), None);
}

#[test]
fn the_size_may_be_known_late() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
    HEAP.init_with_size((3 << 20) + 1).unwrap();
    let size = HEAP.totals().region_size;
    assert!(size > 3 << 20 && size < (3 << 20) + (1 << 17), "{size}");
    HEAP.init_with_size(1 << 20).unwrap();
    HEAP.init().unwrap();
    assert_eq!(HEAP.totals().region_size, size, "a region keeps its size");
}

/// A block that is freed without a layout in another thread's region may be large, and its owner may sleep for long.
#[test]
fn large_blocks_freed_elsewhere_do_not_wait_for_their_owner() {
    // No thread has region 1 as its home.
    static HEAP: SmallocGlobal<Indexed, 2> = SmallocGlobal::with_region_size(1 << 30).with_homes(1);
    let large = layout(8 << 20);
    let allocate = || HEAP.smalloc(large).0.unwrap().as_ptr().expose_provenance();
    let blocks: Vec<usize> = HEAP.in_region(1, || (0..20).map(|_| allocate()).collect());
    assert_eq!(HEAP.region_stats(1).unwrap().used_bytes, 20 * large.size());
    for block in blocks {
        let block = NonNull::new(ptr::with_exposed_provenance_mut(block)).unwrap();
        // SAFETY: the block is in use.
        unsafe { HEAP.sfree(block) };
    }
    let stats = HEAP.stats();
    assert_eq!((stats.used_bytes, stats.handed_over), (0, 0));
}

/// The smallest stack of a thread. Without optimisation, calls have larger frames.
const STACK: usize = if cfg!(debug_assertions) { 40 << 10 } else { 16 << 10 };

/// `stats` of as many regions needs more than such a stack has.
#[test]
fn totals_fit_a_small_stack() {
    static HEAP: SmallocGlobal<Indexed, 8> = SmallocGlobal::with_region_size(1 << 20);
    extern "C" fn work(_: *mut libc::c_void) -> *mut libc::c_void {
        let block = HEAP.smalloc(layout(1000)).0.unwrap();
        let used = HEAP.totals().used_bytes;
        // SAFETY: the block is in use.
        unsafe { HEAP.sfree(block) };
        ptr::without_provenance_mut(used)
    }
    HEAP.init().unwrap();
    let mut used = ptr::null_mut();
    // SAFETY: the attributes are initialised before they are used, and the thread is joined.
    unsafe {
        let mut attributes = std::mem::zeroed();
        assert_eq!(libc::pthread_attr_init(&mut attributes), 0);
        assert_eq!(libc::pthread_attr_setstacksize(&mut attributes, STACK), 0);
        let mut thread = std::mem::zeroed();
        assert_eq!(libc::pthread_create(&mut thread, &attributes, work, ptr::null_mut()), 0);
        assert_eq!(libc::pthread_join(thread, &mut used), 0);
    }
    assert_eq!(used.addr(), 1008);
}
