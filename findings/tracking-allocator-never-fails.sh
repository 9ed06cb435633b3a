#!/bin/sh
# With tracking-allocator around an allocator, try_reserve ends the program.
#
# Guess: a wrapper passes a null pointer on, so try_reserve returns an error.
# Seen (tracking-allocator 0.4.0, rustc 1.95.0): its alloc calls handle_alloc_error, which aborts.
#
# For whoever handles failed allocations: they cannot be handled beneath this wrapper.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "reserve"
version = "0.1.0"
edition = "2024"
[features]
wrapped = []
[dependencies]
tracking-allocator = { version = "=0.4.0", default-features = false }
TOML
cat >src/main.rs <<'RUST'
use std::alloc::{GlobalAlloc, Layout, System};

/// Refuses what is larger than a mebibyte.
struct Small;

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Small {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > 1 << 20 { std::ptr::null_mut() } else { unsafe { System.alloc(layout) } }
    }
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(not(feature = "wrapped"))]
#[global_allocator]
static HEAP: Small = Small;
#[cfg(feature = "wrapped")]
#[global_allocator]
static HEAP: tracking_allocator::Allocator<Small> = tracking_allocator::Allocator::from_allocator(Small);

fn main() {
    println!("refused: {}", Vec::<u8>::new().try_reserve(2 << 20).is_err());
}
RUST
{
    cargo run --quiet
    cargo run --quiet --features wrapped 2>/dev/null || echo "ended by signal $(($? - 128))"
} | tee seen
cat >expected <<'TEXT'
refused: true
ended by signal 6
TEXT
diff expected seen
