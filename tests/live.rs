//! A heap that publishes: the numbers that other processes read, and that publishing disturbs nothing.

mod case;

use smalloc::{
    FreeList, Indexed, Linked, Live, LiveError, PrometheusOptions, PrometheusSource, SmallocGlobal, Stats,
};
use std::alloc::{GlobalAlloc, Layout};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(256 << 20);
static FIRST: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
static SECOND: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(1 << 20);
static THIRD: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
static BUSY: SmallocGlobal = SmallocGlobal::with_region_size(64 << 20);

/// The variable that names the file.
const VARIABLE: &str = "SMALLOC_LIVE";
/// Holds the path of a case's file.
const FILE: &str = "SMALLOC_TEST_FILE";

const CASES: [case::Case; 6] = [
    ("lives", lives),
    ("forks", forks),
    ("starts_another", starts_another),
    ("says_its_number", || case::write(&format!("\nnumber {}\n", std::process::id()))),
    ("too_large", too_large),
    ("just_fits", just_fits),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

/// A path at which there is no file, and none after the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let name = format!("smalloc-live-test-{}-{name}", std::process::id());
        let place = Self(std::env::temp_dir().join(name));
        let _ = std::fs::remove_file(&place.0);
        place
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("a temporary path is text")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

// ---- every call --------------------------------------------------------------------------------------------------

/// After every call of a heap, the published numbers are the current ones.
fn follow<L: FreeList>(heap: &SmallocGlobal<L>, name: &str) {
    let place = Place::new(name);
    heap.publish_to(place.text()).expect("it can be published");
    assert_eq!(heap.publish_to(place.text()), Err(LiveError::AlreadyPublishing));
    let live = Live::open(place.text()).expect("there is a page");
    assert_eq!((live.process(), live.list()), (std::process::id(), L::NAME));
    let mut calls = 0;
    let mut called = |used: usize, count: u64| {
        calls += count;
        let published = live.read();
        assert_eq!((published.calls, published.used_bytes, published.top), (calls, used, heap.stats().top));
        assert_eq!(heap.stats().used_bytes, used);
    };
    // SAFETY: layouts are not empty; blocks are live when they are used, and have these layouts.
    unsafe {
        let plain = heap.alloc(layout(100));
        called(112, 1);
        let zeroed = heap.alloc_zeroed(layout(200));
        called(320, 1);
        // A move is two steps: the new place is in use before the old one is free.
        let moved = heap.realloc(plain, layout(100), 300);
        called(512, 1);
        let kept = heap.realloc(moved, layout(300), 200);
        called(416, 1);
        let block = heap.smalloc(layout(16)).0.expect("there is room");
        called(432, 1);
        heap.sfree(block);
        called(416, 1);
        heap.dealloc(zeroed, layout(200));
        called(208, 1);
        heap.dealloc(kept, layout(200));
        called(0, 1);
        assert!(heap.alloc(layout(2 << 20)).is_null());
        called(0, 1);
    }
    assert!(heap.stop_publishing() && !heap.stop_publishing());
    let (published, stats) = (live.read(), heap.stats());
    assert_eq!((published.stats, published.calls_since, published.stopped), (stats, 0, true));
    // SAFETY: as above.
    unsafe { heap.dealloc(heap.alloc(layout(100)), layout(100)) };
    assert_eq!(live.read().calls, published.calls, "it has stopped");
}

#[test]
fn every_call_is_seen_at_once() {
    follow(&FIRST, "indexed");
    follow(&SECOND, "linked");
}

/// One thread publishes as fast as it can, and others read: none sees numbers that do not belong together.
#[test]
fn no_reader_sees_half_an_update() {
    let place = Place::new("torn");
    BUSY.publish_to(place.text()).expect("it can be published");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let live = Live::open(place.text()).expect("there is a page");
                let mut seen: Option<Stats> = None;
                let mut changes = 0;
                while !done.load(Ordering::Relaxed) {
                    let stats = live.read().stats;
                    assert_eq!(stats.used_bytes + stats.free_bytes, stats.region_size);
                    assert_eq!(stats.hops.count(), stats.allocs + stats.reallocs_moved);
                    assert_eq!(stats.allocs - stats.frees, stats.live_segments as u64);
                    changes += u32::from(seen.replace(stats) != Some(stats));
                }
                assert!(changes > 3, "{changes} changes were seen");
            });
        }
        let start = Instant::now();
        let mut blocks = Vec::new();
        while start.elapsed() < Duration::from_millis(500) {
            for round in 0..100 {
                blocks.push(BUSY.smalloc(layout(16 + 16 * round)).0.expect("there is room"));
            }
            for block in blocks.drain(..) {
                // SAFETY: the block is live.
                unsafe { BUSY.sfree(block) };
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    BUSY.stop_publishing();
}

/// A thread with a small stack can publish, however many regions there are.
#[test]
fn a_small_stack_is_enough() {
    static MANY: SmallocGlobal<Indexed, 64> = SmallocGlobal::with_region_size(1 << 20);
    static OTHER: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
    let place = Place::new("stack");
    MANY.publish_to(place.text()).expect("it can be published");
    let live = Live::open(place.text()).expect("there is a page");
    let allocate = || {
        let published = live.read().calls;
        while live.read().calls == published {
            MANY.smalloc(layout(16));
        }
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(128 << 10).spawn_scoped(scope, allocate);
        thread.expect("a thread starts").join().expect("it has published");
    });
    // The file belongs to that heap alone.
    let in_use = LiveError::InUse { process: std::process::id() };
    assert_eq!(OTHER.publish_to(place.text()), Err(in_use));
    MANY.stop_publishing();
}

#[test]
fn only_statics_publish() {
    let place = Place::new("local");
    let heap = SmallocGlobal::<Indexed>::with_region_size(1 << 20);
    assert_eq!(heap.publish_to(place.text()), Err(LiveError::NotStatic));
    assert!(!place.0.exists());
}

// ---- processes ---------------------------------------------------------------------------------------------------

fn run(name: &str, variable: Option<&str>, place: &Place) -> case::Outcome {
    let mut command: Command = case::command(name);
    command.env(FILE, place.text());
    match variable {
        Some(value) => command.env(VARIABLE, value),
        None => command.env_remove(VARIABLE),
    };
    case::finish(name, &mut command)
}

fn file() -> String {
    std::env::var(FILE).expect("the test that starts this says")
}

/// Reads its own page, which the environment asked for, and leaves it behind like a killed process.
fn lives() {
    let live = Live::open(file()).expect("the environment's file is there before main");
    let before = live.read().used_bytes;
    let block = vec![0_u8; 1 << 20];
    assert!(live.read().used_bytes >= before + (1 << 20));
    assert!(live.read().calls > 100 && !live.read().stopped);
    drop(block);
    case::set_errno(libc::EDOM);
    drop(std::hint::black_box(vec![0_u8; 100]));
    assert_eq!(case::errno(), libc::EDOM);
    // SAFETY: ends the process at once.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

#[test]
fn a_program_publishes_from_its_first_call_on_and_leaves_the_numbers_behind() {
    let place = Place::new("lives");
    let outcome = run("lives", Some(place.text()), &place);
    assert_eq!((outcome.stderr.as_str(), outcome.status.code()), ("", None), "{}", outcome.stdout);
    let live = Live::open(place.text()).expect("the page is still there");
    assert!(live.read().calls > 100 && live.read().stats.allocs > 0 && !live.read().stopped);
    // The next one takes the file over.
    assert_eq!(run("lives", Some(place.text()), &place).stderr, "");
    assert_ne!(Live::open(place.text()).expect("a page").process(), live.process());
}

/// The child allocates, and its parent's page does not show it.
fn forks() {
    THIRD.publish_to(file()).expect("it can be published");
    let live = Live::open(file()).expect("there is a page");
    THIRD.smalloc(layout(160));
    for _ in 0..3 {
        let child = case::fork(|| {
            let placed = (0..100).all(|_| THIRD.smalloc(layout(1600)).1.success);
            let told = live.read();
            let silent = (told.used_bytes, told.calls) == (160, 1);
            // The child may publish in a file of its own.
            let own = format!("{}.child", file());
            let published = THIRD.publish_to(&own).is_ok() && Live::open(&own).is_ok();
            let _ = std::fs::remove_file(own);
            i32::from(!(placed && silent && published))
        });
        assert_eq!(case::wait(child), 0);
        assert_eq!((live.read().used_bytes, live.read().calls), (160, 1));
    }
    THIRD.smalloc(layout(160));
    assert_eq!((live.read().used_bytes, live.read().calls), (320, 2));
}

#[test]
fn children_leave_the_page_to_their_parent() {
    let place = Place::new("forks");
    run("forks", None, &place).assert_success();
}

fn starts_another() {
    let outcome = case::run("says_its_number");
    outcome.assert_success();
    eprint!("{}", outcome.stderr);
    let live = Live::open(file()).expect("there is a page");
    assert_eq!(live.process(), std::process::id());
}

#[test]
fn a_program_that_inherits_the_variable_reports_that_it_does_not_publish() {
    let place = Place::new("inherits");
    let outcome = run("starts_another", Some(place.text()), &place);
    outcome.assert_success();
    let process = Live::open(place.text()).expect("there is a page").process();
    let path = place.text();
    let line = format!(
        "smalloc: SMALLOC_LIVE: not publishing: process {process} already publishes to \"{path}\" (use %p for one file per process)\n"
    );
    assert_eq!(outcome.stderr, line);
}

#[test]
fn each_process_has_a_file_with_its_number() {
    let place = Place::new("number");
    let outcome = run("says_its_number", Some(&format!("{}-%p", place.text())), &place);
    outcome.assert_success();
    let number = outcome.stdout.lines().find_map(|line| line.strip_prefix("number ")).expect("a number");
    let path = format!("{}-{number}", place.text());
    assert_eq!(Live::open(&path).expect("a page").process().to_string(), number);
    std::fs::remove_file(path).expect("the file is there");
}

#[test]
fn a_file_that_cannot_be_created_is_reported() {
    let place = Place::new("wrong");
    for (value, reason) in [
        ("/nowhere/at/all", "No such file or directory (errno 2)"),
        ("/", "the file is not a page that a heap publishes to"),
    ] {
        let line = format!(
            "smalloc: SMALLOC_LIVE: cannot publish to \"{value}\": {reason} (name a file that can be written)\n"
        );
        let outcome = run("says_its_number", Some(value), &place);
        assert_eq!((&outcome.stderr, outcome.status.code()), (&line, Some(0)), "the program goes on");
        let name = "says_its_number";
        let strict =
            case::finish(name, case::command(name).envs([(VARIABLE, value), ("SMALLOC_STRICT", "1")]));
        assert_eq!((strict.stderr, strict.status.code()), (line, Some(2)));
    }
}

/// If two threads begin to publish at the same time, one succeeds, and the file of the other one says that it has
/// ended.
#[test]
fn one_of_two_threads_publishes() {
    static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
    let places = ["first", "second"].map(Place::new);
    for _ in 0..200 {
        let start = Barrier::new(2);
        let began = thread::scope(|scope| {
            let start = &start;
            let publish = |place| {
                scope.spawn(move || {
                    start.wait();
                    HEAP.publish_to(Place::text(place))
                })
            };
            places.each_ref().map(publish).map(|thread| thread.join().expect("no panic"))
        });
        let one = began.iter().filter(|began| began.is_ok()).count();
        assert_eq!(one, 1, "{began:?}");
        HEAP.stop_publishing();
        for place in &places {
            assert!(Live::open(place.text()).map_or(true, |page| page.read().stopped));
            let _ = std::fs::remove_file(&place.0);
        }
    }
}

/// A file may contain anything. All numbers can be read and printed.
#[test]
fn any_numbers_can_be_read_and_printed() {
    let place = Place::new("numbers");
    let mut words = [0; 512];
    (words[0], words[1]) = (u64::from_le_bytes(*b"smalloc\0"), 3);
    for number in [0, 1, u64::MAX / 2, 1 << 63, u64::MAX] {
        (9..13).chain(17..308).for_each(|word| words[word] = number);
        let bytes: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        std::fs::write(&place.0, bytes).expect("a temporary file");
        let published = Live::open(place.text()).expect("a page").read();
        assert!(published.whole && published.calls == number, "{published:?}");
        let (stats, none) = (published.stats, Stats::default());
        let mut text = format!("{stats} {stats:?} {} {}", stats.since(&none), none.since(&stats));
        stats.write_json(&mut text).expect("a string takes all");
        stats.write_prometheus(&mut text).expect("a string takes all");
        let all = PrometheusOptions::new().all_buckets(true);
        all.write(&[PrometheusSource::new(&stats)], &mut text).expect("a string takes all");
        assert!(text.contains(&format!("smalloc_failures_total {number}\n")));
    }
}

/// A page larger than the limit on file sizes is an error when publishing begins, and not a signal, which would end
/// this process.
fn too_large() {
    for limit in [0, 1, 1024, 4095] {
        case::set_limit(libc::RLIMIT_FSIZE, limit);
        let refused = FIRST.publish_to(file()).expect_err("the page has 4096 bytes");
        assert_eq!(refused, LiveError::System { errno: libc::EFBIG }, "{limit}");
        assert!(!std::path::Path::new(&file()).exists());
        // SAFETY: layouts are not empty, and the block is live.
        unsafe { FIRST.dealloc(FIRST.alloc(layout(100)), layout(100)) };
    }
}

/// A page that is exactly as large as a file may be.
fn just_fits() {
    case::set_limit(libc::RLIMIT_FSIZE, 4096);
    FIRST.publish_to(file()).expect("the page has 4096 bytes");
    // SAFETY: layouts are not empty, and the block is live.
    unsafe { FIRST.dealloc(FIRST.alloc(layout(100)), layout(100)) };
    assert_eq!(Live::open(file()).expect("there is a page").read().calls, 2);
}

#[test]
fn a_limit_on_file_sizes_is_an_error() {
    let place = Place::new("limit");
    run("too_large", None, &place).assert_success();
    run("just_fits", None, &place).assert_success();
}

/// The variable names a file, and the shell that starts the program has a limit on file sizes.
#[test]
fn a_limit_on_file_sizes_is_reported_for_the_variable() {
    let place = Place::new("shell");
    let mut command = Command::new("sh");
    let program = std::env::current_exe().expect("the test program has a path");
    command.args(["-c", "ulimit -f 0; exec \"$0\" --exact case --include-ignored --nocapture"]).arg(program);
    command.env(case::CASE, "says_its_number").env(VARIABLE, place.text()).env_remove("RUST_BACKTRACE");
    let outcome = case::finish("says_its_number", &mut command);
    outcome.assert_success();
    let reason = "File too large (errno 27) (name a file that can be written)";
    let line = format!("smalloc: SMALLOC_LIVE: cannot publish to \"{}\": {reason}\n", place.text());
    assert_eq!(outcome.stderr, line);
}
