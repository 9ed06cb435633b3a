use crate::SmallocGlobal;
use core::alloc::Layout;

/// Nobody takes a lock of a heap by the short way before it is covered, and everybody may afterwards.
#[test]
fn new_heaps_are_watched_until_they_are_covered() {
    static HEAP: SmallocGlobal<crate::Linked, 2> = SmallocGlobal::with_region_size(1 << 20);
    let short_way = || HEAP.regions.all().each_ref().map(|shared| shared.lock.try_lock_fast().is_some());
    assert_eq!((short_way(), HEAP.is_covered()), ([false; 2], false));
    assert!(HEAP.smalloc(Layout::new::<u64>()).0.is_some());
    assert_eq!((short_way(), HEAP.is_covered()), ([true; 2], true));
}

/// What has not been touched is looked at without a lock.
#[test]
fn untouched_heaps_have_the_numbers_of_new_ones() {
    static HEAP: SmallocGlobal = SmallocGlobal::new();
    let seen = HEAP.try_stats();
    assert_eq!((seen, HEAP.is_untouched()), (Some(SmallocGlobal::<crate::Indexed>::new().stats()), true));
}
