//! Large blocks: one that grows to a gibibyte by doubling, and one that is written and read at random. What counts is
//! what the system has to do for it: pages, moves, and translations of addresses.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::io;
use std::time::Instant;

use crate::allocators::{Kind, Visitor};
use crate::options::Options;
use crate::report::{Comparison, Sample, compare};
use crate::rng::Rng;

const MIB: usize = 1 << 20;
const REGION: usize = 4 << 30;
/// The first and the last size of the block that grows.
const GROWTH: (usize, usize) = (64 << 10, 1 << 30);
/// What is allocated after each step, so that the block cannot grow where it is.
const BETWEEN: Layout = Layout::new::<[u8; 100]>();
/// The block that is read.
const READ: usize = 512 * MIB;
const READS: usize = 20_000_000;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

fn milliseconds(start: Instant) -> Sample {
    Sample::Full(start.elapsed().as_secs_f64() * 1e3)
}

/// What is measured.
#[derive(Clone, Copy)]
enum Large {
    /// Doubling, and writing what is new.
    Grow,
    /// Writing each byte of fresh memory.
    Write,
    /// Reading eight bytes here and there in memory that was written.
    Read,
}

/// Doubles a block until it is as large as it gets. Each new half is written, as a vector that is pushed to would.
fn grow<A: GlobalAlloc>(heap: &A) -> Sample {
    let (mut size, last) = GROWTH;
    let mut between = Vec::with_capacity(32);
    let start = Instant::now();
    // SAFETY: layouts are not empty; the block is live, has this layout, and each part of it is written within its size.
    unsafe {
        let mut block = heap.alloc(layout(size));
        if block.is_null() {
            return Sample::Missing;
        }
        block.write_bytes(1, size);
        while size < last {
            between.push(heap.alloc(BETWEEN));
            block = heap.realloc(block, layout(size), 2 * size);
            if block.is_null() {
                return Sample::Missing;
            }
            // Else the compiler sees that nobody reads the block, and leaves out all of it.
            block = black_box(block);
            block.add(size).write_bytes(1, size);
            size *= 2;
        }
        let sample = milliseconds(start);
        heap.dealloc(block, layout(size));
        between.into_iter().filter(|small| !small.is_null()).for_each(|small| heap.dealloc(small, BETWEEN));
        sample
    }
}

fn write_and_read<A: GlobalAlloc>(heap: &A, large: Large) -> Sample {
    // SAFETY: the layout is not empty; the block is live, has this layout, and is read within its size after it was
    // written.
    unsafe {
        let block = heap.alloc(layout(READ));
        if block.is_null() {
            return Sample::Missing;
        }
        let start = Instant::now();
        block.write_bytes(1, READ);
        let mut sample = milliseconds(start);
        if matches!(large, Large::Read) {
            let mut random = Rng::new(1);
            let start = Instant::now();
            let mut sum = 0_u64;
            for _ in 0..READS {
                // Each place depends on what was read before, so that reads wait for each other.
                let place = (random.below(READ / 8) as u64).wrapping_add(sum & 1) as usize % (READ / 8);
                sum = sum.wrapping_add(block.cast::<u64>().add(place).read());
            }
            black_box(sum);
            sample = milliseconds(start);
        }
        heap.dealloc(block, layout(READ));
        sample
    }
}

impl Visitor for Large {
    type Output = Sample;

    fn visit<K: Kind>(&self) -> Sample {
        let heap = K::create(REGION);
        match self {
            Large::Grow => grow(&*heap),
            Large::Write | Large::Read => write_and_read(&*heap, *self),
        }
    }
}

/// The three measurements, in milliseconds.
///
/// # Errors
///
/// If a CSV file cannot be written.
pub fn run(options: &Options) -> io::Result<()> {
    let names = if options.chosen {
        options.only.clone()
    } else {
        vec!["smalloc", "smalloc-huge", "system", "jemalloc"]
    };
    let mut table = Comparison::new("large", "ms", &names, &options.base);
    for (name, large) in [
        ("grow to 1 GiB by doubling", Large::Grow),
        ("write 512 MiB of fresh memory", Large::Write),
        ("20 million reads of 512 MiB", Large::Read),
    ] {
        table.push(name.to_owned(), compare(&names, options.rounds_or(3), &large));
    }
    table.finish(options.out.as_deref())
}
