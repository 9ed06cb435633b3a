//! The first steps of a first-fit heap: map 64 KiB, allocate 128 bytes, print their offset and the hops of the search,
//! free them; and print the heap after each step.

mod common;

use std::alloc::Layout;
use std::process::ExitCode;

use common::Outcome;
use lexopt::prelude::*;
use smalloc::{FreeList, Heap, Indexed, Linked};
use smalloc_terminal::{List, parse_size};

const HELP: &str = "\
Map a region, allocate from it, free it, and show the heap after each step.

usage: seed [OPTIONS]

  --size SIZE      how much to allocate [default: 128]
  --region SIZE    the size of the heap [default: 64K]
  --list LIST      the free list: linked or indexed [default: linked]
  -h, --help       print this
";

struct Options {
    size: usize,
    region: usize,
    list: List,
}

fn options() -> Result<Options, lexopt::Error> {
    let mut options = Options { size: 128, region: 64 << 10, list: List::Linked };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => common::help(HELP),
            Long("size") => options.size = parser.value()?.parse_with(parse_size)?,
            Long("region") => options.region = parser.value()?.parse_with(parse_size)?,
            Long("list") => options.list = parser.value()?.parse()?,
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    common::main(|| {
        let options = options()?;
        match options.list {
            List::Linked => steps::<Linked>(options.region, options.size),
            List::Indexed => steps::<Indexed>(options.region, options.size),
        }
    })
}

fn steps<L: FreeList>(region: usize, size: usize) -> Outcome {
    let layout =
        Layout::from_size_align(size, 1).map_err(|_| format!("{size} bytes are more than there can be"))?;
    let mut heap = Heap::<L>::with_region_size(region)?;
    println!("map {} bytes, with the {} free list", heap.region_size(), L::NAME);
    show(&heap)?;

    let (payload, status) = heap.smalloc(layout);
    println!("allocate {size} bytes");
    let (Some(payload), Some(offset)) = (payload, status.payload_offset) else {
        return Err(format!("no free segment can hold {size} bytes").into());
    };
    println!("  the payload is at offset {offset}, found in {} hops", status.hops);
    show(&heap)?;

    // SAFETY: the payload belongs to the heap, and nothing uses it any more.
    unsafe { heap.sfree(payload) };
    println!("free them");
    show(&heap)
}

/// Prints the segments of a heap, which tile its region, and checks it.
fn show<L: FreeList>(heap: &Heap<L>) -> Outcome {
    heap.check()?;
    println!("  {:>10} {:>10}", "offset", "size");
    for segment in heap.snapshot()?.segments() {
        let state = if segment.in_use { "in use" } else { "free" };
        println!("  {:>10} {:>10}  {state}", segment.offset, segment.size);
    }
    println!();
    Ok(())
}
