//! Where a debugger finds the heaps of a process, in a live one or in a core file, without debug information.
//!
//! The script `crates/tool/gdb/smalloc_gdb.py` looks for the symbol of [`HEAPS`], and knows this layout by its version. What it
//! needs beyond it is the segment map, which `segment_map` draws, and the counters, which are `repr(C)`.

use core::sync::atomic::{AtomicUsize, Ordering};

/// Heaps that have room; further ones are not shown.
const CAPACITY: usize = 32;

/// The heaps of this process that are statics.
#[repr(C)]
struct Heaps {
    magic: [u8; 16],
    version: usize,
    capacity: usize,
    entries: [Entry; CAPACITY],
}

/// A heap, in this order: its address, then what [`Parts`] has.
#[repr(C)]
struct Entry([AtomicUsize; 8]);

/// The addresses and sizes by which a heap can be read from outside.
pub(crate) struct Parts {
    /// 0 for `Linked`, 1 for `Indexed`.
    pub(crate) list: usize,
    /// The region's base and size.
    pub(crate) region: (usize, usize),
    /// The two bitmaps, `used` and `heads`.
    pub(crate) bitmaps: (usize, usize),
    /// Where top is, in granules.
    pub(crate) top_at: usize,
    /// Where the counters are.
    pub(crate) counters_at: usize,
}

// A debugger reads it, so it stays though the program does not.
#[used]
static HEAPS: Heaps = Heaps {
    magic: *b"smalloc's heaps\0",
    version: 3,
    capacity: CAPACITY,
    entries: [const { Entry([const { AtomicUsize::new(0) }; 8]) }; CAPACITY],
};

/// Enters the heap at an address, which stays there, if it is not entered yet.
pub(crate) fn enter(heap: usize, parts: &Parts) {
    let Parts { list, region, bitmaps, top_at, counters_at } = *parts;
    for Entry([address, rest @ ..]) in &HEAPS.entries {
        match address.compare_exchange(0, heap, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => {
                let parts = [list, region.0, region.1, bitmaps.0, bitmaps.1, top_at, counters_at];
                for (place, part) in rest.iter().zip(parts) {
                    place.store(part, Ordering::Relaxed);
                }
                return;
            }
            Err(other) if other == heap => return,
            Err(_) => {}
        }
    }
}
