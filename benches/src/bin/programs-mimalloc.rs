//! The programs of `smalloc-bench programs`, with mimalloc.

#[path = "../programs/child.rs"]
mod child;

#[global_allocator]
static HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    child::main(&HEAP)
}
