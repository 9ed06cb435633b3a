//! The trait `Allocator` of version 0.4 of its crate, beside that of 0.2.

use allocator_api2_04::alloc::Allocator;
use allocator_api2_04::vec::Vec;
use smalloc::{HeapCell, HeapLock, Indexed, Linked, SmallocGlobal};
use smallvec::SmallVec;

const MIB: usize = 1 << 20;

/// Vectors on the heap, and small ones that outgrow their place on the stack.
fn collections(heap: impl Allocator + Copy) {
    let mut numbers = Vec::new_in(heap);
    numbers.extend(0..100_000_u64);
    numbers.truncate(10);
    numbers.shrink_to_fit();
    assert_eq!((numbers.capacity(), numbers.iter().sum::<u64>()), (10, 45));
    let mut few = SmallVec::<u64, 8, _>::new_in(heap);
    few.extend(0..8);
    assert!(!few.spilled());
    few.extend(8..10_000);
    assert!(few.spilled() && few.iter().copied().eq(0..10_000));
    few.truncate(100);
    few.shrink_to_fit();
    assert_eq!(few.iter().sum::<u64>(), 4950);
}

#[test]
fn collections_live_in_any_heap() {
    static GLOBAL: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20);
    static SEVERAL: SmallocGlobal<Linked, 3> = SmallocGlobal::with_region_size(64 << 20);
    collections(&GLOBAL);
    collections(&SEVERAL);
    let cell = HeapCell::<Indexed>::with_region_size(64 * MIB).expect("addresses are free");
    collections(&cell);
    let lock = HeapLock::<Linked>::with_region_size(64 * MIB).expect("addresses are free");
    collections(&lock);
    let arenas = [cell.into_inner().stats(), lock.into_inner().stats()];
    for stats in [GLOBAL.stats(), SEVERAL.stats()].iter().chain(&arenas) {
        assert_eq!(stats.used_bytes, 0);
        assert!(stats.allocs >= 2 && stats.reallocs >= 2);
    }
}
