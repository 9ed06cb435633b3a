//! Large blocks: one that grows to a gibibyte by doubling, in place or not, and one that is written and read at random.
//! Most of the cost is that of the system: pages, moves, and address translations.

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
/// The size of the small blocks that are allocated between the steps.
const SMALL: usize = 100;
/// The size of the block that is read.
const READ: usize = 512 * MIB;
const READS: usize = 20_000_000;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

fn milliseconds(start: Instant) -> Sample {
    Sample::Full(start.elapsed().as_secs_f64() * 1e3)
}

/// The measurements.
#[derive(Clone, Copy)]
enum Large {
    /// Doubling, and writing the new half, with small allocations in between.
    Grow,
    /// Doubling with allocations in between that are as large as the block and so many bytes more, and are not written,
    /// so that the block cannot stay in place.
    GrowPast(usize),
    /// Writing each byte of fresh memory.
    Write,
    /// Reading eight bytes at random places of memory that was written.
    Read,
}

/// Doubles a block until it has its last size. Each new half is written, as by a growing vector. Before each step a
/// block is allocated, whose size `between` derives from that of the block.
fn grow<A: GlobalAlloc>(heap: &A, between: impl Fn(usize) -> usize) -> Sample {
    let (mut size, last) = GROWTH;
    let mut kept = Vec::with_capacity(32);
    let start = Instant::now();
    // SAFETY: layouts are not empty; the block is live, has this layout, and each part of it is written within its
    // size.
    unsafe {
        let mut block = heap.alloc(layout(size));
        if block.is_null() {
            return Sample::Missing;
        }
        block.write_bytes(1, size);
        while size < last {
            kept.push((heap.alloc(layout(between(size))), layout(between(size))));
            block = heap.realloc(block, layout(size), 2 * size);
            if block.is_null() {
                return Sample::Missing;
            }
            // Otherwise the compiler sees that the block is never read, and removes it.
            block = black_box(block);
            block.add(size).write_bytes(1, size);
            size *= 2;
        }
        let sample = milliseconds(start);
        heap.dealloc(block, layout(size));
        kept.into_iter()
            .filter(|(block, _)| !block.is_null())
            .for_each(|(block, layout)| heap.dealloc(block, layout));
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
                // Each place depends on the bytes read before, so that reads wait for each other.
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
            Large::Grow => grow(&*heap, |_| SMALL),
            Large::GrowPast(more) => grow(&*heap, |size| size + more),
            Large::Write | Large::Read => write_and_read(&*heap, *self),
        }
    }
}

/// All measurements, in milliseconds.
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
        ("the same past large blocks", Large::GrowPast(0)),
        ("the same past odd ones", Large::GrowPast(SMALL)),
        ("write 512 MiB of fresh memory", Large::Write),
        ("20 million reads of 512 MiB", Large::Read),
    ] {
        table.push(name.to_owned(), compare(&names, options.rounds_or(3), &large));
    }
    table.finish(options.out.as_deref())
}
