//! The programs of `smalloc-bench programs`, with jemalloc.

#[path = "../programs/child.rs"]
mod child;

#[global_allocator]
static HEAP: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    child::main(&HEAP)
}
