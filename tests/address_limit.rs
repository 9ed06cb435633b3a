//! Under a limit of addresses (`ulimit -v`), a heap without a requested size leaves half of the rest to the program.
#![cfg(target_os = "linux")]

mod case;

use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::os::unix::process::CommandExt;
use std::sync::{Arc, Barrier};
use std::thread;

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();
static SEVERAL: SmallocGlobal<Indexed, 4> = SmallocGlobal::new();
static LINKED: SmallocGlobal<Linked> = SmallocGlobal::new();
static NAMED: SmallocGlobal = SmallocGlobal::with_region_size(32 << 30);

const MEBIBYTE: usize = 1 << 20;
const THREADS: usize = 8;
const LIMIT: &str = "SMALLOC_TEST_LIMIT";

const CASES: [case::Case; 4] = [
    ("threads_start", threads_start),
    ("several_regions", || other_heap(&SEVERAL)),
    ("linked", || other_heap(&LINKED)),
    ("named", named),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn run(name: &str, limit: usize, region: &str) -> case::Outcome {
    let mut command = case::command(name);
    command.env(LIMIT, limit.to_string()).env("SMALLOC_REGION", region).env("RUST_BACKTRACE", "0");
    // glibc's own malloc would take 64 MiB of addresses for each thread, and twice as many for a moment.
    command.env("MALLOC_ARENA_MAX", "1");
    let limits = libc::rlimit { rlim_cur: limit as u64, rlim_max: limit as u64 };
    // SAFETY: between fork and exec only a call of the system is made.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_AS, &limits) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    case::finish(&format!("{name} under {limit} bytes"), &mut command)
}

fn limit() -> usize {
    std::env::var(LIMIT).expect("the test that starts this says").parse().expect("a number")
}

fn mapped() -> usize {
    case::status_bytes("VmSize").try_into().expect("as many as there are addresses")
}

/// Threads that live until this value is dropped.
struct Threads(Arc<Barrier>, Vec<thread::JoinHandle<()>>);

impl Threads {
    fn start() -> Self {
        let end = Arc::new(Barrier::new(THREADS + 1));
        let threads = (0..THREADS).map(|number| {
            let end = Arc::clone(&end);
            let started = thread::Builder::new().spawn(move || {
                // When all threads have started, and when they may end.
                end.wait();
                end.wait();
            });
            started.unwrap_or_else(|error| panic!("thread {number} of {THREADS}: {error}"))
        });
        let threads = threads.collect();
        // All threads run, and the C library has mapped its memory for them.
        end.wait();
        Self(end, threads)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.wait();
        self.1.drain(..).for_each(|thread| thread.join().expect("it ends well"));
    }
}

/// The heap is mapped before `main`.
fn threads_start() {
    let size = HEAP.stats().region_size;
    assert!(size <= limit() / 2, "{size} of {} bytes", limit());
    let _threads = Threads::start();
    // Half of the limit, less the tables and less what was mapped before.
    assert!(size >= (limit() - 32 * MEBIBYTE) / 32 * 15, "{size} of {}", limit());
}

/// Maps a heap when threads have already started.
fn other_heap<L: FreeList, const REGIONS: usize>(heap: &SmallocGlobal<L, REGIONS>) {
    let _before = Threads::start();
    let left = limit() - mapped();
    heap.init().expect("there are addresses");
    let taken = left - (limit() - mapped());
    // A stride is a power of two.
    let least = if REGIONS == 1 { left / 32 * 15 } else { left / 5 };
    assert!(taken <= left / 2 + MEBIBYTE && taken >= least, "{taken} of {left} bytes");
    let _after = Threads::start();
    assert!(heap.smalloc(std::alloc::Layout::new::<[u8; 1 << 16]>()).0.is_some());
}

#[test]
fn threads_can_be_started_under_any_limit_of_addresses() {
    let mut limit = 200 * MEBIBYTE;
    while limit <= 8 << 30 {
        let outcome = run("threads_start", limit, "");
        outcome.assert_success();
        assert_eq!(outcome.stderr, "");
        limit += limit / 7;
    }
    run("threads_start", 1_070_000 << 10, "").assert_success();
}

#[test]
fn each_further_heap_takes_half_of_the_rest() {
    for limit in [400 * MEBIBYTE, 1_070_000 << 10, 5 << 30] {
        run("several_regions", limit, "").assert_success();
        run("linked", limit, "").assert_success();
    }
}

/// A size that the program or its user has requested is taken as it is, or as much of it as possible. If that is
/// little, it is reported.
fn named() {
    NAMED.init().expect("there are addresses");
    let wanted = std::env::var("SMALLOC_REGION").expect("it is set");
    assert_eq!(HEAP.stats().region_size >> 20, wanted.trim_end_matches('M').parse().expect("a number"));
}

#[test]
fn requested_sizes_are_taken_and_small_ones_are_reported() {
    let outcome = run("named", 1 << 30, "700M");
    outcome.assert_success();
    assert!(outcome.stderr.starts_with("smalloc: SMALLOC_REGION: a region has "), "{}", outcome.stderr);
    assert!(outcome.stderr.contains(" bytes, since the system refused 34359738368 "), "{}", outcome.stderr);
    assert_eq!(outcome.stderr.lines().count(), 1);
    let outcome = run("named", 8 << 30, "700M");
    outcome.assert_success();
    assert_eq!(outcome.stderr, "");
}
