//! No path through the calls of `GlobalAlloc` and those without a layout leads to Rust's panic machinery.
//!
//! A program without the standard library makes only these calls, and its panic handler calls a function that does not
//! exist. The linker drops the handler only if nothing else calls it: a program that links cannot panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The panic handler calls this function, which is not defined.
const MISSING: &str = "a_panic_can_be_reached";

const MANIFEST: &str = r#"
[package]
name = "panic-free"
version = "0.0.0"
edition = "2024"

[workspace]

[features]
planted = []

[dependencies]
smalloc-global = { path = "LIBRARY", features = [FEATURES] }

[profile.release]
panic = "abort"
opt-level = 3
lto = "fat"
codegen-units = 1
"#;

const PROGRAM: &str = r#"
#![no_std]
#![no_main]

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::{c_char, c_int};
use smalloc::{FreeList, SmallocGlobal};

static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::new();
static LINKED: smalloc::SmallocGlobal<smalloc::Linked> = smalloc::SmallocGlobal::with_region_size(1 << 20);
static CACHED: smalloc::Cached = smalloc::Cached::new();
static SEVERAL: smalloc::SmallocGlobal<smalloc::Indexed, 3> = smalloc::SmallocGlobal::with_region_size(1 << 20);

unsafe extern "C" {
    fn a_panic_can_be_reached() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never runs, since a program that holds this call does not link.
    unsafe { a_panic_can_be_reached() }
}

/// Sizes and alignments come from outside, so that no call is decided when the program is compiled.
fn exercise(heap: &impl GlobalAlloc, seed: usize) -> bool {
    let Ok(layout) = Layout::from_size_align(100 * seed, 8 << (seed % 8)) else { return false };
    // SAFETY: the layout is not empty.
    let plain = unsafe { heap.alloc(layout) };
    // SAFETY: as above.
    let zeroed = unsafe { heap.alloc_zeroed(layout) };
    if plain.is_null() || zeroed.is_null() {
        return false;
    }
    // SAFETY: the block is live, has this layout, and the size is not zero.
    let moved = unsafe { heap.realloc(plain, layout, 300 * seed) };
    let Ok(larger) = Layout::from_size_align(300 * seed, layout.align()) else { return false };
    // SAFETY: the block is live and has this layout.
    unsafe { heap.dealloc(moved, larger) };
    // SAFETY: as above.
    unsafe { heap.dealloc(zeroed, layout) };
    !moved.is_null()
}

/// The calls without a layout.
fn by_pointer<L: FreeList, const N: usize>(heap: &SmallocGlobal<L, N>, seed: usize) -> bool {
    let Ok(layout) = Layout::from_size_align(100 * seed, 8 << (seed % 8)) else { return false };
    let (Some(block), _) = heap.smalloc(layout) else { return false };
    if !heap.contains(block.as_ptr()) || heap.usable_size(block).is_none() || heap.totals().used_bytes == 0 {
        return false;
    }
    // SAFETY: the block is live.
    let Some(block) = (unsafe { heap.srealloc(block, 300 * seed) }) else { return false };
    // SAFETY: the block is live.
    unsafe { heap.sfree(block) };
    true
}

#[cfg(feature = "planted")]
static WORDS: [u8; 4] = [1, 2, 3, 4];

#[unsafe(no_mangle)]
extern "C" fn main(count: c_int, _: *const *const c_char) -> c_int {
    let seed = count as usize;
    #[cfg(feature = "planted")]
    if WORDS[seed] == 3 {
        return 2;
    }
    let done = exercise(&HEAP, seed) && exercise(&LINKED, seed) && exercise(&CACHED, seed) && exercise(&SEVERAL, seed);
    c_int::from(!(done && by_pointer(&HEAP, seed) && by_pointer(&LINKED, seed) && by_pointer(&SEVERAL, seed)))
}
"#;

/// Writes the package to be built.
fn package() -> PathBuf {
    let library = env!("CARGO_MANIFEST_DIR");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("panic-free");
    fs::create_dir_all(folder.join("src")).expect("the folder can be made");
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).expect("the file can be written");
    let features = match () {
        () if cfg!(feature = "hardened") => "\"hardened\"",
        () if cfg!(feature = "sites") => "\"sites\"",
        () => "",
    };
    write("Cargo.toml", &MANIFEST.replace("LIBRARY", library).replace("FEATURES", features));
    write("src/main.rs", PROGRAM);
    let locked = fs::read_to_string(Path::new(library).join("Cargo.lock"));
    // Uses the lock file that this test was built with. Cargo drops the packages that the program does not need.
    write("Cargo.lock", &locked.unwrap_or_default());
    folder
}

fn build(folder: &Path, features: &str) -> Output {
    Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--offline", "--features", features])
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        // Flags for this test, such as those for coverage or sanitizers, add calls of their own.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .expect("cargo runs")
}

#[test]
fn no_call_can_panic() {
    let folder = package();
    let built = build(&folder, "");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let program = folder.join("target/release/panic-free");
    for arguments in [&[][..], &["one"], &["one", "two", "three"]] {
        let status = Command::new(&program).args(arguments).status().expect("the program starts");
        assert!(status.success(), "{arguments:?}: {status}");
    }
    // The same program with one panic does not link, so the test above means something.
    let built = build(&folder, "planted");
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(!built.status.success() && errors.contains(MISSING), "{errors}");
}
