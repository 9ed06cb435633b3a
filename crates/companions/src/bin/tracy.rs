//! `ProfiledAllocator` of the crate `tracy-client` around smalloc: each allocation and free in the profiler Tracy, and
//! smalloc's own numbers as plots beside them.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use smalloc::SmallocGlobal;
use tracy_client::{Client, ProfiledAllocator, plot};

static HEAP: SmallocGlobal = SmallocGlobal::new();

/// No call stacks: Tracy would take one at every call.
#[global_allocator]
static PROFILED: ProfiledAllocator<&SmallocGlobal> = ProfiledAllocator::new(&HEAP, 0);

fn main() {
    let client = Client::start();
    // The argument is how many seconds to work for; without one it is a moment.
    let seconds = env::args().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
    let (begin, mut words, mut rounds) = (Instant::now(), Vec::new(), 0_u64);
    while rounds < 100 || begin.elapsed() < Duration::from_secs(seconds) {
        words.push(format!("word {rounds}"));
        if rounds % 3 == 0 {
            words.swap_remove(words.len() / 2);
        }
        let stats = HEAP.stats();
        plot!("smalloc used bytes", stats.used_bytes as f64);
        plot!("smalloc holes", stats.holes() as f64);
        client.frame_mark();
        rounds += 1;
        if seconds > 0 {
            thread::sleep(Duration::from_millis(10));
        }
    }
    println!(
        "the profiler has seen {}",
        if Client::is_connected() { "all" } else { "nothing: it was not connected" }
    );
    println!("allocations of smalloc: {}", HEAP.stats().allocs);
}
