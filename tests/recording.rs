//! Recordings: their contents, their ends, and that they leave the program alone. `crates/tool/tests/replay` tests that
//! a replay gives the same result.

mod case;

use smalloc::recording::{Call, End, Head, Record, RecordError};
use smalloc::{FreeList, Indexed, Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, thread};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

const CASES: [case::Case; 6] = [
    ("works", works),
    ("aborts", aborts),
    ("outgrows_its_file", outgrows_its_file),
    ("closes_all_files", closes_all_files),
    ("forks", forks),
    ("starts_itself", starts_itself),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

/// A path that no other test and no other run uses.
fn fresh_path() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("smalloc-recording-{}-{number}", std::process::id()))
}

/// A file that is removed when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        Self(fresh_path())
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("the folder for temporary files has a name in Unicode")
    }

    fn read(&self) -> (Head, Vec<Record>) {
        read(&self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A file that a test did not create is not there.
        let _ = fs::remove_file(&self.0);
    }
}

fn read(path: &Path) -> (Head, Vec<Record>) {
    let bytes = fs::read(path).expect("the recording is there");
    let (head, records) = bytes.split_first_chunk().expect("there is a head");
    let (records, rest) = records.as_chunks();
    assert!(rest.is_empty(), "records are whole");
    let records = records.iter().map_while(|record| Record::from_bytes(record).expect("it is a record"));
    (Head::from_bytes(head).expect("it is a head"), records.collect())
}

/// Call, size, alignment, and offsets.
type Line = (Call, usize, usize, Option<usize>, Option<usize>);

fn lines(records: &[Record]) -> Vec<Line> {
    let line = |r: &Record| (r.call, r.size, r.align, r.offset, r.old_offset);
    records.iter().map(line).collect()
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

/// One call of every kind, with every outcome, on an empty heap of 64 KiB. The lists differ only in their hops.
fn one_of_each<L: FreeList>(heap: &SmallocGlobal<L>) {
    // SAFETY: no layout is empty, and blocks are live and have the layouts they come back with.
    unsafe {
        let a = heap.alloc(layout(100, 8));
        let b = heap.alloc_zeroed(layout(32, 64));
        let (c, _) = heap.smalloc(layout(7, 1));
        let c = c.expect("there is room");
        assert_eq!(heap.realloc(a, layout(100, 8), 50), a);
        let moved = heap.realloc(c.as_ptr(), layout(7, 1), 40);
        assert!(!moved.is_null() && moved != c.as_ptr());
        heap.dealloc(b, layout(32, 64));
        assert!(heap.alloc(layout(1 << 16, 16)).is_null());
        assert!(heap.realloc(moved, layout(40, 1), 1 << 40).is_null());
        assert!(heap.alloc_zeroed(layout(1 << 62, 1)).is_null());
        assert!(heap.smalloc(layout(16, 1 << 40)).0.is_none());
        heap.sfree(NonNull::new(a).expect("a block"));
        heap.dealloc(moved, layout(40, 1));
    }
}

const ONE_OF_EACH: [Line; 14] = [
    (Call::Alloc, 100, 8, Some(0), None),
    (Call::AllocZeroed, 32, 64, Some(128), None),
    (Call::Smalloc, 7, 1, Some(112), None),
    (Call::Realloc, 50, 8, Some(0), Some(0)),
    (Call::Realloc, 40, 1, Some(64), Some(112)),
    (Call::MovedFrom, 7, 1, Some(112), None),
    (Call::Dealloc, 32, 64, Some(128), None),
    (Call::Alloc, 1 << 16, 16, None, None),
    (Call::Realloc, 1 << 40, 1, None, Some(64)),
    (Call::AllocZeroed, 1 << 62, 1, None, None),
    (Call::Smalloc, 16, 1 << 40, None, None),
    (Call::Sfree, 64, 1, Some(0), None),
    (Call::Dealloc, 40, 1, Some(64), None),
    (Call::Smalloc, 1, 1, Some(0), None),
];

fn every_call_is_recorded<L: FreeList>(heap: &SmallocGlobal<L>) {
    let file = Scratch::new();
    heap.record_to(file.text()).expect("the file can be made");
    one_of_each(heap);
    let (last, status) = (heap.smalloc(layout(1, 1)).0.expect("there is room"), heap.stats());
    let recorded = heap.stop_recording().expect("there was a recording");
    // SAFETY: the block is live.
    unsafe { heap.sfree(last) };
    let (head, records) = file.read();
    assert_eq!((recorded.records, recorded.complete), (14, true));
    assert_eq!((head.end, head.records, head.list()), (End::Stopped, 14, L::NAME));
    assert_eq!((head.regions, head.region_size), (1, 1 << 16));
    assert_eq!(fs::metadata(&file.0).expect("the file is there").len(), 64 + 14 * 32);
    if cfg!(not(feature = "hardened")) {
        assert_eq!(lines(&records), ONE_OF_EACH);
    }
    let hops: usize = records.iter().filter(|record| record.offset.is_some()).map(Record::hops).sum();
    assert_eq!(hops as u64, status.hops.sum());
    // SAFETY: the call has no preconditions.
    let thread = unsafe { libc::gettid() };
    assert!(records.iter().all(|record| (record.region, record.thread) == (0, thread as u32)));
    assert_eq!(heap.stop_recording(), None);
}

#[test]
fn every_call_is_recorded_with_its_place_and_cost() {
    every_call_is_recorded(&SmallocGlobal::<Linked>::with_region_size(1 << 16));
    every_call_is_recorded(&SmallocGlobal::<Indexed>::with_region_size(1 << 16));
}

#[test]
#[cfg_attr(feature = "hardened", ignore = "what rests is in use")]
fn what_is_in_use_comes_first() {
    let heap = SmallocGlobal::<Indexed>::with_region_size(1 << 16);
    let blocks = [100, 20, 300, 16].map(|size| heap.smalloc(layout(size, 1)).0.expect("there is room"));
    // SAFETY: the block is live.
    unsafe { heap.sfree(blocks[1]) };
    let file = Scratch::new();
    heap.record_to(file.text()).expect("the file can be made");
    // SAFETY: the block is live.
    unsafe { heap.sfree(blocks[0]) };
    assert_eq!(heap.stop_recording().map(|recorded| recorded.records), Some(4));
    let first = |call, size, offset| (call, size, 1, Some(offset), None);
    let expected = [
        first(Call::Held, 112, 0),
        first(Call::Held, 304, 144),
        first(Call::Held, 16, 448),
        first(Call::Sfree, 112, 0),
    ];
    assert_eq!(lines(&file.read().1), expected);
}

#[test]
fn a_recording_is_refused_for_a_reason() {
    let (heap, other) = (SmallocGlobal::<Linked>::with_region_size(1 << 16), SmallocGlobal::<Indexed>::new());
    case::set_errno(77);
    let system = |errno| Err(RecordError::System { errno });
    assert_eq!(heap.record_to("/no/such/folder"), system(libc::ENOENT));
    assert_eq!(heap.record_to("/dev/null"), system(libc::EINVAL));
    assert_eq!(heap.record_to("/dev/full"), Err(RecordError::OtherFile));
    assert_eq!(heap.record_to("a\0b"), Err(RecordError::BadPath));
    for contents in ["x", "something else, which nobody wants to lose"] {
        let precious = Scratch::new();
        fs::write(&precious.0, contents).expect("it can be written");
        assert_eq!(heap.record_to(precious.text()), Err(RecordError::OtherFile));
        assert_eq!(fs::read_to_string(&precious.0).expect("it is there"), contents);
    }
    assert_eq!(heap.stop_recording(), None);
    let (file, second) = (Scratch::new(), Scratch::new());
    assert_eq!(heap.record_to(file.text()), Ok(()));
    assert_eq!(heap.record_to(second.text()), Err(RecordError::AlreadyRecording));
    assert_eq!(other.record_to(file.text()), Err(RecordError::InUse));
    assert!(heap.smalloc(layout(10, 1)).0.is_some());
    assert!(heap.stop_recording().is_some_and(|recorded| recorded.complete && recorded.records == 1));
    // No process holds the file any more, and its lock is released: the recording is replaced, and so is an empty file.
    assert_eq!(other.record_to(file.text()), Ok(()));
    fs::write(&second.0, "").expect("it can be written");
    assert_eq!(heap.record_to(second.text()), Ok(()));
    drop(heap);
    fs::remove_file(&second.0).expect("it is there");
    assert_eq!(case::errno(), 77);
    assert!(!second.0.exists());
    drop(other);
    assert_eq!(file.read().0.end, End::Stopped);
}

/// Windows of the file follow one another without a gap, and all threads write to them.
#[test]
fn threads_take_turns() {
    const THREADS: usize = 4;
    const CALLS: usize = 40_000;
    let heap = SmallocGlobal::<Indexed>::with_region_size(1 << 20);
    let file = Scratch::new();
    heap.record_to(file.text()).expect("the file can be made");
    thread::scope(|scope| {
        for number in 1..=THREADS {
            let heap = &heap;
            scope.spawn(move || {
                let layout = layout(number * 16, 1);
                for _ in 0..CALLS / 2 {
                    // SAFETY: the layout is not empty, and the block is live.
                    unsafe { heap.dealloc(heap.alloc(layout), layout) };
                }
            });
        }
    });
    let recorded = heap.stop_recording().expect("there was a recording");
    assert_eq!((recorded.records, recorded.complete), ((THREADS * CALLS) as u64, true));
    let (_, records) = file.read();
    assert_eq!(records.len(), THREADS * CALLS);
    let mut live = std::collections::HashMap::new();
    let mut threads = std::collections::HashMap::new();
    for record in &records {
        let offset = record.offset.expect("there is room");
        assert_eq!(*threads.entry(record.thread).or_insert(record.size), record.size, "one thread, one size");
        match record.call {
            Call::Alloc => assert_eq!(live.insert(offset, record.size), None, "two blocks at one place"),
            Call::Dealloc => assert_eq!(live.remove(&offset), Some(record.size), "freed, and not in use"),
            other => panic!("{other:?} was never called"),
        }
    }
    assert_eq!((threads.len(), live.len()), (THREADS, 0));
}

// ---- the environment ---------------------------------------------------------------------------------------------

/// A program that allocates before `main`, in it, and on another thread.
fn works() {
    let words: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    let sum = thread::spawn(move || words.iter().map(String::len).sum::<usize>()).join();
    assert_eq!(sum.expect("no thread panics"), 2890);
}

fn record_case(name: &str, value: &str) -> case::Outcome {
    case::finish(name, case::command(name).env("SMALLOC_RECORD", value))
}

#[test]
fn the_environment_records_from_the_first_call() {
    let file = Scratch::new();
    record_case("works", file.text()).assert_success();
    let (head, records) = file.read();
    assert_eq!((head.end, head.records, head.list()), (End::Open, 0, "indexed"));
    let first = records.first().expect("there are calls");
    assert_eq!(first.offset, Some(0), "nothing came before the first");
    assert!(records.len() > 1000 && records.iter().all(|record| record.call != Call::Held));
    assert!(records.iter().any(|record| record.thread != first.thread));
}

#[test]
fn the_environment_names_the_process_by_percent_p() {
    let file = Scratch::new();
    record_case("works", &format!("{}-%p", file.text())).assert_success();
    let name = file.0.file_name().and_then(|name| name.to_str()).expect("a name").to_owned() + "-";
    let folder = fs::read_dir(env::temp_dir()).expect("the folder can be read");
    let found: Vec<PathBuf> = folder
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(&name)))
        .collect();
    let [path] = &found[..] else { panic!("{found:?}") };
    assert!(path.to_string_lossy().rsplit('-').next().is_some_and(|number| number.parse::<u32>().is_ok()));
    assert!(read(path).1.len() > 1000);
    fs::remove_file(path).expect("the file is there");
}

#[test]
fn the_environment_must_name_a_file_that_can_be_created() {
    for (value, why) in [
        ("/no/such/folder", "No such file or directory (errno 2)"),
        ("/", "Is a directory (errno 21)"),
        ("/dev/full", "the file exists and is not a recording"),
    ] {
        let line = format!(
            "smalloc: SMALLOC_RECORD: cannot record to \"{value}\": {why} (name a file that can be written)\n"
        );
        let outcome = record_case("works", value);
        assert_eq!((&outcome.stderr, outcome.status.code()), (&line, Some(0)), "the program goes on");
        let strict = case::finish(
            "works",
            case::command("works").envs([("SMALLOC_RECORD", value), ("SMALLOC_STRICT", "1")]),
        );
        assert_eq!((strict.stderr, strict.status.code()), (line, Some(2)));
    }
}

/// The heap of the program is recorded to the file in the environment; another program is started with the same
/// environment.
fn starts_itself() {
    let outcome = case::run("works");
    outcome.assert_success();
    case::write(&format!("\nchild: {}\n", outcome.stderr.trim_end()));
}

#[test]
fn a_program_that_is_started_leaves_the_recording_alone() {
    let file = Scratch::new();
    let outcome = record_case("starts_itself", file.text());
    outcome.assert_success();
    let told = format!(
        "child: smalloc: SMALLOC_RECORD: not recording: another process already records to \"{}\" (use %p for one file per process)",
        file.text()
    );
    assert!(outcome.stdout.lines().any(|line| line == told), "{}", outcome.stdout);
    assert_consistent(&file.read().1);
}

/// No record belongs to another process: each freed block was placed in this file, and each placed block was free.
fn assert_consistent(records: &[Record]) {
    let mut live = std::collections::HashSet::new();
    for record in records {
        let at = record.offset.expect("nothing fails");
        match record.call {
            Call::Dealloc | Call::MovedFrom => assert!(live.remove(&at), "{record:?}"),
            Call::Realloc if record.old_offset == Some(at) => assert!(live.contains(&at), "{record:?}"),
            _ => assert!(live.insert(at), "{record:?}"),
        }
    }
    assert!(records.len() > 100);
}

// ---- how recordings end ------------------------------------------------------------------------------------------

/// Prints the number of calls so far until it aborts.
fn aborts() {
    let block = vec![1_u8; 12_345];
    assert_eq!(block.len(), 12_345);
    let stats = HEAP.stats();
    case::write(&format!("\ncalls: {}\n", stats.allocs + stats.frees + stats.reallocs_in_place));
    std::process::abort();
}

#[test]
fn a_recording_survives_an_abort() {
    let file = Scratch::new();
    let outcome = record_case("aborts", file.text());
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&outcome.status), Some(libc::SIGABRT));
    let (head, records) = file.read();
    assert_eq!(head.end, End::Open);
    assert!(records.iter().any(|record| record.size == 12_345));
    let last: Vec<_> = records.iter().rev().take(3).collect();
    assert!(last.iter().any(|record| matches!(record.call, Call::Alloc | Call::Dealloc)), "{last:?}");
    assert_consistent(&records);
}

const RECORDS_IN_A_WINDOW: usize = (1 << 20) / 32;

fn allocate_for(calls: usize) {
    for size in 0..calls / 2 {
        drop(std::hint::black_box(vec![0_u8; 1 + size % 100]));
    }
}

/// The file may not be larger than one window, as on a full disk.
fn outgrows_its_file() {
    case::set_limit(libc::RLIMIT_FSIZE, 1 << 20);
    case::set_errno(77);
    allocate_for(2 * RECORDS_IN_A_WINDOW);
    assert_eq!(case::errno(), 77);
    let recorded = HEAP.stop_recording().expect("there was a recording");
    assert_eq!((recorded.records as usize, recorded.complete), (RECORDS_IN_A_WINDOW - 2, false));
    assert_eq!(HEAP.stop_recording(), None, "it is told of once");
    HEAP.check().expect("the heap is sound");
}

#[test]
fn a_full_disk_ends_the_recording_and_not_the_program() {
    let file = Scratch::new();
    let outcome = record_case("outgrows_its_file", file.text());
    outcome.assert_success();
    let line = "smalloc: recording stopped after 32766 records: the file may not be larger (errno 27)\n";
    assert_eq!(outcome.stderr, line);
    let (head, records) = file.read();
    assert_eq!((head.end, head.records), (End::NoRoom, records.len() as u64));
    assert_eq!(records.len(), RECORDS_IN_A_WINDOW - 2);
    assert_consistent(&records);
}

/// Closes all descriptors, as daemons do, and opens files that get their numbers.
fn closes_all_files() {
    let victims: Vec<PathBuf> = (0..32).map(|_| fresh_path()).collect();
    let errors = 2;
    for number in (0..64).filter(|&number| number != errors) {
        // SAFETY: the closed files are not used again.
        unsafe { libc::close(number) };
    }
    let files: Vec<fs::File> =
        victims.iter().map(|path| fs::File::create(path).expect("a file can be made")).collect();
    allocate_for(2 * RECORDS_IN_A_WINDOW);
    let recorded = HEAP.stop_recording().expect("there was a recording");
    assert_eq!((recorded.records as usize, recorded.complete), (RECORDS_IN_A_WINDOW - 2, false));
    for (path, file) in victims.iter().zip(files) {
        assert_eq!(file.metadata().expect("the file is open").len(), 0, "a file that is the program's own");
        fs::remove_file(path).expect("the file is there");
    }
    // The harness would write to a file that is closed.
    std::process::exit(0);
}

#[test]
fn a_program_may_close_all_files() {
    let file = Scratch::new();
    let outcome = record_case("closes_all_files", file.text());
    outcome.assert_success();
    let line = "smalloc: recording stopped after 32766 records: the program has closed the file (errno 9)\n";
    assert_eq!(outcome.stderr, line);
    assert_consistent(&file.read().1);
}

/// A heap that no `fork` handler protects, since it is not a static.
fn forks() {
    let uncovered = SmallocGlobal::<Linked>::with_region_size(1 << 16);
    let path = Scratch::new();
    uncovered.record_to(path.text()).expect("the file can be made");
    let call = || {
        let (block, _) = uncovered.smalloc(layout(100, 1));
        // SAFETY: the block is live.
        unsafe { uncovered.sfree(block.expect("there is room")) };
    };
    call();
    for _ in 0..10 {
        let child = case::fork(|| {
            (0..100).for_each(|_| call());
            allocate_for(1000);
            let none = HEAP.stop_recording().is_none() && uncovered.stop_recording().is_none();
            let sound = HEAP.check().is_ok() && uncovered.check().is_ok();
            // The parent's file is in use, but the child can have one of its own.
            let taken = HEAP.record_to(path.text()) == Err(RecordError::InUse);
            let own = Scratch::new();
            let recorded = HEAP.record_to(own.text()).is_ok() && HEAP.stop_recording().is_some();
            i32::from(!(none && sound && taken && recorded))
        });
        assert_eq!(case::wait(child), 0);
        call();
    }
    assert!(uncovered.stop_recording().is_some_and(|recorded| recorded.records == 22 && recorded.complete));
    assert_eq!(path.read().1.len(), 22);
}

#[test]
fn a_child_of_fork_leaves_the_recording_alone() {
    let file = Scratch::new();
    record_case("forks", file.text()).assert_success();
    assert_consistent(&file.read().1);
}
