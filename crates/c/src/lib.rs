//! smalloc for C: the calls of `smalloc.h`, and a `malloc` for any program.
//!
//! `build` makes three libraries of this crate: `libsmalloc.so.0` and `libsmalloc.a` with the calls of `smalloc.h`, and
//! `libsmalloc-preload.so` with `malloc` and its kind. `docs/c.md` has their use.
//!
//! - `seed`: `my_init`, `smalloc`, `sfree`
//! - `heaps`: `smalloc_heap_new` and the other calls on several heaps
//! - `malloc`: the work of `malloc` and its kind, under the names that `preload.c` calls; `info`: their numbers
//! - `payload`: a block of the heap, with the feature `hardened` with a canary
//! - `nowhere`: blocks of no bytes; `mapped`: blocks with mappings of their own; `foreign`: blocks of the C library's
//!   own `malloc`
//! - `global`: the heap of the preload library
//! - `system`: `errno`, messages
//!
//! No function here has the name of a C function that allocates. A compiler that knows `malloc` by name may take a
//! `calloc` made of it apart, so those names exist only in `preload.c`, which is compiled with `-fno-builtin`.

#![no_std]
#![warn(missing_docs, unsafe_op_in_unsafe_fn)]
#![warn(
    clippy::undocumented_unsafe_blocks,
    clippy::missing_safety_doc,
    clippy::multiple_unsafe_ops_per_block
)]
#![deny(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

// The C libraries are built with `panic = "abort"` and without `std`. Every other build is for tests and lints, and
// takes the panic handler from `std`.
#[cfg(not(panic = "abort"))]
extern crate std;

mod foreign;
mod global;
pub mod heaps;
pub mod info;
pub mod malloc;
mod mapped;
mod nowhere;
mod payload;
pub mod seed;
mod system;

#[cfg(panic = "abort")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    system::fatal(format_args!("a panic in the C library"))
}
