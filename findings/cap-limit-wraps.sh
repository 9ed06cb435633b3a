#!/bin/sh
# While cap refuses a request, other threads can allocate past its limit.
#
# Guess: an allocator with a limit compares before it subtracts, so no request that exceeds the limit is ever granted.
# Seen (cap 0.1.2, rustc 1.95.0): it subtracts first and adds the bytes back if there were too few. Between the two the
# unsigned counter has wrapped around, so that a request of another thread finds more than enough.
#
# For whoever limits a program with several threads by it: the limit is not a hard one.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "limit"
version = "0.1.0"
edition = "2024"
[dependencies]
cap = "=0.1.2"
TOML
cat >src/main.rs <<'RUST'
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

static LIMITED: cap::Cap<System> = cap::Cap::new(System, 1000);

/// Whether a request of that many bytes was granted. The limit is 1000, and nothing is kept.
fn granted(bytes: usize) -> bool {
    let layout = Layout::from_size_align(bytes, 8).unwrap();
    // SAFETY: the layout is not empty, and the block is freed with it.
    unsafe {
        let block = LIMITED.alloc(layout);
        if !block.is_null() {
            LIMITED.dealloc(block, layout);
        }
        !block.is_null()
    }
}

fn main() {
    println!("alone: granted {}", (0..1_000_000).any(|_| granted(2000)));
    let done = AtomicBool::new(false);
    let together = std::thread::scope(|scope| {
        scope.spawn(|| while !done.load(Ordering::Relaxed) { granted(2000); });
        let found = (0..200_000_000).any(|_| granted(2000));
        done.store(true, Ordering::Relaxed);
        found
    });
    println!("beside another thread: granted {together}");
}
RUST
cargo run --quiet --release | tee seen
cat >expected <<'TEXT'
alone: granted false
beside another thread: granted true
TEXT
diff expected seen
