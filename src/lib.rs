//! A first-fit heap as a global allocator: bounded, deterministic, compact, and visible.
//!
//! ```
//! #[global_allocator]
//! static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::new();
//!
//! let squares: Vec<u64> = (0..1000).map(|n| n * n).collect();
//! println!("{}", HEAP.stats());
//! # assert!(HEAP.check().is_ok());
//! ```
//!
//! Every allocation goes through one free list in ascending address order. A request splits the lowest free segment
//! that can hold it, and a freed segment coalesces with its free neighbours at once. So placement depends only on the
//! sequence of calls, and all of it can be inspected: every segment, every counter, and the hops of every search.
//!
//! # Where to begin
//!
//! - [`SmallocGlobal`] is the allocator of a program, or a heap that threads share.
//! - [`Heap`] is an arena of one thread, [`HeapCell`] shares one among several collections, and [`HeapLock`] among
//!   threads.
//! - Features: `allocator-api2` and `allocator-api2-04` (the trait `Allocator` of that crate, 0.2 and 0.4), `nightly`
//!   (that of the standard library), `serde`, `sites`, and the checks `hardened`, `asan` and `valgrind`.
//! - Environment variables: `SMALLOC_REGION`, `SMALLOC_REGIONS`, `SMALLOC_BASE`, `SMALLOC_REPORT`, `SMALLOC_LIVE`,
//!   `SMALLOC_RECORD`, `SMALLOC_SITES` and `SMALLOC_STRICT`.
//!
//! A heap in a variable needs its type, since the list has no default there: `let heap: SmallocGlobal =
//! SmallocGlobal::new()`, and `<Heap>::with_region_size(1 << 20)`.
//!
//! # Words
//!
//! - **region**: the one mapped range. **granule**: 16 bytes, the unit of size and address.
//! - **segment**: a run of granules, in use or free; segments tile the region up to **top**, the offset where they end.
//!   **wilderness**: the rest above it, the last free segment and the last resort.
//! - **payload**: the bytes that the program gets. It has no header.
//! - **hole**: a free segment below top. **free list**: all free segments in ascending address order.
//! - **first fit**: the lowest free segment that can hold the request at its alignment. **hop**: a step of a search
//!   beyond its first look: a free segment stepped over, or a **probe**, one node of the index looked at.
//! - **chunk**: 64 granules, one word of each bitmap. **heap**: region, segment map, free list and counters.
//!
//! # Reading the code
//!
//! A call goes down once: [`SmallocGlobal`] or an arena obtains a *held* heap, and `calls` has one body per call for
//! all of them. Sizes and offsets go down, values come back up. An `alloc`, in order:
//!
//! 1. `global/held.rs`, `enter`: lock the heap of the thread's home region.
//! 2. `heap/place.rs`, `place_fast`: ask the free list for a first look, and take the segment that it finds.
//! 3. `calls/alloc.rs`, `hand_out`: tell the watchers, release the heap, return the pointer.
//!
//! A `dealloc`, in order:
//!
//! 1. `global/mod.rs`, `dealloc`: a payload of another region than the thread's home is handed over to that region.
//! 2. `global/held.rs`, `enter`: lock the heap of the home region.
//! 3. `heap/find.rs`, `find_fast`: find the segment, and check it against pointer and layout. Tell the watchers.
//! 4. `heap/tiling.rs`, `give_fast`: clear its bits, which joins it with its free neighbours, count, tell the free
//!    list.
//! 5. `calls/free.rs`: do the deferred work of the free list, and release the heap. Slower frees also purge if due.
//!
//! The parts of a call `x` are named alike: `x` is the whole, `x_fast` is inline and may decline without changing
//! anything, and `x_slow` is outlined. `elsewhere` means in another region. Memory is *given back* to the free list,
//! *purged* to the system, *handed out* to the program, and *handed over* to another region.
//!
//! [`Cached`] stands in front: a hit is `cached/mod.rs` and `threads/caches/cache.rs`, and everything else goes down as
//! above.
//!
//! A file uses only rooms below its own, namely those in the last column, and no two files use each other.
//! `tests/house.rs` reads this table and checks both.
//!
//! | room | what is in it | uses |
//! |---|---|---|
//! | `allocator` | the traits `Allocator`, with the features `allocator-api2`, `allocator-api2-04` and `nightly` | arena global heap free_list system |
//! | `by_reference` | `GlobalAlloc` for references to heaps | cached global free_list |
//! | `cached` | [`Cached`]: a `SmallocGlobal` behind caches of its threads | global threads heap free_list region |
//! | `global` | [`SmallocGlobal`]: a `GlobalAlloc` over one or more locked heaps | sites calls watch threads heap free_list inspect recording region checkers debugger system |
//! | `heaptrack` | [`Heaptrack`]: what the profiler of this name is told | |
//! | `sites` | call stacks, with the feature `sites`: taking, numbering and counting them | threads system |
//! | `arena` | the calls of a [`Heap`], [`HeapCell`], [`HeapLock`], and handles to these | calls threads heap free_list inspect region system |
//! | `calls` | every call, written once over a held heap | watch threads heap free_list recording region |
//! | `threads` | the lock, regions side by side, remote frees, `fork` | watch heap free_list inspect region system |
//! | `watch` | watchers of calls: memory checkers, `hardened`, recordings, the live page | heap free_list recording region checkers system |
//! | `heap` | the policy: place, find, give back, grow, purge | free_list segment_map pages inspect region checkers debugger system |
//! | `free_list` | the search for a free segment: [`Linked`], [`Indexed`] | segment_map region |
//! | `segment_map` | the segments, two bits a granule | region |
//! | `pages` | the dirty and the moved pages of free memory | region system |
//! | `recording` | recordings of all calls: the file format and its writer | region system |
//! | `inspect` | statistics, snapshots, pictures | system |
//! | `region` | the mapping of heap and bookkeeping; only here offsets become pointers | checkers system |
//! | `checkers` | calls to AddressSanitizer and memcheck, with their features | |
//! | `debugger` | the table by which a debugger finds the heaps | |
//! | `system` | the environment, files, clocks, mappings, `errno`, fatal errors | |

#![no_std]
#![cfg_attr(feature = "nightly", feature(allocator_api))]
#![warn(missing_docs, unreachable_pub, unsafe_op_in_unsafe_fn)]
#![warn(
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc,
    clippy::multiple_unsafe_ops_per_block
)]
#![warn(clippy::alloc_instead_of_core, clippy::std_instead_of_core)]
#![cfg_attr(
    not(test),
    deny(
        clippy::panic,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::print_stdout,
        clippy::print_stderr
    )
)]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64", target_endian = "little")))]
compile_error!(
    "smalloc runs on 64-bit little-endian Linux: its bitmaps are 64-bit words, and it asks the loader where statics lie"
);

#[cfg(any(feature = "allocator-api2", feature = "allocator-api2-04", feature = "nightly"))]
extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(any(feature = "allocator-api2", feature = "allocator-api2-04", feature = "nightly"))]
mod allocator;
mod arena;
mod by_reference;
mod cached;
mod calls;
mod debugger;

mod free_list;
mod global;
mod heaptrack;

mod heap;

mod inspect;

mod pages;

pub mod recording;
mod region;

mod checkers;
mod segment_map;
#[cfg(feature = "sites")]
mod sites;
mod system;
mod threads;
mod watch;

#[cfg(any(feature = "allocator-api2", feature = "allocator-api2-04", feature = "nightly"))]
pub use arena::{HeapArc, HeapRc};
pub use arena::{HeapCell, HeapGuard, HeapLock};
pub use cached::Cached;
pub use free_list::{FreeList, Indexed, Linked};
pub use global::LowMemory;
pub use global::SmallocGlobal;
pub use heap::{Corruption, Heap, MallocStatus};
pub use heaptrack::Heaptrack;
pub use inspect::*;
pub use region::InitError;
#[cfg(feature = "sites")]
pub use sites::{Site, Sites};

// `cargo test --doc` compiles and runs the code of every page; tests/docs.rs checks that none is missing.
#[cfg(doctest)]
mod doc_tests {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/c.md")]
    struct C;
    #[doc = include_str!("../docs/design.md")]
    struct Design;
    #[doc = include_str!("../docs/inspecting.md")]
    struct Inspecting;
    #[doc = include_str!("../docs/live.md")]
    struct Live;
    #[doc = include_str!("../docs/memory.md")]
    struct Memory;
    #[doc = include_str!("../docs/performance.md")]
    struct Performance;
    #[doc = include_str!("../docs/promises.md")]
    struct Promises;
    #[doc = include_str!("../docs/realtime.md")]
    struct Realtime;
    #[doc = include_str!("../docs/recipes.md")]
    struct Recipes;
    #[cfg(feature = "sites")]
    #[doc = include_str!("../docs/sites.md")]
    struct CallSites;
    #[doc = include_str!("../docs/recording.md")]
    struct Recording;
    #[doc = include_str!("../docs/report.md")]
    struct Reports;
    #[doc = include_str!("../docs/testing.md")]
    struct Testing;
    #[doc = include_str!("../docs/threads.md")]
    struct Threads;
    #[doc = include_str!("../docs/tools.md")]
    struct Tools;
    #[doc = include_str!("../docs/tried.md")]
    struct Tried;
    #[doc = include_str!("../docs/unsafe.md")]
    struct Unsafe;
    #[doc = include_str!("../docs/using.md")]
    struct Using;
    #[doc = include_str!("../docs/wrappers.md")]
    struct Wrappers;
}
