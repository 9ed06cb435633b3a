//! A whole process on smalloc: before `main`, after it, `errno`, and many threads.

mod case;

use case::{errno, set_errno};
use smalloc::{FreeList, Indexed, Linked, MapOptions, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::{Duration, Instant};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

const CASES: [case::Case; 13] = [
    ("first_init", || FIRST.init().expect("a small region can be mapped")),
    ("first_stats", || assert_eq!(FIRST.stats().used_bytes, 0)),
    ("first_try_stats", || assert_eq!(FIRST.try_stats().expect("nobody has the lock").used_bytes, 0)),
    ("first_snapshot", || {
        assert!(FIRST.snapshot().expect("it can be copied").used_segments().next().is_none())
    }),
    ("first_check", || FIRST.check().expect("the heap is sound")),
    ("first_smalloc", || assert_eq!(FIRST.smalloc(Layout::new::<u64>()).1.payload_offset, Some(0))),
    ("first_alloc_zeroed", first_alloc_zeroed),
    ("region_size", || case::write(&format!("\nregion: {}\n", HEAP.stats().region_size))),
    ("exit_handlers", exit_handlers),
    ("short_threads", short_threads),
    ("thread_keys", thread_keys),
    ("busy_looks", busy_looks),
    ("errno_under_limit", errno_under_limit),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

/// The name of the case tells the first call of the process on this heap.
static FIRST: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);

fn first_alloc_zeroed() {
    // SAFETY: the layout is not empty.
    let block = unsafe { FIRST.alloc_zeroed(Layout::new::<u64>()) };
    // SAFETY: the block is live, and zeroed memory may be read.
    assert_eq!(unsafe { block.cast::<u64>().read() }, 0);
}

#[test]
fn every_call_can_be_the_first() {
    for (name, _) in CASES.iter().filter(|(name, _)| name.starts_with("first_")) {
        case::run(name).assert_success();
    }
}

/// The environment sets the size of a region whose size the program leaves open.
#[test]
fn the_environment_sets_the_region() {
    let run = |value| case::finish(value, case::command("region_size").env("SMALLOC_REGION", value));
    for (value, size) in [
        ("64M", 64_usize << 20),
        ("262144K", 256 << 20),
        ("2g", 2 << 30),
        ("67108864", 64 << 20),
        ("999G", (64 << 30) - (2 << 20)),
    ] {
        let outcome = run(value);
        outcome.assert_success();
        let line = format!("region: {size}");
        assert!(outcome.stdout.lines().any(|told| told == line), "{value}: {}", outcome.stdout);
    }
    for value in ["12Q", "1.5G", "-1", "0", "20000000000000G"] {
        let outcome = run(value);
        let line = format!(
            "smalloc: SMALLOC_REGION: \"{value}\" is not a size (bytes, or a number with K, M or G)\n"
        );
        assert_eq!((outcome.stderr, outcome.status.code()), (line, Some(2)));
    }
}

// ---- before and after main ---------------------------------------------------------------------------------------

/// Made before `main`: a box with a vector of strings.
static MADE_BEFORE_MAIN: AtomicPtr<Vec<String>> = AtomicPtr::new(std::ptr::null_mut());

extern "C" fn make_before_main() {
    let mut words: Vec<String> = (0..100).map(|number| format!("made before main {number}")).collect();
    words.retain(|word| word.ends_with('7'));
    MADE_BEFORE_MAIN.store(Box::into_raw(Box::new(words)), Ordering::Relaxed);
}

#[used]
#[cfg_attr(any(target_os = "linux", target_os = "android"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_vendor = "apple", unsafe(link_section = "__DATA,__mod_init_func"))]
static BEFORE_MAIN: extern "C" fn() = make_before_main;

#[test]
fn memory_from_before_main_is_good() {
    // SAFETY: the pointer came from a box, and only this test takes it.
    let words = unsafe { Box::from_raw(MADE_BEFORE_MAIN.swap(std::ptr::null_mut(), Ordering::Relaxed)) };
    let expected = (0..10).map(|ten| format!("made before main {}", 10 * ten + 7));
    assert!(words.into_iter().eq(expected));
    HEAP.check().expect("the heap is sound");
}

/// Runs after all exit handlers, also after any that the heap registered with its first allocation.
extern "C" fn last_of_all() {
    if LEAVING.load(Ordering::Relaxed) {
        last_words::<0>();
    }
}

#[used]
#[unsafe(link_section = ".fini_array")]
static AFTER_ALL: extern "C" fn() = last_of_all;

static LEAVING: AtomicBool = AtomicBool::new(false);

/// Each handler runs after `main` and after the handlers registered later.
fn exit_handlers() {
    LEAVING.store(true, Ordering::Relaxed);
    // SAFETY: the functions live as long as the program.
    assert_eq!(unsafe { libc::atexit(last_words::<1>) | libc::atexit(last_words::<2>) }, 0);
}

extern "C" fn last_words<const NUMBER: usize>() {
    let words: Vec<String> = (0..1000).map(|word| word.to_string()).collect();
    let text = words.join(" ");
    let sound = HEAP.check().is_ok() && HEAP.stats().live_segments > words.len();
    case::write(&format!("handler {NUMBER}: {} bytes, {sound}\n", text.len()));
}

#[test]
fn exit_handlers_allocate() {
    let outcome = case::run("exit_handlers");
    outcome.assert_success();
    let told: Vec<&str> = outcome.stdout.lines().filter(|line| line.starts_with("handler")).collect();
    assert_eq!(told, [2, 1, 0].map(|number| format!("handler {number}: 3889 bytes, true")));
}

/// Destructors of pthread keys run after those of Rust's thread-locals, and here again and again: each sets its key
/// again until the system gives up.
fn thread_keys() {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    static KEY: AtomicU64 = AtomicU64::new(0);
    unsafe extern "C" fn destroy(value: *mut libc::c_void) {
        // SAFETY: the value is the box that was set.
        let words = unsafe { Box::from_raw(value.cast::<Vec<String>>()) };
        assert_eq!(words.len(), 10);
        RUNS.fetch_add(1, Ordering::Relaxed);
        set(KEY.load(Ordering::Relaxed));
    }
    fn set(key: u64) {
        let words: Vec<String> = (0..10).map(|word| word.to_string()).collect();
        let value = Box::into_raw(Box::new(words)).cast_const().cast();
        // SAFETY: the key is valid.
        assert_eq!(unsafe { libc::pthread_setspecific(key.try_into().expect("a key"), value) }, 0);
    }
    let mut key = 0;
    // SAFETY: the key may be written, and the destructor lives as long as the program.
    assert_eq!(unsafe { libc::pthread_key_create(&mut key, Some(destroy)) }, 0);
    KEY.store(key.into(), Ordering::Relaxed);
    for _ in 0..100 {
        thread::spawn(move || set(key.into())).join().expect("the thread ends");
    }
    let runs = RUNS.load(Ordering::Relaxed);
    assert!(runs >= 100, "{runs} runs");
    HEAP.check().expect("the heap is sound");
}

#[test]
fn destructors_of_thread_keys_allocate() {
    case::run("thread_keys").assert_success();
}

// ---- whoever looks may allocate ----------------------------------------------------------------------------------------

/// A writer that uses the heap in every way for each piece of text about that heap.
struct Busy {
    text: String,
    parts: Vec<Box<str>>,
}

impl std::fmt::Write for Busy {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.text.push_str(text);
        self.parts.push(text.into());
        if self.parts.len().is_multiple_of(16) {
            self.parts.clear();
            assert!(HEAP.stats().live_segments > 0 && HEAP.try_stats().is_some());
            HEAP.check().map_err(|_| std::fmt::Error)?;
        }
        Ok(())
    }
}

/// No inspection holds the lock while it runs code of the program.
fn busy_looks() {
    let before = HEAP.snapshot().expect("it can be copied");
    let sizes: Vec<String> = before.segments().map(|segment| segment.size.to_string()).collect();
    let (snapshot, measured) = HEAP.measure(|| HEAP.snapshot().expect("it can be copied"));
    assert!(sizes.len() > 1 && measured.used_bytes_before > 0);
    let mut busy = Busy { text: String::new(), parts: Vec::new() };
    snapshot.write_map_text(&mut busy, MapOptions::text()).expect("there is room");
    snapshot.write_map_svg(&mut busy, MapOptions::svg()).expect("there is room");
    snapshot.write_holes_svg(&mut busy).expect("there is room");
    snapshot.write_json(&mut busy).expect("there is room");
    let changes: Vec<String> = snapshot.since(&before).map(|change| format!("{change:?}")).collect();
    assert!(!changes.is_empty());
    let stats = HEAP.stats();
    stats.write_json(&mut busy).expect("there is room");
    stats.write_prometheus(&mut busy).expect("there is room");
    write!(busy, "{stats} {measured}").expect("there is room");
    assert!(busy.text.len() > 10_000, "{}", busy.text);
    let failed = HEAP.expecting_failures(|| Vec::<u8>::new().try_reserve(HEAP.stats().region_size));
    assert!(failed.is_err());
}

#[test]
fn inspections_may_allocate() {
    case::run("busy_looks").assert_success();
}

// ---- errno -------------------------------------------------------------------------------------------------------

const MARK: i32 = 12_345;

/// Runs `call` and returns its result, if `errno` is unchanged.
fn untouched<R>(what: &str, call: impl FnOnce() -> R) -> R {
    set_errno(MARK);
    let result = call();
    assert_eq!(errno(), MARK, "{what}");
    result
}

fn errno_of_every_call<L: FreeList>(heap: &SmallocGlobal<L>) {
    let small = Layout::new::<[u64; 3]>();
    // The first call maps the region, the large one commits more of it.
    for size in [1, 100, 5000, 300_000, 40 << 20] {
        let layout = Layout::from_size_align(size, 8).expect("a layout");
        // SAFETY: layouts are not empty; blocks are freed once, with their layout, and live until then.
        let plain = untouched("alloc", || unsafe { heap.alloc(layout) });
        // SAFETY: as above.
        let wall = untouched("alloc", || unsafe { heap.alloc(small) });
        // SAFETY: as above.
        let zeroed = untouched("alloc_zeroed", || unsafe { heap.alloc_zeroed(layout) });
        assert!(!plain.is_null() && !wall.is_null() && !zeroed.is_null());
        // SAFETY: as above.
        let moved = untouched("realloc, moving", || unsafe { heap.realloc(plain, layout, 2 * size + 16) });
        assert!(!moved.is_null() && moved != plain);
        let larger = Layout::from_size_align(2 * size + 16, 8).expect("a layout");
        // SAFETY: as above.
        let kept = untouched("realloc, in place", || unsafe { heap.realloc(moved, larger, size) });
        assert_eq!(kept, moved);
        for (block, layout) in [(zeroed, layout), (wall, small), (kept, layout)] {
            // SAFETY: as above.
            untouched("dealloc", || unsafe { heap.dealloc(block, layout) });
        }
        let (block, status) = untouched("smalloc", || heap.smalloc(layout));
        assert!(status.success);
        // SAFETY: as above.
        untouched("sfree", || unsafe { heap.sfree(block.expect("it succeeded")) });
    }
    let [before, after] = [Layout::new::<[u8; 100]>(), Layout::new::<[u8; 300_000]>()];
    // SAFETY: the layout is not empty.
    let block = unsafe { heap.alloc(before) };
    // SAFETY: the block is live, has this layout, and the size is not zero.
    let grown = untouched("realloc_zeroed", || unsafe { heap.realloc_zeroed(block, before, after.size()) });
    // SAFETY: the block is live and has this layout.
    untouched("dealloc", || unsafe { heap.dealloc(grown, after) });
    untouched("set_limit", || heap.set_limit(usize::MAX));
    untouched("trim", || heap.trim());
    untouched("measure", || heap.measure(|| ()));
    untouched("reset_peaks", || heap.reset_peaks());
    untouched("region_stats", || heap.region_stats(0));
    untouched("stats", || heap.stats());
    untouched("try_stats", || heap.try_stats());
    untouched("snapshot", || heap.snapshot().map(drop)).expect("it can be copied");
    untouched("check", || heap.check()).expect("the heap is sound");
    untouched("init", || heap.init()).expect("it is mapped");
}

#[test]
fn errno_is_untouched() {
    errno_of_every_call(&SmallocGlobal::<Indexed>::with_region_size(1 << 30));
    errno_of_every_call(&SmallocGlobal::<Linked>::with_region_size(1 << 30));
    errno_of_every_call(&HEAP);
    let fresh = SmallocGlobal::<Indexed>::with_region_size(1 << 20);
    untouched("init", || fresh.init()).expect("a small region can be mapped");
}

/// The reservation succeeds only at the fifth attempt or so. The four failures must not change `errno`.
fn errno_under_limit() {
    let mapped = case::status_bytes("VmSize");
    case::set_limit(libc::RLIMIT_AS, mapped + (100 << 20));
    let heaps: [SmallocGlobal; 2] = [const { SmallocGlobal::with_region_size(1 << 30) }; 2];
    untouched("init", || heaps[0].init()).expect("some region can be mapped");
    assert!(heaps[0].stats().region_size < 1 << 30);
    let layout = Layout::new::<u64>();
    // SAFETY: the layout is not empty.
    let block = untouched("alloc", || unsafe { heaps[1].alloc(layout) });
    assert!(!block.is_null());
}

#[test]
fn errno_is_untouched_when_the_reservation_is_halved() {
    case::run("errno_under_limit").assert_success();
}

// ---- threads -----------------------------------------------------------------------------------------------------

const THREADS: usize = 64;
const PAIRS: usize = 2000;

/// The longest duration of a call of `alloc` or `dealloc` among many threads, each with a fixed amount of work.
fn longest_call(heap: &SmallocGlobal) -> Duration {
    let start = Barrier::new(THREADS);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS)
            .map(|number| {
                scope.spawn({
                    let start = &start;
                    move || {
                        start.wait();
                        work(heap, number)
                    }
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("no thread panics")).max().expect("many")
    })
}

fn work(heap: &SmallocGlobal, number: usize) -> Duration {
    let mut longest = Duration::ZERO;
    let mut kept = [std::ptr::null_mut::<u8>(); 16];
    for pair in 0..PAIRS {
        let layout = Layout::from_size_align(16 + number * 16, 8).expect("a layout");
        let place = &mut kept[pair % 16];
        let before = Instant::now();
        if !place.is_null() {
            // SAFETY: the block is live and has this layout.
            unsafe { heap.dealloc(*place, layout) };
        }
        // SAFETY: the layout is not empty.
        *place = unsafe { heap.alloc(layout) };
        longest = longest.max(before.elapsed());
        assert!(!place.is_null());
        // SAFETY: the block is live and has at least 16 bytes.
        unsafe { place.cast::<usize>().write(number) };
        let other = kept[(pair + 1) % 16];
        // SAFETY: blocks in the array are live and were written.
        assert!(other.is_null() || unsafe { other.cast::<usize>().read() } == number);
    }
    longest
}

/// A thread that waits for a processor while other programs run does not starve, so the bound must hold in one of three
/// attempts.
#[test]
fn sixty_four_threads_finish_and_none_starves() {
    let heap = SmallocGlobal::with_region_size(1 << 26);
    let mut longest = Vec::new();
    for crowd in 1..=3 {
        longest.push(longest_call(&heap));
        let stats = heap.stats();
        assert_eq!(
            (stats.allocs, stats.live_segments),
            ((crowd * THREADS * PAIRS) as u64, crowd * THREADS * 16)
        );
        heap.check().expect("the heap is sound");
        if longest[crowd - 1] < Duration::from_secs(1) {
            return;
        }
    }
    panic!("calls took {longest:?}");
}

/// Ten thousand threads, each of which allocates and frees. Each one frees the blocks that the one before has left.
fn short_threads() {
    let (sender, receiver) = mpsc::channel::<Vec<String>>();
    let generation = |count: usize| {
        for number in 0..count {
            let sender = sender.clone();
            let thread = thread::spawn(move || {
                let words: Vec<String> = (0..5).map(|word| (number + word).to_string()).collect();
                sender.send(words).expect("the other end lives");
            });
            thread.join().expect("the thread ends");
            assert_eq!(receiver.recv().expect("it was sent").len(), 5);
        }
        (HEAP.stats(), case::mappings().len(), case::status_bytes("VmData"))
    };
    let (early, early_mappings, early_data) = generation(200);
    let (late, late_mappings, late_data) = generation(9_800);
    assert!(late.allocs > early.allocs + 9_800 * 6);
    // The channel keeps a block of messages, which may be one more or less at this moment.
    assert!(
        late.live_segments <= early.live_segments + 2,
        "{} and {}",
        early.live_segments,
        late.live_segments
    );
    assert!(late.used_bytes <= early.used_bytes + 4096, "{} and {}", early.used_bytes, late.used_bytes);
    assert_eq!(late.committed_bytes, early.committed_bytes);
    assert!(late_mappings <= early_mappings + 2, "{early_mappings} and {late_mappings}");
    // Adjacent mappings count as one.
    assert!(late_data <= early_data + (1 << 20), "{early_data} and {late_data} bytes");
    HEAP.check().expect("the heap is sound");
}

#[test]
fn ten_thousand_threads_leave_nothing() {
    case::run("short_threads").assert_success();
}
