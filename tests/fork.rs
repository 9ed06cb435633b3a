//! `fork` in a program whose other threads allocate: no child hangs, and each has the whole heap.

mod case;

use case::{fork, wait};
use smalloc::{Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::ffi::CString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();
/// Used by one thread, so that a child knows its contents.
static SMALL: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(1 << 16);

const FORKS: u32 = 1000;
/// Children that live at the same time.
const BATCH: u32 = 10;
/// Bits of a child's exit code, one for each kind of error.
const CONTENTS: i32 = 1;
const BROKEN: i32 = 2;
const REGION: i32 = 4;
const INHERITED: i32 = 8;

const CASES: [case::Case; 3] = [
    ("thousand_forks", thousand_forks),
    ("handlers_that_allocate", handlers_that_allocate),
    ("programs_started", programs_started),
];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

#[test]
fn thousand_children_of_a_busy_program_have_the_whole_heap() {
    case::run("thousand_forks").assert_success();
}

#[test]
fn handlers_of_others_may_allocate() {
    case::run("handlers_that_allocate").assert_success();
}

#[test]
fn busy_programs_start_others() {
    case::run("programs_started").assert_success();
}

// ---- a busy program ----------------------------------------------------------------------------------------------

static ENOUGH: AtomicBool = AtomicBool::new(false);

/// Runs `work` while two threads allocate and one inspects.
fn under_load(work: impl FnOnce()) {
    let mut threads: Vec<_> = (1..=2).map(|seed| thread::spawn(move || allocate(seed))).collect();
    threads.push(thread::spawn(inspect));
    work();
    ENOUGH.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("no thread panics");
    }
    HEAP.check().expect("the heap is sound");
}

/// Allocates, resizes and frees in a loop.
fn allocate(seed: u64) {
    let mut random = seed;
    let mut kept: Vec<Vec<u8>> = vec![Vec::new(); 64];
    while !ENOUGH.load(Ordering::Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (place, size) = ((random >> 58) as usize, (random >> 40) as usize % 3000);
        if size.is_multiple_of(3) {
            kept[place].resize(size, 7);
        } else {
            kept[place] = vec![7; size];
        }
        assert!(kept[place].iter().all(|&byte| byte == 7));
    }
}

/// Holds the lock for as long as an inspection of the whole heap takes.
fn inspect() {
    while !ENOUGH.load(Ordering::Relaxed) {
        HEAP.check().expect("the heap is sound");
        assert!(HEAP.snapshot().expect("it can be copied").segments().len() > 64);
        // Often enough that many forks find the lock taken, and rarely enough that they wait for other things too.
        thread::sleep(Duration::from_millis(1));
    }
}

// ---- what a child finds ------------------------------------------------------------------------------------------

fn thousand_forks() {
    let mut small = fill_half(&SMALL);
    let kept: Vec<String> = (0..500).map(|number| number.to_string()).collect();
    under_load(|| {
        for batch in 0..FORKS / BATCH {
            let children =
                [(); BATCH as usize].map(|()| fork(|| look_around(&kept, &mut small) | look_deeply(batch)));
            for status in children.map(wait) {
                assert_eq!(status, 0, "a child ends with {status:#x}");
            }
        }
    });
    assert!(small.len() == 256 && holds_numbers(&small), "the parent's own heap is as it was");
    SMALL.check().expect("the heap is sound");
}

const PIECE: Layout = Layout::new::<[u8; 128]>();

/// Frees every second block of the first 64 KiB; the others hold their numbers.
fn fill_half(heap: &'static SmallocGlobal<Linked>) -> Vec<*mut u8> {
    // SAFETY: the layout is not empty.
    let blocks: Vec<*mut u8> = (0..512).map(|_| unsafe { heap.alloc(PIECE) }).collect();
    let (mut kept, mut given) = (Vec::new(), Vec::new());
    for (number, block) in blocks.into_iter().enumerate() {
        assert!(!block.is_null());
        if number % 2 == 0 { kept.push(block) } else { given.push(block) }
    }
    for (number, block) in kept.iter().enumerate() {
        // SAFETY: the block is live and has 128 bytes.
        unsafe { block.write_bytes((number % 251) as u8, PIECE.size()) };
    }
    for block in given {
        // SAFETY: the block is live and has this layout.
        unsafe { heap.dealloc(block, PIECE) };
    }
    kept
}

/// Whether the blocks hold the bytes that `fill_half` wrote.
fn holds_numbers(blocks: &[*mut u8]) -> bool {
    blocks.iter().enumerate().all(|(number, &block)| {
        // SAFETY: the block is live and was written.
        let bytes = unsafe { std::slice::from_raw_parts(block, PIECE.size()) };
        bytes.iter().all(|&byte| byte == (number % 251) as u8)
    })
}

/// Reads, frees and fills inherited blocks, and allocates as a program would.
fn look_around(kept: &[String], small: &mut Vec<*mut u8>) -> i32 {
    let mut wrong = 0;
    if !kept.iter().enumerate().all(|(number, text)| *text == number.to_string()) {
        wrong |= CONTENTS;
    }
    if !holds_numbers(small) {
        wrong |= INHERITED;
    }
    for block in small.drain(..) {
        // SAFETY: the block is live and has this layout.
        unsafe { SMALL.dealloc(block, PIECE) };
    }
    let whole = Layout::from_size_align(1 << 16, 16).expect("a layout");
    // SAFETY: the layout is not empty.
    if unsafe { SMALL.alloc(whole) }.is_null() {
        wrong |= REGION;
    }
    let mut rows: Vec<Vec<usize>> = (1..50).map(|len| vec![len; len]).collect();
    rows.iter_mut().for_each(|row| row.extend(0..100));
    if rows.iter().map(|row| row[0]).sum::<usize>() != 1225 {
        wrong |= CONTENTS;
    }
    wrong
}

/// Walks the heaps, and starts a thread, for which the lock must be free. In one batch of ten: in a debug build this
/// takes longer than all the rest.
fn look_deeply(batch: u32) -> i32 {
    let threaded = || thread::spawn(|| vec![7; 1000].len()).join().is_ok_and(|len| len == 1000);
    let sound = || threaded() && HEAP.check().is_ok() && SMALL.check().is_ok() && HEAP.snapshot().is_ok();
    if batch.is_multiple_of(10) && !sound() { BROKEN } else { 0 }
}

// ---- handlers ----------------------------------------------------------------------------------------------------

/// The number of times that each handler ran in this process.
static RUNS: [AtomicU32; 6] = [const { AtomicU32::new(0) }; 6];

unsafe extern "C" fn handler<const NUMBER: usize>() {
    let words: Vec<String> = (0..20).map(|word| format!("{NUMBER} {word}")).collect();
    assert_eq!(words.len(), 20);
    RUNS[NUMBER].fetch_add(1, Ordering::Relaxed);
}

/// Handlers before a fork run in reverse order of registration. These run after the heap's own handlers, which are
/// registered later, since this function has a higher priority.
extern "C" fn register_first() {
    // SAFETY: the handlers live as long as the program.
    let _ = unsafe { libc::pthread_atfork(Some(handler::<0>), Some(handler::<1>), Some(handler::<2>)) };
}

#[used]
#[unsafe(link_section = ".init_array.00101")]
static BEFORE_MAIN: extern "C" fn() = register_first;

/// One of the two sets of handlers is older than the heap's and one is younger.
fn handlers_that_allocate() {
    // SAFETY: the handlers live as long as the program.
    let refused = unsafe { libc::pthread_atfork(Some(handler::<3>), Some(handler::<4>), Some(handler::<5>)) };
    assert_eq!(refused, 0);
    under_load(|| {
        for round in 1..=100 {
            let child = fork(|| {
                let runs: Vec<u32> = RUNS.iter().map(|runs| runs.load(Ordering::Relaxed)).collect();
                i32::from(runs != [round, round - 1, 1, round, round - 1, 1])
            });
            let status = wait(child);
            assert_eq!(status, 0, "a child ends with {status:#x}");
        }
    });
    let runs: Vec<u32> = RUNS.iter().map(|runs| runs.load(Ordering::Relaxed)).collect();
    assert_eq!(runs, [100, 100, 0, 100, 100, 0]);
}

// ---- other programs ----------------------------------------------------------------------------------------------

fn programs_started() {
    under_load(|| {
        for number in 0..40 {
            let word = format!("word {number}");
            // The first program is started by posix_spawn, the second by fork and exec, because it has a step in
            // between.
            for busy_between in [false, true] {
                assert_eq!(echo(&word, busy_between), format!("{word}\n"));
            }
            assert_eq!(wait(spawn(&format!("exit {number}"))), number << 8);
        }
    });
}

fn echo(word: &str, busy_between: bool) -> String {
    let mut command = Command::new("sh");
    command.args(["-c", "echo \"$0\"", word]).stdin(Stdio::null());
    if busy_between {
        // SAFETY: between fork and exec only the heap is used, which this test is about.
        unsafe {
            command.pre_exec(|| {
                let numbers: Vec<u32> = std::hint::black_box((0..1000).collect());
                assert_eq!(numbers.len(), 1000);
                Ok(())
            })
        };
    }
    let output = command.output().expect("there is a shell");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("text")
}

/// Starts a shell by `posix_spawn` with a command.
fn spawn(script: &str) -> libc::pid_t {
    let words = ["sh", "-c", script].map(|word| CString::new(word).expect("no zeros"));
    let mut arguments: Vec<*mut libc::c_char> = words.iter().map(|word| word.as_ptr().cast_mut()).collect();
    arguments.push(ptr::null_mut());
    let mut id = 0;
    // SAFETY: name and arguments end with zeros and live until the call returns; the empty environment ends with null.
    let refused = unsafe {
        libc::posix_spawn(
            &mut id,
            c"/bin/sh".as_ptr(),
            ptr::null(),
            ptr::null(),
            arguments.as_ptr(),
            [ptr::null_mut()].as_ptr(),
        )
    };
    assert_eq!(refused, 0, "there is a shell");
    id
}
