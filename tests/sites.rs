//! The feature `sites`: the call stacks in recordings, and the counts by call stack. How they are named is tested in
//! `crates/tool/tests/sites.rs`.

use smalloc::recording::{Call, Head, Line, Object, Record};
use smalloc::{Indexed, SmallocGlobal};
use std::alloc::Layout;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs, thread};

/// The program's own allocations.
#[global_allocator]
static GLOBAL: SmallocGlobal = SmallocGlobal::new();

/// A file that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(env::temp_dir().join(format!("smalloc-sites-{}-{number}", std::process::id())))
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("the folder for temporary files has a name in Unicode")
    }

    fn lines(&self) -> Vec<Line> {
        let bytes = fs::read(&self.0).expect("the recording is there");
        let (head, records) = bytes.split_first_chunk().expect("there is a head");
        let head = Head::from_bytes(head).expect("it is a head");
        let (records, rest) = records.as_chunks();
        assert!(head.sites && rest.is_empty() && head.records == records.len() as u64);
        let line = |record| Line::from_bytes(record).expect("it is a record").expect("it is no end");
        records.iter().map(line).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The test may not have made it.
        let _ = fs::remove_file(&self.0);
    }
}

/// A recording in its parts.
#[derive(Default)]
struct Recorded {
    intervals: Vec<u64>,
    objects: Vec<Object>,
    /// Build ID and path of each object.
    texts: Vec<Vec<u8>>,
    /// Caller and address of each frame.
    frames: Vec<(u32, u64)>,
    /// Each call with its stack, 0 for none.
    calls: Vec<(Record, u32)>,
}

impl Recorded {
    fn new(file: &Scratch) -> Self {
        let (mut all, mut next) = (Self::default(), 0);
        for line in file.lines() {
            match line {
                Line::Interval { bytes } => all.intervals.push(bytes),
                Line::Object(object) => {
                    all.objects.push(object);
                    all.texts.push(Vec::new());
                }
                Line::Text(text) => all.texts.last_mut().expect("an object comes first").extend(text),
                Line::Frame { caller, address } => {
                    assert!(caller as usize <= all.frames.len(), "a frame stands behind its caller");
                    all.frames.push((caller, address));
                }
                Line::Stack { frame } => {
                    assert!(next == 0 && (1..=all.frames.len()).contains(&(frame as usize)));
                    next = frame;
                }
                Line::Call(record) => all.calls.push((record, std::mem::take(&mut next))),
                other => panic!("{other:?}"),
            }
        }
        all
    }

    /// The addresses of a stack, the innermost first.
    fn stack(&self, mut number: u32) -> Vec<u64> {
        let mut addresses = Vec::new();
        while number > 0 {
            let (caller, address) = self.frames[number as usize - 1];
            addresses.push(address);
            number = caller;
        }
        addresses
    }

    fn path(&self, object: usize) -> String {
        let (start, bytes) = (self.objects[object].build_id_bytes, self.objects[object].path_bytes);
        String::from_utf8(self.texts[object][start..start + bytes].to_vec()).expect("a path in Unicode")
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 16).expect("a layout")
}

type Heap = SmallocGlobal<Indexed>;

#[inline(never)]
fn one(heap: &Heap, size: usize) -> NonNull<u8> {
    heap.smalloc(layout(size)).0.expect("there is room")
}

#[inline(never)]
fn other(heap: &Heap, size: usize) -> NonNull<u8> {
    std::hint::black_box(heap.smalloc(layout(size)).0.expect("there is room"))
}

fn recorded(interval: usize, work: impl FnOnce(&Heap)) -> Recorded {
    let (heap, file) = (Heap::with_region_size(16 << 20), Scratch::new());
    heap.set_site_interval(interval);
    heap.record_to(file.text()).expect("the file can be made");
    work(&heap);
    assert!(heap.stop_recording().is_some_and(|recorded| recorded.complete));
    Recorded::new(&file)
}

#[test]
fn every_request_has_the_stack_of_its_caller() {
    let all = recorded(1, |heap| {
        for _ in 0..3 {
            let block = one(heap, 100);
            // SAFETY: the block is live, and used no more by its old address.
            let block = unsafe { heap.srealloc(block, 50) }.expect("it shrinks in place");
            let second = other(heap, 100);
            // SAFETY: the block is live, and used no more by its old address.
            let block = unsafe { heap.srealloc(block, 5000) }.expect("there is room");
            // SAFETY: both blocks are live.
            [block, second].into_iter().for_each(|block| unsafe { heap.sfree(block) });
        }
    });
    assert_eq!(all.intervals, [1]);
    let calls: Vec<Call> = all.calls.iter().map(|(record, _)| record.call).collect();
    let round = [
        Call::Smalloc,
        Call::Realloc,
        Call::Smalloc,
        Call::Realloc,
        Call::MovedFrom,
        Call::Sfree,
        Call::Sfree,
    ];
    assert_eq!(calls, round.repeat(3));
    let stacks: Vec<u32> = all.calls.iter().map(|(_, stack)| *stack).collect();
    assert!(stacks.chunks(7).all(|round| round == &stacks[..7]), "the same code has the same stacks");
    let (with, without) = stacks[..7].split_at(4);
    assert!(with.iter().all(|&stack| stack > 0) && without == [0; 3], "frees have none: {stacks:?}");
    assert_eq!(BTreeSet::from_iter(with).len(), 4, "four places in the code: {stacks:?}");
    let outer: Vec<u64> = all.stack(with[0]).into_iter().rev().take(5).collect();
    assert!(with.iter().all(|&stack| all.stack(stack).into_iter().rev().take(5).eq(outer.iter().copied())));
}

#[test]
fn addresses_lie_in_the_objects_told() {
    let all = recorded(1, |heap| _ = one(heap, 10));
    for address in all.stack(all.calls[0].1) {
        let object = all.objects.iter().position(|object| (object.start..object.end).contains(&address));
        assert!(object.is_some(), "{address:x}");
    }
    let program = (0..all.objects.len()).find(|&object| {
        let code = one as fn(&Heap, usize) -> NonNull<u8> as usize as u64;
        (all.objects[object].start..all.objects[object].end).contains(&code)
    });
    let program = program.expect("the program is an object");
    assert_eq!(PathBuf::from(all.path(program)), env::current_exe().expect("it has a path"));
    for (object, text) in all.objects.iter().zip(&all.texts) {
        assert_eq!(text.len(), (object.build_id_bytes + object.path_bytes).next_multiple_of(24));
    }
}

#[test]
fn one_request_in_so_many_bytes_is_taken() {
    let work = |heap: &Heap| (0..20_000).for_each(|_| _ = one(heap, 100));
    let all = recorded(2000, work);
    let taken = all.calls.iter().filter(|(_, stack)| *stack > 0).count() as f64;
    // The generator has one seed, so the number is the same in every run.
    assert!((taken - 20_000.0 * (1.0 - (-0.05_f64).exp())).abs() < 160.0, "{taken}");
    let none = recorded(0, work);
    assert!(none.calls.len() == 20_000 && none.calls.iter().all(|(_, stack)| *stack == 0));
    assert_eq!((none.intervals, none.frames), (vec![0], vec![]));
}

#[test]
fn the_interval_can_be_changed_while_recording() {
    let all = recorded(0, |heap| {
        one(heap, 10);
        heap.set_site_interval(1);
        one(heap, 10);
        heap.set_site_interval(0);
        one(heap, 10);
    });
    assert_eq!(all.intervals, [0, 1, 0]);
    assert_eq!(all.calls.iter().map(|(_, stack)| *stack > 0).collect::<Vec<_>>(), [false, true, false]);
}

#[test]
fn a_later_recording_has_the_frames_of_the_first() {
    let heap = Heap::with_region_size(1 << 20);
    heap.set_site_interval(1);
    let mut stacks = Vec::new();
    for _ in 0..2 {
        let file = Scratch::new();
        heap.record_to(file.text()).expect("the file can be made");
        one(&heap, 10);
        heap.stop_recording();
        let all = Recorded::new(&file);
        stacks.push(all.stack(all.calls.last().expect("a call").1));
    }
    assert!(stacks[0].len() > 3);
    assert_eq!(stacks[0], stacks[1]);
}

#[test]
fn threads_and_regions_keep_their_stacks_apart() {
    let (heap, file) = (SmallocGlobal::<Indexed, 4>::with_region_size(1 << 20), Scratch::new());
    heap.set_site_interval(1);
    heap.record_to(file.text()).expect("the file can be made");
    let small = |heap: &SmallocGlobal<Indexed, 4>| _ = heap.smalloc(layout(32));
    let large = |heap: &SmallocGlobal<Indexed, 4>| _ = heap.smalloc(layout(64));
    thread::scope(|scope| {
        for thread in 0..4 {
            let heap = &heap;
            scope.spawn(move || match thread % 2 {
                0 => (0..500).for_each(|_| small(heap)),
                _ => (0..500).for_each(|_| large(heap)),
            });
        }
    });
    heap.stop_recording();
    let all = Recorded::new(&file);
    let inside = |size| -> BTreeSet<u64> {
        let calls = all.calls.iter().filter(|(record, _)| record.size == size);
        calls.map(|(_, stack)| *all.stack(*stack).iter().find(|_| true).expect("a stack")).collect()
    };
    let (of_small, of_large) = (inside(32), inside(64));
    assert_eq!(all.calls.len(), 2000);
    assert!(of_small.len() <= 2 && of_large.len() <= 2, "{of_small:x?} {of_large:x?}");
}

/// A request that its home refuses is recorded twice, both times with its stack.
#[test]
fn a_request_that_goes_elsewhere_keeps_its_stack() {
    let (heap, file) = (SmallocGlobal::<Indexed, 2>::with_region_size(64 << 10), Scratch::new());
    heap.set_site_interval(1);
    heap.record_to(file.text()).expect("the file can be made");
    for _ in 0..2 {
        assert!(heap.smalloc(layout(60 << 10)).0.is_some());
    }
    heap.stop_recording();
    let all = Recorded::new(&file);
    let placed: Vec<bool> = all.calls.iter().map(|(record, _)| record.offset.is_some()).collect();
    assert_eq!(placed, [true, false, true]);
    assert!(all.calls[0].1 > 0 && all.calls.iter().all(|(_, stack)| *stack == all.calls[0].1));
}

/// Bytes in use, blocks in use, bytes and blocks of all requests.
type Sums = (u64, u64, u64, u64);

fn sums(heap: &Heap) -> Sums {
    let sites = heap.sites().expect("there is memory for a copy");
    sites.iter().fold((0, 0, 0, 0), |sums, site| {
        let (live, all) = ((site.live_bytes, site.live_blocks), (site.bytes, site.blocks));
        (sums.0 + live.0, sums.1 + live.1, sums.2 + all.0, sums.3 + all.1)
    })
}

#[test]
fn counts_follow_every_call() {
    let heap = Heap::with_region_size(1 << 20);
    let before = one(&heap, 1000);
    assert_eq!(sums(&heap), (0, 0, 0, 0));
    heap.set_site_interval(1);
    heap.count_sites().expect("there is memory for counts");
    let (first, second) = (one(&heap, 100), other(&heap, 200));
    assert_eq!(sums(&heap), (300, 2, 300, 2));
    // SAFETY: the block is live, and used no more by its old address.
    let first = unsafe { heap.srealloc(first, 50) }.expect("it shrinks in place");
    assert_eq!(sums(&heap), (250, 2, 350, 3));
    // SAFETY: the block is live, and used no more by its old address.
    let first = unsafe { heap.srealloc(first, 5000) }.expect("there is room");
    assert_eq!(sums(&heap), (5200, 2, 5350, 4));
    // SAFETY: the blocks are live.
    [before, first].into_iter().for_each(|block| unsafe { heap.sfree(block) });
    assert_eq!(sums(&heap), (200, 1, 5350, 4));
    heap.set_site_interval(0);
    one(&heap, 100);
    assert_eq!(sums(&heap), (200, 1, 5350, 4), "no more stacks are taken");
    // SAFETY: the block is live.
    unsafe { heap.sfree(second) };
    assert_eq!(sums(&heap), (0, 0, 5350, 4));
    heap.stop_counting_sites();
    assert_eq!(sums(&heap), (0, 0, 0, 0));
    one(&heap, 100);
    assert_eq!(heap.stats().live_segments, 2);
}

#[test]
fn a_sample_estimates_the_whole() {
    let heap = Heap::with_region_size(64 << 20);
    heap.set_site_interval(10_000);
    heap.count_sites().expect("there is memory for counts");
    let blocks: Vec<NonNull<u8>> = (0..50_000).map(|number| one(&heap, 100 + number % 700)).collect();
    let all: usize = (0..50_000).map(|number| 100 + number % 700).sum();
    // SAFETY: the blocks are live.
    blocks.iter().step_by(2).for_each(|&block| unsafe { heap.sfree(block) });
    let (live, live_blocks, bytes, count) = sums(&heap);
    // About 2200 samples. The generator has one seed, so the numbers are the same in every run.
    let near = |estimate: u64, exact: usize| (estimate as f64 / exact as f64 - 1.0).abs() < 0.1;
    assert!(near(bytes, all) && near(count, 50_000), "{bytes} of {all}, {count}");
    assert!(near(live, all / 2) && near(live_blocks, 25_000), "{live} of {}, {live_blocks}", all / 2);
}

/// A recording that begins late knows the stacks of the blocks that are in use, if they are counted.
#[test]
fn counted_blocks_are_recorded_with_their_stacks() {
    let (heap, file) = (Heap::with_region_size(1 << 20), Scratch::new());
    one(&heap, 100);
    heap.set_site_interval(1);
    heap.count_sites().expect("there is memory for counts");
    one(&heap, 200);
    heap.record_to(file.text()).expect("the file can be made");
    assert!(heap.stop_recording().is_some());
    assert_eq!(sums(&heap).0, 200, "counting goes on");
    let all = Recorded::new(&file);
    let held: Vec<(Call, bool)> = all.calls.iter().map(|(record, stack)| (record.call, *stack > 0)).collect();
    assert_eq!(held, [(Call::Held, false), (Call::Held, true)]);
}

/// Messages of `profile.proto`, for an independent reader.
mod proto {
    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub(super) struct ValueType {
        #[prost(int64, tag = "1")]
        pub(super) kind: i64,
        #[prost(int64, tag = "2")]
        pub(super) unit: i64,
    }

    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(super) struct Sample {
        #[prost(uint64, repeated, tag = "1")]
        pub(super) location_id: Vec<u64>,
        #[prost(int64, repeated, tag = "2")]
        pub(super) value: Vec<i64>,
    }

    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub(super) struct Mapping {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(uint64, tag = "2")]
        pub(super) memory_start: u64,
        #[prost(uint64, tag = "3")]
        pub(super) memory_limit: u64,
        #[prost(uint64, tag = "4")]
        pub(super) file_offset: u64,
        #[prost(int64, tag = "5")]
        pub(super) filename: i64,
        #[prost(int64, tag = "6")]
        pub(super) build_id: i64,
    }

    #[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
    pub(super) struct Location {
        #[prost(uint64, tag = "1")]
        pub(super) id: u64,
        #[prost(uint64, tag = "2")]
        pub(super) mapping_id: u64,
        #[prost(uint64, tag = "3")]
        pub(super) address: u64,
    }

    #[derive(Clone, PartialEq, Eq, prost::Message)]
    pub(super) struct Profile {
        #[prost(message, repeated, tag = "1")]
        pub(super) sample_type: Vec<ValueType>,
        #[prost(message, repeated, tag = "2")]
        pub(super) sample: Vec<Sample>,
        #[prost(message, repeated, tag = "3")]
        pub(super) mapping: Vec<Mapping>,
        #[prost(message, repeated, tag = "4")]
        pub(super) location: Vec<Location>,
        #[prost(string, repeated, tag = "6")]
        pub(super) string_table: Vec<String>,
        #[prost(int64, tag = "7")]
        pub(super) drop_frames: i64,
        #[prost(message, optional, tag = "11")]
        pub(super) period_type: Option<ValueType>,
        #[prost(int64, tag = "12")]
        pub(super) period: i64,
        #[prost(int64, tag = "14")]
        pub(super) default_sample_type: i64,
    }
}

#[test]
fn a_profile_is_what_pprof_reads() {
    let heap = Heap::with_region_size(1 << 20);
    heap.set_site_interval(1);
    heap.count_sites().expect("there is memory for counts");
    let (_, freed) = (one(&heap, 1000), other(&heap, 300));
    // SAFETY: the block is live.
    unsafe { heap.sfree(freed) };
    let mut bytes = Vec::new();
    heap.sites().expect("there is memory for a copy").write_pprof(|part| bytes.extend_from_slice(part));
    let profile = <proto::Profile as prost::Message>::decode(bytes.as_slice()).expect("it is a profile");
    let text = |index: i64| profile.string_table[index as usize].as_str();
    assert_eq!(text(0), "");
    let types: Vec<_> = profile.sample_type.iter().map(|kind| (text(kind.kind), text(kind.unit))).collect();
    let expected = [
        ("alloc_objects", "count"),
        ("alloc_space", "bytes"),
        ("inuse_objects", "count"),
        ("inuse_space", "bytes"),
    ];
    assert_eq!((types, text(profile.default_sample_type)), (expected.to_vec(), "inuse_space"));
    let period = profile.period_type.expect("it has a period");
    assert_eq!((profile.period, text(period.kind), text(period.unit)), (1, "space", "bytes"));
    assert!(text(profile.drop_frames).contains("smalloc::"));
    let mut values: Vec<&[i64]> = profile.sample.iter().map(|sample| sample.value.as_slice()).collect();
    values.sort_unstable();
    assert_eq!(values, [&[1, 300, 0, 0], &[1, 1000, 1, 1000]]);
    let program = env::current_exe().expect("it has a path");
    let is_program = |mapping: &proto::Mapping| program.as_os_str() == text(mapping.filename);
    let mapping = profile.mapping.iter().find(|mapping| is_program(mapping)).expect("the program is mapped");
    assert!(text(mapping.build_id).bytes().all(|byte| byte.is_ascii_hexdigit()) && mapping.id > 0);
    let code = one as fn(&Heap, usize) -> NonNull<u8> as usize as u64;
    assert!((mapping.memory_start..mapping.memory_limit).contains(&code));
    let (start, limit, offset) = (mapping.memory_start, mapping.memory_limit, mapping.file_offset);
    let maps = fs::read_to_string("/proc/self/maps").expect("there are mappings");
    let mapped = format!("{start:x}-{limit:x} r-xp {offset:08x} ");
    assert!(maps.lines().any(|line| line.starts_with(&mapped)), "{mapped} is not in {maps}");
    for sample in &profile.sample {
        assert!(sample.location_id.len() > 3);
        for id in &sample.location_id {
            let location = profile.location.iter().find(|location| location.id == *id).expect("it is told");
            let mapping = profile.mapping.iter().find(|mapping| mapping.id == location.mapping_id);
            let mapping = mapping.expect("every address is in a loaded object");
            assert!((mapping.memory_start..mapping.memory_limit).contains(&location.address));
        }
    }
}

/// Go's own `pprof`, if the variable `SMALLOC_TEST_PPROF` tells its path, reads the profile.
#[test]
fn gos_pprof_reads_the_profile() {
    let Some(pprof) = env::var_os("SMALLOC_TEST_PPROF") else { return };
    let (heap, file) = (Heap::with_region_size(1 << 20), Scratch::new());
    heap.set_site_interval(1);
    heap.count_sites().expect("there is memory for counts");
    let (_, freed) = (one(&heap, 1000), other(&heap, 300));
    // SAFETY: the block is live.
    unsafe { heap.sfree(freed) };
    let mut bytes = Vec::new();
    heap.sites().expect("there is memory for a copy").write_pprof(|part| bytes.extend_from_slice(part));
    fs::write(&file.0, bytes).expect("the profile can be written");
    let run = |arguments: &[&str]| {
        let mut command = std::process::Command::new(&pprof);
        let output = command.args(arguments).arg(file.text()).output().expect("pprof starts");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("it prints text")
    };
    let (live, all) = (run(&["-top"]), run(&["-top", "-sample_index=alloc_space"]));
    assert!(live.contains("Type: inuse_space") && live.contains(" of 1000B total"), "{live}");
    assert!(all.contains("Type: alloc_space") && all.contains(" of 1300B total"), "{all}");
}
