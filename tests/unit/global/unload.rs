use super::super::SmallocGlobal;
use crate::Indexed;
use core::alloc::{GlobalAlloc, Layout};
use core::ptr;

const PIECE: Layout = Layout::new::<[u8; 100]>();

/// Calls the function that the loader calls for a heap.
fn unload<const REGIONS: usize>(heap: &'static SmallocGlobal<Indexed, REGIONS>) {
    // SAFETY: the heap is a static of this type.
    unsafe { SmallocGlobal::<Indexed, REGIONS>::unload(ptr::from_ref(heap).cast()) };
}

/// Other libraries may use a heap that was unloaded, when the process exits.
fn goes_on<const REGIONS: usize>(heap: &'static SmallocGlobal<Indexed, REGIONS>) {
    for _ in 0..3 {
        // SAFETY: the layout is not empty.
        let kept = unsafe { heap.alloc(PIECE) };
        unload(heap);
        assert_eq!(heap.stats().region_size, REGIONS << 20, "it is in use");
        // SAFETY: as above.
        let more = unsafe { heap.alloc(PIECE) };
        for block in [kept, more] {
            assert!(!block.is_null());
            // SAFETY: the block is live and has this layout.
            unsafe { heap.dealloc(block, PIECE) };
        }
        assert_eq!(heap.check(), Ok(()));
        unload(heap);
        assert_eq!((heap.stats().region_size, heap.stats().allocs), (0, 0), "nothing was in use");
    }
}

#[test]
fn an_unloaded_heap_is_mapped_again_if_it_is_used() {
    static ONE: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
    static SEVERAL: SmallocGlobal<Indexed, 3> = SmallocGlobal::with_region_size(1 << 20);
    goes_on(&ONE);
    goes_on(&SEVERAL);
}

#[test]
fn a_heap_whose_lock_is_taken_stays() {
    static HEAP: SmallocGlobal<Indexed, 2> = SmallocGlobal::with_region_size(1 << 20);
    HEAP.init().expect("addresses are free");
    let [.., last] = HEAP.regions.all();
    let guard = last.lock.lock();
    std::thread::spawn(|| unload(&HEAP)).join().expect("no panic");
    drop(guard);
    assert_eq!(HEAP.stats().region_size, 2 << 20);
    unload(&HEAP);
    assert_eq!(HEAP.stats().region_size, 0);
}
