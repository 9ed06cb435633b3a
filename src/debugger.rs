//! A table by which a debugger finds the heaps of a live process or a core file, without debug information.
//!
//! The script `crates/tool/gdb/smalloc_gdb.py` looks up the symbol of [`HEAPS`] and checks `version` for its layout. It
//! also reads the segment map, drawn in `segment_map`, and the counters, which are `repr(C)`.

use core::sync::atomic::{AtomicUsize, Ordering};

/// Heaps in the table; further ones are not shown. Few programs have more than one.
const CAPACITY: usize = 32;

#[repr(C)]
struct Heaps {
    magic: [u8; 16],
    version: usize,
    capacity: usize,
    entries: [Entry; CAPACITY],
}

/// A heap's address, then the fields of [`Parts`] in order.
#[repr(C)]
struct Entry([AtomicUsize; 8]);

/// Addresses by which a heap can be read from outside.
pub(crate) struct Parts {
    /// 0 for `Linked`, 1 for `Indexed`.
    pub(crate) list: usize,
    /// The region's base and its size in bytes.
    pub(crate) region: (usize, usize),
    /// Addresses of the two bitmaps, `used` and `heads`.
    pub(crate) bitmaps: (usize, usize),
    /// Address of top, which is in granules.
    pub(crate) top_at: usize,
    /// Address of the counters.
    pub(crate) counters_at: usize,
}

// Only debuggers read it, so `used` keeps it.
#[used]
static HEAPS: Heaps = Heaps {
    magic: *b"smalloc's heaps\0",
    version: 3,
    capacity: CAPACITY,
    entries: [const { Entry([const { AtomicUsize::new(0) }; 8]) }; CAPACITY],
};

/// Adds the heap at an address that will not change, unless it has an entry.
pub(crate) fn add(heap: usize, parts: &Parts) {
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

/// Removes the heap at an address, whose region is about to be unmapped.
pub(crate) fn remove(heap: usize) {
    for Entry([address, ..]) in &HEAPS.entries {
        let _ = address.compare_exchange(heap, 0, Ordering::Relaxed, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "../tests/unit/debugger.rs"]
mod tests;
