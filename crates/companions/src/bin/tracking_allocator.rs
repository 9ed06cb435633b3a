//! The crate `tracking-allocator` around smalloc: the bytes in use of each part of the program, which enters a group.

use std::sync::atomic::{AtomicUsize, Ordering};

use smalloc::SmallocGlobal;
use tracking_allocator::{
    AllocationGroupId, AllocationGroupToken, AllocationRegistry, AllocationTracker, Allocator,
};

static HEAP: SmallocGlobal = SmallocGlobal::new();

#[global_allocator]
static TRACKED: Allocator<&SmallocGlobal> = Allocator::from_allocator(&HEAP);

/// Bytes in use of each group. Its calls come from inside the allocator, so it does not allocate.
static GROUPS: [AtomicUsize; 8] = [const { AtomicUsize::new(0) }; 8];

struct Bytes;

impl AllocationTracker for Bytes {
    fn allocated(&self, _: usize, object: usize, _: usize, group: AllocationGroupId) {
        GROUPS[group.as_usize().get() % GROUPS.len()].fetch_add(object, Ordering::Relaxed);
    }

    fn deallocated(&self, _: usize, object: usize, _: usize, group: AllocationGroupId, _: AllocationGroupId) {
        GROUPS[group.as_usize().get() % GROUPS.len()].fetch_sub(object, Ordering::Relaxed);
    }
}

fn main() {
    AllocationRegistry::set_global_tracker(Bytes).expect("it is the first");
    let mut cache = AllocationGroupToken::register().expect("there are few groups");
    let group = cache.id().as_usize().get() % GROUPS.len();
    let in_use = || GROUPS[group].load(Ordering::Relaxed);
    AllocationRegistry::enable_tracking();
    let guard = cache.enter();
    let values: Vec<Box<[u8; 1000]>> = (0..20).map(|_| Box::new([1; 1000])).collect();
    drop(guard);
    let held = in_use();
    // A block is charged to the group that allocated it, wherever it is freed.
    drop(values);
    let left = in_use();
    AllocationRegistry::disable_tracking();
    println!("the group held {held} bytes, and {left} after the drop");
    println!("allocations of smalloc: {}", HEAP.stats().allocs);
}
