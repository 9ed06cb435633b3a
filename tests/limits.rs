//! The limits of the system and the end of the region: null if nothing fits, and all of the region is usable again
//! after frees.

mod case;

use case::{mappings, set_limit, status_bytes};
use smalloc::SmallocGlobal;
use std::alloc::{GlobalAlloc, Layout};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::ptr;

/// Small enough to be filled.
#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(PROGRAM_REGION);
/// As large as a region is by default.
static LARGE: SmallocGlobal = SmallocGlobal::new();
static SECOND: SmallocGlobal = SmallocGlobal::with_region_size(1 << 30);

const PROGRAM_REGION: usize = 16 << 20;
const MEBIBYTE: usize = 1 << 20;
const PIECE: Layout = Layout::new::<[u8; 1 << 20]>();
/// Holds the limit of a case, in bytes.
const LIMIT: &str = "SMALLOC_TEST_LIMIT";
/// A generous allowance for the memory of a program, its libraries and its stacks beside the heap.
const PROGRAM: usize = 24 * MEBIBYTE;

const CASES: [case::Case; 16] = [
    ("address_space", address_space),
    ("data", data),
    ("data_lifted", data_lifted),
    ("one_mebibyte_of_addresses", || one_mebibyte(libc::RLIMIT_AS, "VmSize")),
    ("one_mebibyte_of_data", || one_mebibyte(libc::RLIMIT_DATA, "VmData")),
    ("addresses_from_a_mebibyte_up", || from_a_mebibyte_up(libc::RLIMIT_AS, "VmSize")),
    ("data_from_a_mebibyte_up", || from_a_mebibyte_up(libc::RLIMIT_DATA, "VmData")),
    ("no_addresses", no_addresses),
    ("mapping_count", mapping_count),
    ("data_follows_use", data_follows_use),
    ("core_follows_use", core_follows_use),
    ("full_vec", full_vec),
    ("full_panic", full_panic),
    ("full_string_panic", full_string_panic),
    ("full_hook", full_hook),
    ("full_threads", full_threads),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

// ---- limits from before the program starts ------------------------------------------------------------------------

fn limit() -> usize {
    std::env::var(LIMIT).expect("the test that starts this says").parse().expect("a number")
}

/// Allocates pieces until null, which every further attempt returns too, and returns the number of pieces. Touches
/// none, since only addresses are counted. A success leaves `errno`, though larger steps were refused before.
fn take_all(heap: &SmallocGlobal, pieces: &mut Vec<*mut u8>) -> usize {
    let before = pieces.len();
    loop {
        case::set_errno(libc::EDOM);
        // SAFETY: the layout is not empty.
        let piece = unsafe { heap.alloc(PIECE) };
        if piece.is_null() {
            break;
        }
        assert_eq!(case::errno(), libc::EDOM);
        pieces.push(piece);
    }
    for _again in 0..3 {
        // SAFETY: as above.
        assert!(unsafe { heap.alloc(PIECE) }.is_null());
    }
    pieces.len() - before
}

fn give_all(heap: &SmallocGlobal, pieces: &mut Vec<*mut u8>) {
    for piece in pieces.drain(..) {
        // SAFETY: the block is live and has this layout.
        unsafe { heap.dealloc(piece, PIECE) };
    }
}

/// Allocates all pieces twice, and frees all in between; returns their number.
fn take_all_twice(heap: &SmallocGlobal) -> usize {
    let mut pieces = Vec::with_capacity(1 << 15);
    let count = take_all(heap, &mut pieces);
    // SAFETY: the first and the last piece are live, and their last bytes may be written.
    for piece in [pieces[0], pieces[count - 1]] {
        // SAFETY: as above.
        unsafe { piece.add(PIECE.size() - 1).write(1) };
    }
    give_all(heap, &mut pieces);
    assert_eq!(heap.stats().used_bytes, 0);
    assert_eq!(take_all(heap, &mut pieces), count);
    give_all(heap, &mut pieces);
    heap.check().expect("the heap is sound");
    count
}

/// The region is halved until it fits, so the heap gets at least a quarter of what the limit leaves.
fn address_space() {
    let count = take_all_twice(&LARGE);
    let free = limit() - PROGRAM;
    assert!(count * MEBIBYTE >= free / 4, "{count} MiB of {free} bytes");
    assert!(count * MEBIBYTE < limit());
    assert!(count * MEBIBYTE + 2 * MEBIBYTE > LARGE.stats().region_size, "{count} MiB of the region");
}

/// The limit counts committed and not reserved memory, so the heap gets all of it except the program's own part and the
/// tables, about a sixtieth.
fn data() {
    let count = take_all_twice(&LARGE);
    assert_eq!(LARGE.stats().region_size, 32 << 30);
    let with_tables = count * MEBIBYTE / 32 * 33;
    assert!(with_tables + PROGRAM > limit(), "{count} MiB of {} bytes", limit());
    assert!(count * MEBIBYTE < limit());
}

#[cfg(target_os = "linux")]
fn run_limited(name: &str, resource: libc::__rlimit_resource_t, limit: usize) {
    let mut command = case::command(name);
    command.env(LIMIT, limit.to_string());
    let limits = libc::rlimit { rlim_cur: limit as u64, rlim_max: limit as u64 };
    // SAFETY: between fork and exec only a call of the system is made.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(resource, &limits) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        })
    };
    case::finish(&format!("{name} of {limit} bytes"), &mut command).assert_success();
}

#[test]
fn starts_and_recovers_under_any_limit_of_addresses() {
    for limit in [64 * MEBIBYTE, 256 * MEBIBYTE, 1 << 30, 8 << 30] {
        run_limited("address_space", libc::RLIMIT_AS, limit);
    }
}

#[test]
fn starts_and_recovers_under_any_limit_of_data() {
    for limit in [64 * MEBIBYTE, 256 * MEBIBYTE, 1 << 30, 8 << 30] {
        run_limited("data", libc::RLIMIT_DATA, limit);
    }
}

// ---- limits that come and go -------------------------------------------------------------------------------------

/// A request that was refused under a limit succeeds when the limit is lifted.
fn data_lifted() {
    LARGE.init().expect("addresses are free");
    let mut pieces = Vec::with_capacity(1 << 12);
    let before = set_limit(libc::RLIMIT_DATA, status_bytes("VmData") + (8 << 20));
    let few = take_all(&LARGE, &mut pieces);
    assert!((4..=8).contains(&few), "{few} MiB");
    assert_eq!(LARGE.stats().live_segments, few);
    LARGE.check().expect("the heap is sound");
    set_limit(libc::RLIMIT_DATA, status_bytes("VmData") + (100 << 20));
    let more = take_all(&LARGE, &mut pieces);
    assert!((95..=101).contains(&more), "{more} MiB");
    set_limit(libc::RLIMIT_DATA, before);
    // SAFETY: the layout is not empty.
    assert!(!unsafe { LARGE.alloc(PIECE) }.is_null());
}

/// A mebibyte is enough for a heap to start and to serve some requests.
fn one_mebibyte(resource: libc::__rlimit_resource_t, counted: &str) {
    let used = status_bytes(counted);
    let before = set_limit(resource, used + MEBIBYTE as u64);
    let ready = LARGE.init();
    let layout = Layout::new::<[u8; 4096]>();
    // SAFETY: the layout is not empty.
    let block = unsafe { LARGE.alloc(layout) };
    set_limit(resource, before);
    ready.expect("a mebibyte is enough");
    assert!(!block.is_null());
    // SAFETY: the block is live and has this layout.
    unsafe { LARGE.dealloc(block, layout) };
}

/// Every limit that leaves between one mebibyte and a hundred: a new heap starts under it, and serves some requests.
fn from_a_mebibyte_up(resource: libc::__rlimit_resource_t, counted: &str) {
    const SMALL: Layout = Layout::new::<[u8; 4096]>();
    let mut left = MEBIBYTE;
    while left < 100 * MEBIBYTE {
        let heap: SmallocGlobal = SmallocGlobal::new();
        let before = set_limit(resource, status_bytes(counted) + left as u64);
        let ready = heap.init();
        // SAFETY: the layout is not empty.
        let block = unsafe { heap.alloc(SMALL) };
        set_limit(resource, before);
        ready.unwrap_or_else(|error| panic!("{error}, with {left} bytes left"));
        assert!(!block.is_null(), "{left} bytes are left");
        // SAFETY: the block is live and has this layout.
        unsafe { heap.dealloc(block, SMALL) };
        left += left / 64;
    }
}

/// Not one page is left: the heap returns null and an error with its reason, and a later attempt succeeds.
fn no_addresses() {
    let before = set_limit(libc::RLIMIT_AS, status_bytes("VmSize"));
    let refused = SECOND.init();
    // SAFETY: the layout is not empty.
    let block = unsafe { SECOND.alloc(PIECE) };
    let (none, status) = SECOND.smalloc(PIECE);
    set_limit(libc::RLIMIT_AS, before);
    assert!(block.is_null() && none.is_none() && !status.success);
    let error = refused.expect_err("no address is free");
    assert_eq!((error.errno, error.region_size), (libc::ENOMEM, 1 << 30));
    let text = error.to_string();
    assert!(text.contains("1073741824") && text.contains("Cannot allocate memory"), "{text}");
    // SAFETY: as above.
    assert!(!unsafe { SECOND.alloc(PIECE) }.is_null());
    assert_eq!(SECOND.stats().region_size, 1 << 30);
}

#[test]
fn lifted_limits_are_noticed() {
    case::run("data_lifted").assert_success();
    case::run("no_addresses").assert_success();
}

#[test]
fn a_mebibyte_is_enough() {
    case::run("one_mebibyte_of_data").assert_success();
    case::run("one_mebibyte_of_addresses").assert_success();
    case::run("addresses_from_a_mebibyte_up").assert_success();
    case::run("data_from_a_mebibyte_up").assert_success();
}

// ---- what the system sees ----------------------------------------------------------------------------------------

/// Region and tables are two mappings each, an open one and a closed one, whatever the heap holds. The small tables
/// have moved by the time it holds 256 MiB.
fn mapping_count() {
    let mut pieces = Vec::with_capacity(1 << 10);
    let none = mappings().len();
    LARGE.init().expect("addresses are free");
    for _ in 0..300 {
        // SAFETY: the layout is not empty.
        pieces.push(unsafe { LARGE.alloc(PIECE) });
    }
    let few = mappings().len();
    assert!(few <= none + 18, "{none} and {few}");
    for _ in 0..500 {
        // SAFETY: as above.
        pieces.push(unsafe { LARGE.alloc(PIECE) });
        assert!(mappings().len() <= few, "after {} MiB", pieces.len());
    }
    give_all(&LARGE, &mut pieces);
    assert!(mappings().len() <= few);
}

/// Neither the reservation of 32 GiB nor its tables count as data. Committed memory is at most a quarter more than
/// memory in use, and 32 MiB.
fn data_follows_use() {
    let before = status_bytes("VmData");
    LARGE.init().expect("addresses are free");
    let reserved = status_bytes("VmData") - before;
    assert!(reserved <= 1 << 20, "{reserved} bytes for an empty heap");
    for mebibytes in 1..=300 {
        // SAFETY: the layout is not empty.
        let piece = unsafe { LARGE.alloc(PIECE) };
        // SAFETY: the block is live and has this size.
        unsafe { piece.write_bytes(1, 4096) };
        let data = status_bytes("VmData") - before;
        let used = mebibytes * MEBIBYTE as u64;
        assert!(data >= used, "{data} of {used} bytes");
        assert!(data <= used + used / 4 + used / 20 + (2 << 20), "{data} of {used} bytes");
        assert!(status_bytes("VmRSS") < 64 << 20, "memory that nobody touched is taken");
    }
}

/// Aborts with a core file allowed, in a folder of its own.
fn core_follows_use() {
    set_limit(libc::RLIMIT_CORE, u64::MAX);
    for _ in 0..16 {
        // SAFETY: the layout is not empty.
        let piece = unsafe { LARGE.alloc(PIECE) };
        // SAFETY: the block is live and has this size.
        unsafe { piece.write_bytes(1, PIECE.size()) };
    }
    // SAFETY: none; this ends the process.
    unsafe { LARGE.dealloc(ptr::without_provenance_mut(1), PIECE) };
}

#[test]
fn mappings_stay_few() {
    case::run("mapping_count").assert_success();
}

#[test]
fn data_counts_only_committed_memory() {
    case::run("data_follows_use").assert_success();
}

/// Checked if the system writes core files into the folder of the process.
#[test]
fn core_files_contain_only_committed_memory() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let folder =
        std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("core-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let outcome = case::finish("core_follows_use", case::command("core_follows_use").current_dir(&folder));
    assert_eq!(outcome.status.signal(), Some(libc::SIGABRT), "{}", outcome.stderr);
    assert!(outcome.stderr.starts_with("smalloc: foreign pointer: 0x1 "), "{}", outcome.stderr);
    let files = std::fs::read_dir(&folder).expect("it was made").flatten();
    let sizes: Vec<u64> = files.map(|file| file.metadata().expect("it is there").len()).collect();
    std::fs::remove_dir_all(&folder).expect("it was made here");
    if outcome.status.core_dumped() && !pattern.starts_with(['|', '/']) {
        assert_eq!(sizes.len(), 1);
        assert!((16 << 20..64 << 20).contains(&sizes[0]), "{} bytes", sizes[0]);
    }
}

// ---- a full region -----------------------------------------------------------------------------------------------

/// Waits until no other thread runs, since the one that waits for this test allocates memory for that.
fn wait_for_the_others() {
    // SAFETY: the call has no preconditions.
    let me = unsafe { libc::gettid() };
    let others_sleep = || {
        let tasks = std::fs::read_dir("/proc/self/task").expect("the system tells");
        let mut threads = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
        threads.all(|thread| thread == me || case::sleeps(thread))
    };
    while !others_sleep() {
        std::thread::yield_now();
    }
}

/// Fills the program's own heap to the last granule.
fn fill() {
    for size in [MEBIBYTE, 4096, 16] {
        let layout = Layout::from_size_align(size, 1).expect("a layout");
        // SAFETY: the layout is not empty.
        while !unsafe { HEAP.alloc(layout) }.is_null() {}
    }
    assert_eq!(HEAP.stats().free_bytes, 0);
}

fn full_vec() {
    wait_for_the_others();
    fill();
    let words: Vec<u64> = Vec::with_capacity(std::hint::black_box(100));
    drop(words);
}

fn full_panic() {
    wait_for_the_others();
    fill();
    panic!("nothing is left");
}

fn full_string_panic() {
    wait_for_the_others();
    fill();
    let free = HEAP.stats().free_bytes;
    panic!("{free} bytes are left");
}

/// The hook needs memory, too.
fn full_hook() {
    std::panic::set_hook(Box::new(|info| eprintln!("{}", info.to_string().repeat(2))));
    wait_for_the_others();
    fill();
    panic!("nothing is left");
}

/// All threads fail at once, and all of them write a message.
fn full_threads() {
    let start = std::sync::Barrier::new(4);
    std::thread::scope(|scope| {
        for number in 0..4 {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                if number == 0 {
                    fill();
                }
                let mut kept = Vec::new();
                loop {
                    kept.push(Box::new([number; 100]));
                }
            });
        }
    });
}

/// The messages are those of the standard library, which writes them if that takes no memory: reading `RUST_BACKTRACE`
/// and formatting a message take some.
#[test]
fn a_full_heap_ends_the_process_with_its_message() {
    for (name, backtrace, message) in [
        ("full_vec", None, "memory allocation of 800 bytes failed\n"),
        ("full_vec", Some("1"), "memory allocation of 800 bytes failed\n"),
        ("full_panic", None, "nothing is left\n"),
        ("full_panic", Some("1"), "memory allocation of 1 bytes failed\n"),
        ("full_string_panic", None, "memory allocation of "),
        ("full_hook", None, "memory allocation of "),
        ("full_hook", Some("1"), "memory allocation of "),
        ("full_threads", None, "memory allocation of "),
        ("full_threads", Some("1"), "memory allocation of "),
    ] {
        let mut command = case::command(name);
        command.envs(backtrace.map(|value| ("RUST_BACKTRACE", value)));
        let outcome = case::finish(name, &mut command);
        assert_eq!(outcome.status.signal(), Some(libc::SIGABRT), "{name}: {}", outcome.stderr);
        assert!(outcome.stderr.contains(message), "{name}: {}", outcome.stderr);
    }
}
