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
//! Data flows down as sizes and offsets and comes back up as values. A file uses only files below it.
//!
//! ```text
//! allocator     with the features `allocator-api2` and `nightly`: the traits `Allocator`
//! global        layout in, pointer or null out; the lock
//! regions, home several heaps side by side: which one is a thread's, where a payload lies
//! shared        a heap behind its lock, and (handover) what was freed in it without the lock
//! unlocked      what is done for a heap while its lock is not held: giving back, waiting for that, clearing
//! relief        asks the program for room when there is none
//! fork, lock    every heap locked around a fork; who waits, and how
//! hardened      with the feature of that name: freed memory is filled, rests, and is checked
//! heap          the policy: search, split, coalesce, grow, resize
//! inspect       numbers, snapshots, pictures: reads, never writes
//! recording     every call in a file: the format, and who writes it
//! free_list     which free segment a request gets: Linked, Indexed
//! segment_map   where segments begin and end, two bits a granule
//! pages         which pages of free memory may hold something, one bit a page; which were moved
//! region        the mapping; the only home of pointer arithmetic
//! shadow        what memory checkers are told, if there are any
//! debugger      where a debugger finds the heaps
//! path          a path for the system, on the stack
//! errno, fatal  errno kept; one line, then abort
//! ```

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
mod debugger;

mod free_list;
mod global;

#[cfg(feature = "hardened")]
mod hardened;
mod heap;

mod inspect;

mod pages;

pub mod recording;
mod region;

mod checkers;
mod segment_map;
mod system;
mod threads;
mod unlocked;

#[cfg(any(feature = "allocator-api2", feature = "nightly"))]
pub use allocator::HeapCell;
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
