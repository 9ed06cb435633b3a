//! Peak footprint of the replays: resident growth over the most bytes that are live at the same time.
//!
//! Each allocator replays each trace once in a process of its own, and every byte of every block is written. The calls
//! and the table of blocks are in memory before the first measurement, so all growth is due to the allocator: blocks,
//! headers, tables, and pages kept for later.

use std::alloc::GlobalAlloc;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr;
use std::time::{Duration, Instant};

use crate::allocators::{self, Kind, Visitor};
use crate::child::{self, Calls};
use crate::options::{Options, Touch};
use crate::replay::{describe, replay_piece};
use crate::report::{Comparison, Sample};
use crate::trace::{Call, Trace};

/// The resident memory is read this many times in a replay, in addition to the reading at the peak.
const READINGS: usize = 400;

/// Reads the anonymous resident memory of this process without allocating. Pages of the program file, which are not
/// anonymous, do not count for the allocator.
pub struct Resident {
    file: File,
}

impl Resident {
    /// Opens the system's statistics of this process.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub fn open() -> io::Result<Self> {
        Ok(Self { file: File::open("/proc/self/smaps_rollup")? })
    }

    /// Bytes.
    ///
    /// # Errors
    ///
    /// If the statistics cannot be read.
    pub fn read(&self) -> io::Result<usize> {
        let mut text = [0; 4096];
        let length = self.file.read_at(&mut text, 0)?;
        let line = text[..length]
            .split(|byte| *byte == b'\n')
            .find_map(|line| line.strip_prefix(b"Anonymous:"))
            .ok_or(io::ErrorKind::InvalidData)?;
        let digits = line.iter().filter(|byte| byte.is_ascii_digit());
        Ok(digits.fold(0, |number, digit| number * 10 + usize::from(digit - b'0')) * 1024)
    }
}

/// A replay may take this many times the limit: it writes every byte, and is interrupted by many readings.
const PATIENCE: u32 = 10;

/// Replays and measures in this process.
struct Measure<'a> {
    trace: &'a Trace,
    region: usize,
    limit: Duration,
}

impl Measure<'_> {
    /// The calls in pieces with a reading after each.
    fn pieces(&self) -> impl Iterator<Item = &[Call]> {
        let (before, after) = self.trace.calls.split_at(self.trace.peak_at);
        let length = self.trace.calls.len().div_ceil(READINGS).max(1);
        before.chunks(length).chain(after.chunks(length))
    }
}

impl Visitor for Measure<'_> {
    /// The growth at the peak in bytes.
    type Output = io::Result<usize>;

    fn visit<K: Kind>(&self) -> io::Result<usize> {
        let mut slots = vec![ptr::dangling_mut::<u8>(); self.trace.slots];
        slots.fill(ptr::null_mut());
        let resident = Resident::open()?;
        // SAFETY: these calls only change how the process's memory is backed. Memory that decoding has freed in the
        // system's heap is returned, and the readings count small pages.
        unsafe {
            libc::malloc_trim(0);
            libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
        }
        let before = resident.read()?;
        let heap = K::create(self.region);
        let (start, mut most) = (Instant::now(), before);
        for piece in self.pieces() {
            let failed = all_written(&*heap, piece, &mut slots);
            if start.elapsed() > self.limit {
                return Err(io::Error::other("stopped at the time limit"));
            }
            if failed > 0 {
                return Err(io::Error::other(format!("{failed} requests failed")));
            }
            most = most.max(resident.read()?);
        }
        Ok(most - before)
    }
}

fn all_written<A: GlobalAlloc>(heap: &A, piece: &[Call], slots: &mut [*mut u8]) -> usize {
    // SAFETY: the slots are made for the trace, and its pieces come in order.
    unsafe { replay_piece::<A, { Touch::All as u8 }>(heap, piece, slots.as_mut_ptr()) }
}

/// Measures every trace with every allocator.
///
/// # Errors
///
/// If a trace cannot be read or a file cannot be written.
pub fn run(options: &Options) -> io::Result<()> {
    let title = "footprint";
    let unit = "peak resident growth over peak live bytes";
    let mut table = Comparison::new(title, unit, &options.only, &options.base).with_decimals(3);
    let limit = (PATIENCE * options.limit).as_millis() as usize;
    for trace in Trace::open_all(&options.traces, options.align)? {
        describe(&trace);
        let calls = Calls::store(&trace)?;
        let mut samples = Vec::new();
        for allocator in &options.only {
            let growth = child::measure("footprint-child", allocator, &calls, &[options.region, limit])?;
            samples.push(vec![growth.over(Sample::Full(trace.peak_live as f64))]);
        }
        table.push(&trace.name, samples);
    }
    table.finish(options.out.as_deref())
}

/// The process that is measured: `allocator`, the file of calls, the size of the region and the
/// longest time in milliseconds.
///
/// # Errors
///
/// If the arguments are not these, the file cannot be read or a request fails.
pub fn child(arguments: &[String]) -> io::Result<()> {
    let (allocator, trace, [region, limit]) = child::arguments(arguments)?;
    let measure = Measure { trace: &trace, region, limit: Duration::from_millis(limit as u64) };
    println!("{}", allocators::visit(allocator, &measure)?);
    Ok(())
}
