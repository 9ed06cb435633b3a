//! A replay of a recording gives the same result, call by call, and `smalloc replay` says so. It refuses files that it
//! cannot read, and names the place of the error.

mod command;
#[path = "../common/mod.rs"]
mod common;
mod inputs;
mod packings;

use common::Folder;
use smalloc::recording::{Call, HEAD_BYTES, Head, Record};
use smalloc::{FreeList, Heap, Indexed, Linked, MallocStatus, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, HashMap};
use std::process::{Command, Output};
use std::ptr::NonNull;
use std::sync::Barrier;
use std::{env, fs, thread};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

// ---- programs that are recorded ----------------------------------------------------------------------------------

/// Allocates, resizes and frees by pseudo-random numbers, and keeps some blocks.
fn churn(heap: &impl GlobalAlloc, seed: u64, rounds: usize) {
    let mut random = seed;
    let mut blocks: Vec<Option<(*mut u8, Layout)>> = vec![None; 100];
    for _ in 0..rounds {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let (slot, size) = ((random >> 57) as usize % 100, 1 + (random >> 40) as usize % 700);
        let align = 1 << ((random >> 30) % 8);
        // SAFETY: sizes are not 0, and blocks are live and have the layouts that they are kept with.
        unsafe {
            blocks[slot] = match blocks[slot] {
                None if size % 5 == 0 => Some((heap.alloc_zeroed(layout(size, align)), layout(size, align))),
                None => Some((heap.alloc(layout(size, align)), layout(size, align))),
                Some((block, old)) if size % 3 == 0 => {
                    Some((heap.realloc(block, old, size), layout(size, old.align())))
                }
                Some((block, old)) => {
                    heap.dealloc(block, old);
                    None
                }
            };
        }
        // A request that found no room gives no block.
        blocks[slot] = blocks[slot].filter(|(block, _)| !block.is_null());
    }
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

/// Runs `busy` as a program that is recorded from its first call on.
fn record_program(path: &str) {
    let mut program = Command::new(env::current_exe().expect("the test program has a path"));
    program.args(["--exact", "busy", "--include-ignored"]).env("SMALLOC_RECORD", path);
    let output = program.output().expect("the test program starts");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
}

/// Not a test: the recorded program, with collections, and threads whose calls interleave.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn busy() {
    let workers = (1..=3).map(|seed| {
        thread::spawn(move || {
            churn(&HEAP, seed, 3000);
            let mut words: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            (0..2000).for_each(|n| words.entry((n * seed % 97).to_string()).or_default().push(n));
            words.len()
        })
    });
    let lens: Vec<usize> =
        workers.collect::<Vec<_>>().into_iter().map(|it| it.join().expect("no panic")).collect();
    assert_eq!(lens, [97; 3]);
}

/// A heap that is recorded from its first call on, by several threads, and that is full now and then.
fn record_threads<L: FreeList>(path: &str) {
    let heap = SmallocGlobal::<L>::with_region_size(1 << 16);
    heap.record_to(path).expect("the file can be made");
    thread::scope(|scope| {
        for seed in 1..=3 {
            let heap = &heap;
            scope.spawn(move || churn(heap, seed, 3000));
        }
    });
    assert!(heap.stats().failures > 0 && heap.stats().reallocs_moved > 0);
    assert!(heap.stop_recording().is_some_and(|recorded| recorded.complete && recorded.records > 9000));
}

// ---- the same calls again ----------------------------------------------------------------------------------------

fn read(path: &str) -> (Head, Vec<Record>) {
    let bytes = fs::read(path).expect("the recording is there");
    let (head, records) = bytes.split_first_chunk::<HEAD_BYTES>().expect("there is a head");
    let records = records.as_chunks().0.iter();
    let records = records.map_while(|record| Record::from_bytes(record).expect("it is a record"));
    (Head::from_bytes(head).expect("it is a head"), records.collect())
}

/// Makes the calls of a recording on a heap, one record after the other, and compares offsets and hops.
fn assert_replays<L: FreeList>(head: &Head, records: &[Record]) {
    assert_eq!(head.list(), L::NAME);
    let mut heap = Heap::<L>::with_region_size(head.region_size).expect("there is room");
    let mut blocks: HashMap<usize, (NonNull<u8>, Layout)> = HashMap::new();
    let mut unfinished = 0;
    for (number, record) in records.iter().enumerate() {
        if record.call == Call::Limit {
            heap.set_limit(record.size);
            continue;
        }
        let asked = layout(record.size, record.align);
        let status: MallocStatus = match (record.call, record.old_offset) {
            (Call::Dealloc | Call::MovedFrom | Call::Sfree, _) => {
                let (block, layout) =
                    blocks.remove(&record.offset.expect("it is somewhere")).expect("in use");
                // SAFETY: the block is live and has this layout.
                unsafe { heap.dealloc(block.as_ptr(), layout) };
                continue;
            }
            (Call::Realloc, Some(old)) if record.offset == Some(old) => {
                let (block, before) = blocks[&old];
                // SAFETY: the block is live and has this layout.
                let (resized, status) = unsafe { heap.realloc_with_status(block, before, record.size) };
                blocks.insert(old, (resized.expect("it keeps its place"), asked));
                status
            }
            // A realloc that moves is an allocation, and a free that comes later.
            _ => {
                let (block, status) = heap.smalloc(asked);
                if let (Some(block), Some(offset)) = (block, status.payload_offset) {
                    assert!(blocks.insert(offset, (block, asked)).is_none());
                }
                unfinished += usize::from(record.call == Call::Realloc);
                status
            }
        };
        let here = (status.payload_offset, status.stepped as u32, status.probes as u32);
        assert_eq!(here, (record.offset, record.stepped, record.probes), "record {number}: {record:?}");
    }
    heap.check().expect("the heap is sound");
    assert!(unfinished > 0, "none of {} calls was a realloc that moved", records.len());
}

#[test]
#[cfg_attr(feature = "hardened", ignore = "the feature places differently")]
fn the_same_calls_come_to_the_same() {
    let folder = Folder::new("same");
    record_threads::<Linked>(&folder.path("linked"));
    record_threads::<Indexed>(&folder.path("indexed"));
    let (head, records) = read(&folder.path("linked"));
    assert_replays::<Linked>(&head, &records);
    let (head, records) = read(&folder.path("indexed"));
    assert_replays::<Indexed>(&head, &records);

    let path = folder.path("program");
    record_program(&path);
    let (head, records) = read(&path);
    assert!(records.len() > 20_000);
    assert_replays::<Indexed>(&head, &records);
}

/// Purges are not recorded, and their times depend on the path that a free takes: searches cost the same with and
/// without them.
#[test]
#[cfg_attr(feature = "hardened", ignore = "the feature places differently")]
fn giving_back_changes_no_search() {
    let folder = Folder::new("given-back");
    let path = folder.path("given-back");
    let heap = SmallocGlobal::<Indexed>::with_region_size(64 << 20);
    heap.record_to(&path).expect("the file can be made");
    let (large, small) = (layout(20_000, 16), layout(1000, 16));
    // SAFETY: sizes are not 0, and blocks are freed with their layouts.
    unsafe {
        let blocks: Vec<_> = (0..200).map(|_| (heap.alloc(large), heap.alloc(small))).collect();
        blocks.iter().for_each(|block| heap.dealloc(block.0, large));
        // The holes are filled without the knowledge of the index. A search from the bottom would learn it.
        let again: Vec<_> = (0..150).map(|_| heap.alloc(large)).collect();
        heap.dealloc(again[0], large);
        assert_eq!(heap.alloc(large), again[0]);
        assert!(heap.trim() > 0);
        assert_eq!(heap.alloc(large), blocks[150].0);
    }
    churn(&heap, 7, 1000);
    assert!(heap.stop_recording().is_some_and(|recorded| recorded.complete));
    let (head, records) = read(&path);
    assert_replays::<Indexed>(&head, &records);
}

/// A limit refuses requests for which there is room, so the recording contains it: the first one, and each change.
#[test]
#[cfg_attr(feature = "hardened", ignore = "the feature places differently")]
fn limits_are_replayed() {
    let folder = Folder::new("limits");
    let path = folder.path("limits");
    let heap = SmallocGlobal::<Linked>::with_region_size(1 << 20);
    heap.set_limit(20_000);
    heap.record_to(&path).expect("the file can be made");
    let mut refused = heap.stats().failures;
    for (round, limit) in [0, 30_000, usize::MAX, 40_000].into_iter().enumerate() {
        churn(&heap, 11 + round as u64, 1000);
        let failures = heap.stats().failures;
        assert_eq!(failures == refused, round == 3, "{failures} and {refused} before, in round {round}");
        refused = failures;
        heap.set_limit(limit);
    }
    churn(&heap, 19, 1000);
    assert!(heap.stop_recording().is_some_and(|recorded| recorded.complete));
    let (head, records) = read(&path);
    let limits = records.iter().filter(|record| record.call == Call::Limit).map(|record| record.size);
    assert_eq!(limits.collect::<Vec<_>>(), [20_000, 0, 30_000, usize::MAX, 40_000]);
    assert_replays::<Linked>(&head, &records);
    assert_prints(&[&path], &["The same as recorded"]);
}

/// Each region is a heap of its own, and the recording has the calls of several threads on it in one order.
#[test]
#[cfg_attr(feature = "hardened", ignore = "the feature places differently")]
fn every_region_comes_to_the_same() {
    const REGIONS: usize = 3;
    let folder = Folder::new("regions");
    let path = folder.path("regions");
    let heap = SmallocGlobal::<Indexed, REGIONS>::with_region_size(1 << 16);
    heap.record_to(&path).expect("the file can be made");
    // A thread has its home from its first request on, and while it lives no other thread gets that home.
    let all_have_homes = Barrier::new(4);
    thread::scope(|scope| {
        for seed in 1..=4 {
            let (heap, all_have_homes) = (&heap, &all_have_homes);
            scope.spawn(move || {
                assert!(heap.smalloc(Layout::new::<u64>()).1.success);
                all_have_homes.wait();
                churn(heap, seed, 3000);
            });
        }
    });
    assert!(heap.stop_recording().is_some_and(|recorded| recorded.complete));
    let (head, records) = read(&path);
    assert_eq!((head.regions as usize, head.region_size), (REGIONS, 1 << 16));
    for region in 0..REGIONS as u16 {
        let own: Vec<Record> = records.iter().filter(|record| record.region == region).copied().collect();
        assert!(own.len() > 1000, "{} calls in region {region}", own.len());
        assert_replays::<Indexed>(&head, &own);
        assert_prints(&[&path, "--of", &region.to_string()], &["The same as recorded"]);
    }
    assert_refuses(&[&path], "it has 3 regions: choose one, --of 0 to 2");
    assert_refuses(&[&path, "--of", "3"], "it has 3 regions: choose one, --of 0 to 2");
}

// ---- running the command -----------------------------------------------------------------------------------------

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalloc"));
    command.arg("replay").args(arguments);
    command
}

fn replay(arguments: &[&str]) -> Output {
    command(arguments).output().expect("the command starts")
}

#[track_caller]
fn assert_prints(arguments: &[&str], parts: &[&str]) {
    let output = replay(arguments);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{stdout}{stderr}");
    for part in parts {
        assert!(stdout.contains(part), "{part:?} is not in\n{stdout}");
    }
}

#[track_caller]
fn assert_refuses(arguments: &[&str], error: &str) {
    let output = replay(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(
        stderr.starts_with("smalloc replay: ") && stderr.contains(error),
        "{error:?} is not in\n{stderr}"
    );
}
