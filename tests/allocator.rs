//! The trait `Allocator`, for heaps of one thread and of many.

use allocator_api2::alloc::Allocator;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use hashbrown::{DefaultHashBuilder, HashMap};
use smalloc::{FreeList, Heap, HeapArc, HeapCell, HeapLock, HeapRc, Indexed, Linked, SmallocGlobal};
use std::alloc::Layout;
use std::ptr::NonNull;

const MIB: usize = 1 << 20;

static GLOBAL: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20);

fn cell<L: FreeList>() -> HeapCell<L> {
    HeapCell::with_region_size(64 * MIB).expect("addresses are free")
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

/// Empties the quarantine that the feature `hardened` has for freed blocks, which counts as in use.
fn end_quarantine(heap: &SmallocGlobal) {
    assert!(heap.smalloc(layout(1 << 40, 1)).0.is_none());
}

/// Grows, shrinks, moves and drops collections.
fn collections(heap: impl Allocator + Clone) {
    let mut numbers = Vec::new_in(heap.clone());
    numbers.extend(0..100_000_u64);
    numbers.truncate(10);
    numbers.shrink_to_fit();
    assert_eq!((numbers.capacity(), numbers.iter().sum::<u64>()), (10, 45));
    let mut squares = HashMap::with_hasher_in(DefaultHashBuilder::default(), heap.clone());
    squares.extend((0..10_000_u64).map(|number| (number, number * number)));
    assert!((0..10_000).all(|number| squares[&number] == number * number));
    squares.retain(|number, _| number % 2 == 0);
    squares.shrink_to_fit();
    let mut nothing = Vec::new_in(heap.clone());
    nothing.extend([(); 5]);
    assert_eq!((nothing.len(), squares.len(), *Box::new_in(7, heap)), (5, 5000, 7));
}

#[test]
fn collections_live_in_any_heap() {
    collections(&cell::<Indexed>());
    collections(&cell::<Linked>());
    let held = GLOBAL.stats().live_segments;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| collections(&GLOBAL));
        }
    });
    end_quarantine(&GLOBAL);
    assert_eq!(GLOBAL.stats().live_segments, held);
}

/// Threads fill collections in one heap behind a lock.
#[test]
fn collections_of_several_threads_share_a_heap() {
    let heap = HeapLock::<Indexed>::with_region_size(64 * MIB).expect("addresses are free");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| collections(&heap));
        }
    });
    let stats = heap.lock().stats();
    assert_eq!((stats.live_segments, stats.used_bytes), (0, 0));
}

/// A struct that holds a heap and collections in it, in both orders of the fields.
struct Tenant<A: Allocator> {
    before: Vec<u64, A>,
    heap: A,
    after: Vec<u64, A>,
}

impl<A: Allocator + Clone> Tenant<A> {
    fn new(heap: A) -> Self {
        Self { before: Vec::new_in(heap.clone()), after: Vec::new_in(heap.clone()), heap }
    }

    fn fill(&mut self) {
        self.before.extend(0..1000);
        self.after.extend(0..1000);
        assert_eq!(*Box::new_in(7, self.heap.clone()), 7);
    }
}

#[test]
fn a_struct_owns_a_heap_and_collections_in_it() {
    let mut tenant = Tenant::new(HeapRc::with_region_size(MIB).expect("addresses are free"));
    collections(HeapRc::new(Heap::<Linked>::with_region_size(64 * MIB).expect("addresses are free")));
    tenant.fill();
    let Tenant { before, heap, after } = tenant;
    assert_eq!(heap.try_stats().map(|stats| stats.live_segments), Some(2));
    drop(heap);
    // The collections keep their heap.
    assert_eq!(before, after);
    let heap = before.allocator().clone();
    drop((before, after));
    assert_eq!(heap.try_stats().map(|stats| stats.live_segments), Some(0));
}

#[test]
fn a_struct_with_a_heap_moves_to_another_thread() {
    let heap = HeapArc::with_region_size(64 * MIB).expect("addresses are free");
    let mut tenant = Tenant::new(heap.clone());
    std::thread::scope(|scope| {
        scope.spawn(move || tenant.fill());
        scope.spawn(|| collections(heap.clone()));
    });
    assert_eq!(heap.lock().stats().live_segments, 0);
}

/// The region of the last handle is unmapped.
#[test]
fn the_last_handle_unmaps_the_region() {
    let heap = HeapRc::with_region_size(MIB).expect("addresses are free");
    let block = heap.allocate(layout(MIB / 2, 16)).expect("room").cast::<u8>();
    let mut resident = 0_u8;
    // SAFETY: the call only asks whether the page is mapped.
    let mut is_mapped = || unsafe {
        let page = block.as_ptr().map_addr(|addr| addr & !0xFFFF);
        libc::mincore(page.cast(), 1, &raw mut resident) == 0
    };
    let clone = heap.clone();
    drop(heap);
    assert!(is_mapped());
    drop(clone);
    assert!(!is_mapped());
}

fn bytes(block: NonNull<[u8]>) -> &'static [u8] {
    // SAFETY: the block is live as long as the caller looks, and all of it was written.
    unsafe { block.as_ref() }
}

/// Growing and shrinking keep the place if possible, and the contents always.
fn resizing(heap: impl Allocator) {
    // SAFETY: blocks are live when they are used, and have these layouts.
    unsafe {
        let block = heap.allocate(layout(100, 8)).expect("room");
        block.cast::<u8>().write_bytes(0xA5, 100);
        let grown = heap.grow(block.cast(), layout(100, 8), layout(5000, 8)).expect("room");
        assert_eq!((grown.cast(), grown.len()), (block.cast::<u8>(), 5000));
        let zeroed = heap.grow_zeroed(grown.cast(), layout(5000, 8), layout(3 * MIB, 16)).expect("room");
        assert_eq!((zeroed.cast(), zeroed.len()), (block.cast::<u8>(), 3 * MIB));
        assert!(bytes(zeroed)[5000..].iter().all(|&byte| byte == 0));
        let shrunk = heap.shrink(zeroed.cast(), layout(3 * MIB, 16), layout(50, 1)).expect("room");
        assert_eq!((shrunk.cast(), shrunk.len()), (block.cast::<u8>(), 50));
        // A block that cannot grow in place, because another one is behind it.
        let other = heap.allocate_zeroed(layout(64, 64)).expect("room");
        assert!(bytes(other).iter().all(|&byte| byte == 0));
        let moved = heap.grow_zeroed(shrunk.cast(), layout(50, 1), layout(1000, 1)).expect("room");
        assert_ne!(moved.cast::<u8>(), block.cast());
        assert!(bytes(moved)[..50].iter().all(|&byte| byte == 0xA5));
        assert!(bytes(moved)[50..].iter().all(|&byte| byte == 0));
        // A larger alignment: whether the block must move depends on its address.
        let mut block = (moved, layout(1000, 1));
        for align in [32, 4096, 16, 1 << 16, 1] {
            let grown = layout(block.1.size() + 100, align);
            block = (heap.grow(block.0.cast(), block.1, grown).expect("room"), grown);
            let shrunk = layout(grown.size() - 50, align * 2);
            block = (heap.shrink(block.0.cast(), block.1, shrunk).expect("room"), shrunk);
            assert_eq!(block.0.cast::<u8>().addr().get() % (align * 2), 0);
            assert!(bytes(block.0)[..50].iter().all(|&byte| byte == 0xA5));
        }
        heap.deallocate(block.0.cast(), block.1);
        heap.deallocate(other.cast(), layout(64, 64));
        // Impossible requests take no memory. Empty layouts are valid.
        assert!(heap.allocate(layout(1 << 40, 1)).is_err());
        let empty = heap.allocate(layout(0, 32)).expect("room");
        assert_eq!((empty.len(), empty.cast::<u8>().addr().get() % 32), (0, 0));
        let grown = heap.grow(empty.cast(), layout(0, 32), layout(1, 32)).expect("room");
        assert!(heap.grow(grown.cast(), layout(1, 32), layout(1 << 40, 32)).is_err());
        heap.deallocate(grown.cast(), layout(1, 32));
    }
}

#[test]
fn blocks_grow_and_shrink_in_place() {
    static OTHER: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20);
    let (indexed, linked) = (cell::<Indexed>(), cell::<Linked>());
    resizing(&indexed);
    resizing(&linked);
    resizing(&OTHER);
    end_quarantine(&OTHER);
    for stats in [indexed.into_inner().stats(), linked.into_inner().stats(), OTHER.stats()] {
        assert_eq!((stats.used_bytes, stats.free_segments), (0, 1));
    }
}

#[test]
fn a_borrowed_heap_refuses() {
    let heap = cell::<Indexed>();
    let borrowed = heap.borrow_mut();
    assert!((&heap).allocate(layout(1, 1)).is_err());
    drop(borrowed);
    assert!((&heap).allocate(layout(1, 1)).is_ok());
}

/// Collections in memory on the stack: nothing outside of that memory is touched.
#[test]
fn lent_memory_is_enough() {
    let mut memory = vec![0xAA_u8; 300_000];
    for (front, size) in [(0, 300_000), (1, 299_000), (63, 250_001), (64, 100_000)] {
        memory.fill(0xAA);
        let start = NonNull::from(&mut memory[front]);
        // SAFETY: the memory is used by nobody else while the heap exists.
        let heap = unsafe { Heap::<Indexed>::from_raw_parts(start, size) }.expect("room for tables");
        let lost = size - heap.region_size() - heap.stats().metadata_bytes;
        assert!(lost < 128, "{lost} bytes are neither");
        assert!(heap.region_size() + 4_000 + size / 50 > size);
        let heap = HeapCell::new(heap);
        let mut numbers = Vec::new_in(&heap);
        numbers.extend(0..2_000_u64);
        let zeros = (&heap).allocate_zeroed(layout(20_000, 4096)).expect("room");
        assert!(bytes(zeros).iter().all(|&byte| byte == 0));
        assert_eq!(numbers.iter().sum::<u64>(), 1_999_000);
        drop(numbers);
        assert_eq!(heap.borrow_mut().trim(), 0);
        assert_eq!(heap.borrow_mut().check(), Ok(()));
        drop(heap);
        assert!(memory[..front].iter().chain(&memory[front + size..]).all(|&byte| byte == 0xAA));
    }
    for size in [0, 63, 1024, 2048] {
        let start = NonNull::from(&mut memory[0]);
        // SAFETY: as above.
        let refused = unsafe { Heap::<Indexed>::from_raw_parts(start, size) }.expect_err("too little");
        assert_eq!(refused.to_string(), format!("{size} bytes are too few for a heap"));
    }
}

/// With so much memory, the tables outgrow their first places at once. Memory freed at the top is marked up to its end.
#[test]
fn much_lent_memory_keeps_its_books() {
    for bytes in [48 << 20, 128 << 20, 512 << 20] {
        keeps_its_books::<Indexed>(bytes);
        keeps_its_books::<Linked>(bytes);
    }
}

fn keeps_its_books<L: FreeList>(bytes: usize) {
    let (open, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping replaces nothing.
    let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, open, kind | libc::MAP_NORESERVE, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    let lent = NonNull::new(start.cast::<u8>()).expect("not null");
    // SAFETY: the memory is used by nobody else while the heap exists.
    let mut heap = unsafe { Heap::<L>::from_raw_parts(lent, bytes) }.expect("room for tables");
    let (large, small) = (layout(100 << 10, 16), layout(64, 16));
    let block = heap.alloc(large);
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(block, large) };
    assert_eq!(heap.check(), Ok(()));
    let (first, _wall) = (heap.alloc(small), heap.alloc(small));
    // SAFETY: as above.
    unsafe { heap.dealloc(first, small) };
    assert_eq!(
        (heap.alloc(small), heap.check()),
        (first, Ok(())),
        "{bytes} bytes with {}",
        std::any::type_name::<L>()
    );
    drop(heap);
    // SAFETY: nobody refers to the memory any more.
    unsafe { libc::munmap(start, bytes) };
}
