use crate::SmallocGlobal;
use core::alloc::Layout;

/// The fast path fails until the heap is registered for `fork`, and works from then on.
#[test]
fn new_heaps_are_slow_until_they_are_registered() {
    static HEAP: SmallocGlobal<crate::Linked, 2> = SmallocGlobal::with_region_size(1 << 20);
    let fast_path = || HEAP.regions.all().each_ref().map(|shared| shared.lock.try_lock_fast().is_some());
    assert_eq!((fast_path(), HEAP.is_registered()), ([false; 2], false));
    assert!(HEAP.smalloc(Layout::new::<u64>()).0.is_some());
    assert_eq!((fast_path(), HEAP.is_registered()), ([true; 2], true));
}

/// `try_stats` on an unused heap takes no lock, so the heap stays unused.
#[test]
fn unused_heaps_have_the_numbers_of_new_ones() {
    static HEAP: SmallocGlobal = SmallocGlobal::new();
    let seen = HEAP.try_stats();
    assert_eq!((seen, HEAP.is_unused()), (Some(SmallocGlobal::<crate::Indexed>::new().stats()), true));
}
