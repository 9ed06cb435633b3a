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
//! Every allocation goes through one free list in ascending address order: the lowest free segment that can hold the
//! request is split, and what is freed is joined with its free neighbours at once. So placement is a function of the
//! sequence of calls alone, and it can be looked at: every segment, every counter, and for every search its hops.
//!
//! # Words
//!
//! - **region**: the one mapped range. **granule**: 16 bytes, the unit of size and address.
//! - **segment**: a run of granules, in use or free; segments tile the region up to **top**, the offset where they
//!   end. **wilderness**: the rest above it, the last free segment and the last resort.
//! - **payload**: the bytes that the program gets. There is no header in front of it.
//! - **hole**: a free segment below top. **free list**: all free segments in ascending address order.
//! - **first fit**: the lowest free segment that can hold the request at its alignment. **hop**: one free segment
//!   stepped over by a search. **probe**: one node of the index looked at.
//! - **chunk**: 64 granules, one word of each bitmap. **heap**: region, segment map, free list and counters.
//!
//! # Reading the code
//!
//! A call goes down once: [`SmallocGlobal`] (or an arena) comes to *hold* a heap, and one body per call in `calls` does the
//! rest. Sizes and offsets go down, values come back up. An `alloc`, in order:
//!
//! 1. `global/held.rs`, `enter`: lock the heap of the thread's region.
//! 2. `heap/place.rs`, `place_fast`: ask the free list for a first look, and take what it finds from the segment map.
//! 3. `calls/alloc.rs`, `hand_out`: tell the watchers, let the heap go, return the pointer.
//!
//! A `dealloc`, in order:
//!
//! 1. `global/held.rs`, `enter`: lock the heap of the region in which the payload lies.
//! 2. `heap/find.rs`, `find_fast`: find the segment that pointer and layout name, and check both.
//! 3. `heap/tiling.rs`, `give_fast`: clear its bits, count, tell the free list.
//! 4. `calls/free.rs`: do what the list put off, purge if that is due, let the heap go.
//!
//! One rule names the parts of a call: `x` is the whole, `x_fast` is inline and may decline, in which case nothing has
//! changed, and `x_slow` is the outlined rest. `elsewhere` is for other regions. Memory *is given back* to the free list,
//! *purged* to the system, *handed out* to the program, and *handed over* to another region.
//!
//! A file uses only rooms below its own, of these the ones that stand in the last column, and no two files use each other.
//! `tests/house.rs` reads this table and checks that.
//!
//! | room | what is in it | uses |
//! |---|---|---|
//! | `allocator` | with the features `allocator-api2` and `nightly`: the traits `Allocator` | arena global heap free_list system |
//! | `global` | [`SmallocGlobal`]: a `GlobalAlloc` over one or more locked heaps | calls watch threads heap free_list inspect recording region debugger system |
//! | `arena` | [`Heap`] as a program uses it, [`HeapCell`], [`HeapLock`] | calls threads heap free_list region system |
//! | `calls` | every call once, over a heap that is held | watch threads heap free_list recording region |
//! | `threads` | the lock, regions side by side, frees handed over, `fork` | watch heap free_list inspect region system |
//! | `watch` | the seam for memory checkers, `hardened`, recordings and the live page | heap free_list recording region checkers system |
//! | `heap` | the policy: place, find, give back, grow, purge | free_list segment_map pages inspect region checkers debugger system |
//! | `free_list` | which free segment a request gets: [`Linked`], [`Indexed`] | segment_map region |
//! | `segment_map` | where segments begin and end, two bits a granule | region |
//! | `pages` | which pages of free memory may hold something, and which were moved | region system |
//! | `recording` | every call in a file: the format, and its writer | region system |
//! | `inspect` | numbers, snapshots, pictures: reads, never writes | system |
//! | `region` | the mapping that holds heap and bookkeeping; offsets become pointers only here | checkers system |
//! | `checkers` | AddressSanitizer and memcheck, if the features for them are on | |
//! | `debugger` | where a debugger finds the heaps | |
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

#[cfg(test)]
extern crate std;

#[cfg(any(feature = "allocator-api2", feature = "nightly"))]
mod allocator;
mod arena;
mod calls;
mod debugger;

mod free_list;
mod global;

mod heap;

mod inspect;

mod pages;

pub mod recording;
mod region;

mod checkers;
mod segment_map;
mod system;
mod threads;
mod watch;

pub use arena::{HeapCell, HeapGuard, HeapLock};
pub use free_list::{FreeList, Indexed, Linked};
pub use global::LowMemory;
pub use global::SmallocGlobal;
pub use heap::{Corruption, Heap, MallocStatus};
pub use inspect::*;
pub use region::InitError;

// The code of every page is compiled and run by `cargo test --doc`; tests/docs.rs holds that none is missing.
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
    #[doc = include_str!("../docs/recipes.md")]
    struct Recipes;
    #[doc = include_str!("../docs/recording.md")]
    struct Recording;
    #[doc = include_str!("../docs/testing.md")]
    struct Testing;
    #[doc = include_str!("../docs/threads.md")]
    struct Threads;
    #[doc = include_str!("../docs/tried.md")]
    struct Tried;
    #[doc = include_str!("../docs/unsafe.md")]
    struct Unsafe;
    #[doc = include_str!("../docs/using.md")]
    struct Using;
}
