//! The programs of `smalloc-bench programs`, with smalloc.

#[path = "../programs/child.rs"]
mod child;

#[global_allocator]
static HEAP: smalloc::SmallocGlobal = smalloc::SmallocGlobal::new();

fn main() -> std::process::ExitCode {
    child::main(&HEAP)
}
