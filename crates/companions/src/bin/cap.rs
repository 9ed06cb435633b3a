//! The crate `cap` around smalloc: a limit on the bytes that the program asks for, which can be set at any time.

use cap::Cap;
use smalloc::SmallocGlobal;

static HEAP: SmallocGlobal = SmallocGlobal::new();

#[global_allocator]
static LIMITED: Cap<&SmallocGlobal> = Cap::new(&HEAP, usize::MAX);

fn main() {
    let limit = LIMITED.allocated() + (1 << 20);
    LIMITED.set_limit(limit).expect("less is in use");
    let refused = Vec::<u8>::new().try_reserve(2 << 20).is_err();
    let granted = Vec::<u8>::new().try_reserve(1 << 19).is_ok();
    let (asked, stats) = (LIMITED.allocated(), HEAP.stats());
    println!("2 MiB refused: {refused}, 512 KiB granted: {granted}");
    // Rounding sizes up to 16 bytes is not counted by the wrapper.
    println!("asked for at most what is used: {}", asked <= stats.used_bytes);
    println!("requests that smalloc refused: {}", stats.failures);
}
