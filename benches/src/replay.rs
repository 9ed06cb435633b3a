//! Replays traces: time per call.

use std::alloc::GlobalAlloc;
use std::hint::black_box;
use std::io;
use std::ptr;
use std::time::{Duration, Instant};

use crate::allocators::{self, Kind, Visitor};
use crate::child::{self, Calls};
use crate::options::{Options, Touch};
use crate::report::{Comparison, Sample, Session, interleave};
use crate::trace::{Action, Call, Trace};

/// A round has at least this many calls, or a short trace is repeated: a clock reading and cold caches at the start
/// must not count.
const CALLS_A_ROUND: usize = 500_000;

/// The clock is read after each piece of this many calls.
const PIECE: usize = 1 << 16;

/// Writes to a block as the recorded program would have done.
///
/// # Safety
///
/// `size` bytes at `block` are the caller's.
#[inline]
pub unsafe fn touch<const TOUCH: u8>(block: *mut u8, size: usize) {
    // SAFETY: the caller owns the block, and no block has size 0.
    unsafe {
        if TOUCH == Touch::First as u8 {
            block.write_volatile(1);
        } else if TOUCH == Touch::All as u8 {
            ptr::write_bytes(black_box(block), 0xA5, size);
        }
    }
}

/// The loop that is timed and counted, compiled once for each allocator. Returns the number of failed requests.
///
/// # Safety
///
/// `slots` has room for every slot of `calls`; the calls before these were made with the same
/// `heap` and `slots`.
#[inline(never)]
pub unsafe fn replay_piece<A: GlobalAlloc, const TOUCH: u8>(
    heap: &A,
    calls: &[Call],
    slots: *mut *mut u8,
) -> usize {
    let mut failed = 0;
    for call in calls {
        // SAFETY: the decoder numbers the slots; a slot holds a live block of the layout that
        // the call carries, or null after a failed request.
        unsafe {
            let slot = slots.add(call.slot());
            let block = match call.action() {
                Action::Alloc => heap.alloc(call.layout()),
                Action::Zeroed => heap.alloc_zeroed(call.layout()),
                Action::Realloc if (*slot).is_null() => heap.alloc(call.layout()),
                Action::Realloc => {
                    let moved = heap.realloc(*slot, call.old_layout(), call.size());
                    if moved.is_null() {
                        heap.dealloc(*slot, call.old_layout());
                    }
                    moved
                }
                Action::Free => {
                    if !(*slot).is_null() {
                        heap.dealloc(*slot, call.layout());
                    }
                    continue;
                }
            };
            *slot = block;
            if block.is_null() {
                failed += 1;
            } else {
                touch::<TOUCH>(block, call.size());
            }
        }
    }
    failed
}

/// The result of one pass over a trace.
pub struct Pass {
    /// The time of all calls.
    pub time: Duration,
    /// The number of calls made.
    pub calls: usize,
    /// The number of failed requests.
    pub failed: usize,
}

impl Pass {
    /// Per call.
    fn nanoseconds(&self) -> f64 {
        self.time.as_nanos() as f64 / self.calls as f64
    }
}

/// Makes the calls of the trace in pieces, to the end or to the time limit.
fn pass<A: GlobalAlloc, const TOUCH: u8>(
    heap: &A,
    trace: &Trace,
    slots: &mut [*mut u8],
    limit: Duration,
) -> Pass {
    let (mut failed, mut calls) = (0, 0);
    let start = Instant::now();
    for piece in trace.calls.chunks(PIECE) {
        // SAFETY: `slots` is made for this trace, and the pieces come in order.
        failed += unsafe { replay_piece::<A, TOUCH>(heap, piece, slots.as_mut_ptr()) };
        calls += piece.len();
        if start.elapsed() > limit {
            break;
        }
    }
    Pass { time: start.elapsed(), calls, failed }
}

/// Frees the blocks that the program leaked.
fn free_leaks<A: GlobalAlloc>(heap: &A, trace: &Trace, slots: &mut [*mut u8]) {
    // SAFETY: after the whole trace, each of these slots holds a live block of that layout.
    unsafe { replay_piece::<A, 0>(heap, &trace.leaks, slots.as_mut_ptr()) };
}

/// Opens the sessions of one trace.
struct Open<'a> {
    trace: &'a Trace,
    options: &'a Options,
}

impl<'a> Open<'a> {
    fn session<K: Kind, const TOUCH: u8>(&self) -> Session<'a> {
        let (trace, limit) = (self.trace, self.options.limit);
        let heap = K::create(self.options.region);
        let mut slots = vec![ptr::null_mut(); trace.slots];
        // The first pass faults in the pages, whose cost is the kernel's and not the allocator's.
        let first = pass::<K::Heap, TOUCH>(&heap, trace, &mut slots, limit);
        if first.failed > 0 {
            eprintln!("{}: {}: {} requests failed", K::NAME, trace.name, first.failed);
            return Box::new(|| Sample::Missing);
        }
        if first.calls < trace.calls.len() {
            let value = first.nanoseconds();
            return Box::new(move || Sample::Cut(value));
        }
        free_leaks(&*heap, trace, &mut slots);
        let passes = CALLS_A_ROUND.div_ceil(trace.calls.len());
        Box::new(move || {
            let mut sum = Pass { time: Duration::ZERO, calls: 0, failed: 0 };
            for _ in 0..passes {
                let pass = pass::<K::Heap, TOUCH>(&heap, trace, &mut slots, Duration::MAX);
                free_leaks(&*heap, trace, &mut slots);
                sum.time += pass.time;
                sum.calls += pass.calls;
            }
            Sample::Full(sum.nanoseconds())
        })
    }
}

impl<'a> Visitor for Open<'a> {
    type Output = Session<'a>;

    fn visit<K: Kind>(&self) -> Session<'a> {
        match self.options.touch {
            Touch::None => self.session::<K, { Touch::None as u8 }>(),
            Touch::First => self.session::<K, { Touch::First as u8 }>(),
            Touch::All => self.session::<K, { Touch::All as u8 }>(),
        }
    }
}

/// Replays every trace with every allocator and prints the time per call.
///
/// # Errors
///
/// If a trace cannot be read or a CSV file cannot be written.
pub fn run(options: &Options) -> io::Result<()> {
    let mut table = Comparison::new("replay", "ns per call", &options.only, &options.base);
    for trace in Trace::open_all(&options.traces, options.align)? {
        describe(&trace);
        let open = Open { trace: &trace, options };
        let mut sessions: Vec<Session<'_>> =
            options.only.iter().map(|name| allocators::visit(name, &open)).collect();
        table.push(&trace.name, interleave(&mut sessions, options.rounds_or(5)));
    }
    table.finish(options.out.as_deref())
}

/// One line about a trace, with the calls that had to be left out of it.
pub fn describe(trace: &Trace) {
    println!(
        "{}: {} calls, {} skipped, {} blocks and {:.1} MiB live at most, {} blocks never freed",
        trace.name,
        trace.calls.len(),
        trace.skipped,
        trace.slots,
        trace.peak_live as f64 / f64::from(1 << 20),
        trace.leaks.len(),
    );
}

/// One pass over a trace with a new heap.
pub struct Once<'a> {
    /// The trace.
    pub trace: &'a Trace,
    /// The size of the region in bytes.
    pub region: usize,
    /// The part of each block that is written.
    pub touch: Touch,
    /// The longest time it may take.
    pub limit: Duration,
}

impl Visitor for Once<'_> {
    type Output = Pass;

    fn visit<K: Kind>(&self) -> Pass {
        let heap = K::create(self.region);
        let mut slots = vec![ptr::dangling_mut(); self.trace.slots];
        // Faults in the table's pages, so that no pass pays for them.
        slots.fill(ptr::null_mut());
        match self.touch {
            Touch::None => pass::<K::Heap, { Touch::None as u8 }>(&heap, self.trace, &mut slots, self.limit),
            Touch::First => {
                pass::<K::Heap, { Touch::First as u8 }>(&heap, self.trace, &mut slots, self.limit)
            }
            Touch::All => pass::<K::Heap, { Touch::All as u8 }>(&heap, self.trace, &mut slots, self.limit),
        }
    }
}

/// Replays every trace in new processes, one for each allocator and round, and prints the time
/// per call with the page faults of fresh memory in it.
///
/// # Errors
///
/// If a trace cannot be read or a file cannot be written.
pub fn run_cold(options: &Options) -> io::Result<()> {
    let mut table = Comparison::new("cold", "ns per call in a new process", &options.only, &options.base);
    // A program writes to its blocks. Without that, only headers would cause page faults.
    let touch = if options.touch == Touch::All { Touch::All } else { Touch::First };
    let numbers = [options.region, touch as usize, options.limit.as_millis() as usize];
    for trace in Trace::open_all(&options.traces, options.align)? {
        describe(&trace);
        let calls = Calls::store(&trace)?;
        let mut sessions: Vec<Session<'_>> = Vec::new();
        for name in &options.only {
            let (calls, mut missing) = (&calls, false);
            sessions.push(Box::new(move || {
                if missing {
                    return Sample::Missing;
                }
                let sample = child::measure("cold-child", name, calls, &numbers).unwrap_or(Sample::Missing);
                missing = sample == Sample::Missing;
                sample
            }));
        }
        table.push(&trace.name, interleave(&mut sessions, options.rounds_or(5)));
    }
    table.finish(options.out.as_deref())
}

/// The process of [`run_cold`]: `allocator`, the file of calls, the size of the region, the part of each block that is
/// written, and the longest time in milliseconds.
///
/// # Errors
///
/// If the arguments are not these, a request fails or the time is up.
pub fn cold_child(arguments: &[String]) -> io::Result<()> {
    let (allocator, trace, [region, touch, limit]) = child::arguments(arguments)?;
    let touch = if touch == Touch::All as usize { Touch::All } else { Touch::First };
    let once = Once { trace: &trace, region, touch, limit: Duration::from_millis(limit as u64) };
    let pass = allocators::visit(allocator, &once);
    if pass.failed > 0 {
        return Err(io::Error::other(format!("{} requests failed", pass.failed)));
    }
    if pass.calls < trace.calls.len() {
        return Err(io::Error::other("stopped at the time limit"));
    }
    println!("{:.3}", pass.nanoseconds());
    Ok(())
}
