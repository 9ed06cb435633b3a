//! The programs of `smalloc-bench programs`, with the system's allocator.

#[path = "../programs/child.rs"]
mod child;

#[global_allocator]
static HEAP: std::alloc::System = std::alloc::System;

fn main() -> std::process::ExitCode {
    child::main(&HEAP)
}
