//! The crate `stats_alloc` around smalloc: the calls and bytes of a part of the program, on all threads.

use std::hint::black_box;

use smalloc::SmallocGlobal;
use stats_alloc::{Region, StatsAlloc};

static HEAP: SmallocGlobal = SmallocGlobal::new();

#[global_allocator]
static COUNTED: StatsAlloc<&SmallocGlobal> = StatsAlloc::new(&HEAP);

fn main() {
    let region = Region::new(&COUNTED);
    let (blocks, measured) =
        HEAP.measure(|| black_box((0..10).map(|_| Box::new([0_u8; 100])).collect::<Vec<_>>()));
    let change = region.change();
    println!("stats_alloc: {} allocations, {} bytes", change.allocations, change.bytes_allocated);
    println!(
        "smalloc: {} allocations, {} bytes as they are rounded up",
        measured.delta.allocs, measured.delta.used_bytes
    );
    drop(blocks);
    println!("stats_alloc: {} bytes freed", region.change().bytes_deallocated);
}
