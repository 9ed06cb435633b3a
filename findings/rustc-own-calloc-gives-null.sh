#!/bin/sh
# A Rust crate that exports `malloc` and `calloc`, where `calloc` calls the crate's own `malloc` through a helper that
# fills zeros, compiles to a `calloc` that returns null.
#
# Guess: it works, or the helper is turned into a call of `calloc` and recurses.
# Seen (rustc 1.95.0, x86-64): with -C opt-level=2 the body of `calloc` is `xor eax, eax; ret`: null for every size, without
# a warning. With opt-level 0 it does what it says. LLVM takes "allocate by malloc, then fill zeros" for a call of
# `calloc`, which it may assume to be the C library's, inside the definition of `calloc` itself.
#
# For whoever writes a `malloc` in Rust: inside the library never call `malloc` or `calloc` by these names; let the
# exported functions call an inner one with another name.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"

cat >own.rs <<'RUST'
#![no_std]
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

static mut MEMORY: [u64; 4096] = [0; 4096];
static USED: AtomicUsize = AtomicUsize::new(0);

#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn malloc(size: usize) -> *mut u8 {
    let at = USED.fetch_add(size.next_multiple_of(16), Ordering::Relaxed);
    if at + size > 32768 {
        return ptr::null_mut();
    }
    unsafe { (&raw mut MEMORY).cast::<u8>().add(at) }
}

unsafe fn zeroed(size: usize) -> *mut u8 {
    let block = malloc(size);
    if !block.is_null() {
        unsafe { ptr::write_bytes(block, 0, size) };
    }
    block
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn calloc(count: usize, size: usize) -> *mut u8 {
    match count.checked_mul(size) {
        Some(bytes) => unsafe { zeroed(bytes) },
        None => ptr::null_mut(),
    }
}
RUST
rustc --version
body() {
    rustc --edition 2024 --crate-type lib --emit asm -C opt-level="$1" -C panic=abort -o "own$1.s" own.rs
    awk '/^calloc:/ { on = 1; next } on && /^\t[a-z]/ { print $1 } on && /retq/ { exit }' "own$1.s"
}
echo "opt-level 2: $(body 2 | tr '\n' ' ')" | tee seen
echo "opt-level 0 has $(body 0 | grep -c call) or more calls in calloc" | sed 's/has [1-9][0-9]* or more/has/' | tee -a seen
cat >expected <<'TEXT'
opt-level 2: xorl retq 
opt-level 0 has calls in calloc
TEXT
diff expected seen
