//! A replay of a recording comes to the same, call by call, and the example `replay` says so; what it cannot read it
//! refuses, and says where.

mod case;

use smalloc::recording::{Call, HEAD_BYTES, Head, Record};
use smalloc::{FreeList, Heap, Indexed, Linked, MallocStatus, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::ptr::NonNull;
use std::sync::Barrier;
use std::{env, fs, thread};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();

const CASES: [case::Case; 1] = [("busy", busy)];

/// Not a test: what the tests below start.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

/// A folder for the files of one test, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("smalloc-replay-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a folder can be made");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a name in Unicode").to_owned()
    }

    /// A file with that in it.
    fn file(&self, name: &str, contents: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, contents).expect("a file can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left over is in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

// ---- programs that are recorded ----------------------------------------------------------------------------------

/// Allocates, resizes and frees by numbers that look random, and keeps some.
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
        // What found no room is no block.
        blocks[slot] = blocks[slot].filter(|(block, _)| !block.is_null());
    }
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

/// The whole program is recorded: collections, and threads whose calls come in between each other's.
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

/// A heap that is recorded from its first call on, by several threads, until it is full now and then.
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
                let (resized, status) = unsafe { heap.srealloc(block, before, record.size) };
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
    case::finish("busy", case::command("busy").env("SMALLOC_RECORD", &path)).assert_success();
    let (head, records) = read(&path);
    assert!(records.len() > 20_000);
    assert_replays::<Indexed>(&head, &records);
}

/// Giving memory back is no call that is recorded, and when it is due depends on the way that a free takes: searches cost
/// the same with it and without.
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
        // The holes are filled, and the index does not know. A search from the bottom would learn it.
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

/// A limit refuses what there is room for, so it is in the recording: the one that there was, and each that follows.
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

/// Each region is a heap of its own, and what several threads did to it is in one order.
#[test]
#[cfg_attr(feature = "hardened", ignore = "the feature places differently")]
fn every_region_comes_to_the_same() {
    const REGIONS: usize = 3;
    let folder = Folder::new("regions");
    let path = folder.path("regions");
    let heap = SmallocGlobal::<Indexed, REGIONS>::with_region_size(1 << 16);
    heap.record_to(&path).expect("the file can be made");
    // A thread has its home from its first request on, and while it lives nobody else is dealt that.
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

// ---- the example -------------------------------------------------------------------------------------------------

/// What runs the example, which is built if it is not.
fn command(arguments: &[&str]) -> Command {
    let profile: &[&str] = if cfg!(debug_assertions) { &[] } else { &["--release"] };
    let mut command = Command::new(env!("CARGO"));
    command
        .args(["run", "--quiet", "--offline"])
        .args(profile)
        .args(["--example", "replay", "--"])
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")));
    command
}

fn replay(arguments: &[&str]) -> Output {
    command(arguments).output().expect("cargo runs")
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
    assert!(stderr.starts_with("replay: ") && stderr.contains(error), "{error:?} is not in\n{stderr}");
}

#[test]
#[cfg_attr(feature = "hardened", ignore = "the feature places differently")]
fn the_example_replays_recordings_and_compares() {
    let folder = Folder::new("compares");
    let (linked, program) = (folder.path("linked"), folder.path("program"));
    record_threads::<Linked>(&linked);
    case::finish("busy", case::command("busy").env("SMALLOC_RECORD", &program)).assert_success();

    let (_, records) = read(&linked);
    let requests = |record: &&Record| !matches!(record.call, Call::Dealloc | Call::MovedFrom | Call::Sfree);
    let requests = records.iter().filter(requests).count();
    let grouped = format!("{},{:03}", requests / 1000, requests % 1000);
    let both = format!("The same as recorded: the offsets of {grouped} requests, the hops of {grouped}.");
    assert_prints(&[&linked], &[&both, "The recording was stopped by its program.", "linked:"]);
    assert_prints(&[&linked, "--list", "both"], &[&both, "Both lists gave every block the same place."]);
    let offsets = format!("The same as recorded: the offsets of {grouped} requests, the hops of 0.");
    assert_prints(&[&linked, "--list", "indexed"], &[&offsets]);
    assert_prints(&[&linked, "--region", "1M"], &["Not compared with the recording: its heap was of 64 KiB"]);
    assert_prints(&[&program], &["The recording ended with its process.", "The same as recorded"]);

    // One hop more in one record is seen, and named.
    let mut bytes = fs::read(&linked).expect("the recording is there");
    let at = records.iter().position(|record| record.call == Call::Alloc).expect("an allocation");
    bytes[HEAD_BYTES + 32 * at + 24] += 1;
    let damaged = folder.file("damaged", &bytes);
    assert_refuses(&[&damaged], &format!("call {}: 0 hops here, 1 in the recording", at + 1));
    bytes[HEAD_BYTES + 32 * at + 16] ^= 1;
    let damaged = folder.file("damaged", &bytes);
    assert_refuses(&[&damaged], "the recording takes offset 0x10");
}

/// A recording that begins late has what was in use in it.
#[test]
#[cfg_attr(feature = "hardened", ignore = "the feature places differently")]
fn the_example_replays_what_began_late() {
    let folder = Folder::new("late");
    let path = folder.path("late");
    let heap = SmallocGlobal::<Linked>::with_region_size(1 << 20);
    churn(&heap, 5, 5000);
    assert!(heap.stats().holes() > 10);
    heap.record_to(&path).expect("the file can be made");
    churn(&heap, 6, 5000);
    assert!(heap.stop_recording().is_some_and(|recorded| recorded.complete));
    assert_prints(&[&path, "--list", "both"], &["The same as recorded", "linked:", "indexed:"]);
}

#[test]
fn the_example_reads_what_others_write() {
    let folder = Folder::new("others");
    let android =
        "1: malloc 0x10 100\n\n2: calloc 0x20 3 8\n1: free 0x10\n1: free 0x99\n2: thread_done 0x0\n";
    let heaptrack = "v 10400 3\nX ls /\nt 7f49 0\n+ 64 1 10\n+ 18 1 20\n- 10\n- 99\n";
    let mtrace = "= Start\n@ ./a:[0x1] + 0x10 0x64\n@ ./a:(f+0x2)[0x1] + 0x20 0x18\n@ ./a:[0x1] - 0x10\n\
                  @ ./a:[0x1] - 0x99\n= End\n";
    for (name, text) in [("android", android), ("heaptrack", heaptrack), ("mtrace", mtrace)] {
        let file = folder.file(name, text);
        let parts = ["Replayed 4 calls", "1 frees of blocks that were never seen", "allocs 2, frees 1,"];
        assert_prints(&[&file, "--list", "both"], &parts);
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, text.as_bytes()).expect("it is packed");
        let file = folder.file(&format!("{name}.packed"), packed.finish().expect("it is packed"));
        assert_prints(&[&file], &parts);
    }
}

#[test]
fn the_example_says_what_it_cannot_read_and_where() {
    let folder = Folder::new("bad");
    let refuses = |name: &str, contents: &[u8], error: &str| {
        let file = folder.file(name, contents);
        assert_refuses(&[&file], &format!("{file}: {error}"));
    };
    refuses("empty", b"", "the file is empty");
    refuses("prose", b"Once upon a time\n", "line 1: \"Once upon a time\" is of no format that can be read");
    refuses("android", b"1: malloc 0x10 9\n1: mall", "line 2: \"1: mall\": not a line of memory_replay");
    refuses("heaptrack", b"v 1 2\n+ 0\n", "line 2: \"+ 0\": heaptrack has taken the addresses out");
    refuses("mtrace", b"= Start\n@ a > 0x1 0x2\n", "line 2: \"@ a > 0x1 0x2\": not a line of mtrace");
    refuses("zstd", b"\x28\xb5\x2f\xfd.....", "the file is packed by zstd");
    refuses("gzip", b"\x1f\x8b\x08\x00.....", "");
    refuses("head", b"\x8fsmalloc\x01\0\0\0", "the recording ends in its head");
    let path = folder.path("whole");
    record_threads::<Linked>(&path);
    let mut whole = fs::read(&path).expect("the recording is there");
    refuses("cut", &whole[..64 + 32 * 3 + 5], "record 4: the file ends in the midst of it");
    whole[64 + 32] = 77;
    refuses("call", &whole, "record 2: damaged: no call has number 77");
    whole[8] = 2;
    refuses("version", &whole, "a recording of format version 2, this is for version 1");
    // What could be read is replayed before it is said what could not, and nothing that was there is lost.
    let file = folder.file("packed-cut", b"1: malloc 0x10 9\n1: mall");
    let picture = folder.file("picture", "a picture");
    let output = replay(&[&file, "--holes", &picture]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8_lossy(&output.stdout)
            .contains("Replayed 1 calls of a trace for memory_replay.\nThe rest")
    );
    assert!(fs::read_to_string(&picture).is_ok_and(|picture| picture.starts_with("<svg")));
    let picture = folder.file("picture", "a picture");
    assert_refuses(&["/no/such/file", "--holes", &picture], "cannot read /no/such/file");
    assert_eq!(fs::read_to_string(&picture).expect("it is there"), "a picture");
    assert_refuses(&[&file, "--holes", &file], "it is the trace");
    assert_refuses(&[], "which trace is missing");
    assert_refuses(&["/no/such/file"], "cannot read /no/such/file: No such file or directory");
    assert_refuses(&[&path, "--map", "/no/such/file"], "--map: cannot write /no/such/file");
    assert_refuses(&[&path, "--at", "99999999"], "--at 99999999: there are only");
}

/// What cannot be drawn keeps nothing else from being drawn, or from being told.
#[test]
fn the_example_tells_all_that_is_wrong() {
    let folder = Folder::new("wrong");
    let file = folder.file("trace", "1: malloc 0x1 100\n1: free 0x2\nnonsense\n");
    let path = folder.path("memory");
    let output = replay(&[&file, "--map", "/dev/full", "--memory", &path]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let errors: Vec<&str> = stderr.lines().collect();
    assert!(errors.len() == 2 && errors[0].contains("line 3") && errors[1].contains("/dev/full"), "{stderr}");
    assert!(stdout.contains("The picture for --memory is in") && !stdout.contains("for --map"), "{stdout}");
    assert!(fs::read_to_string(&path).expect("the picture is there").starts_with("<svg"));
}

/// Whoever reads the report may leave before its end.
#[test]
fn the_example_draws_for_who_does_not_read() {
    let folder = Folder::new("unread");
    let file = folder.file("trace", "1: malloc 0x1 100\n1: free 0x1\n");
    let path = folder.path("memory");
    let mut child = command(&[&file, "--memory", &path])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cargo runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the example ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(fs::read_to_string(&path).expect("the picture is there").starts_with("<svg"));
}

#[test]
fn the_example_draws() {
    let folder = Folder::new("draws");
    let lines = (0..5000).map(|n| match n % 3 {
        2 => format!("1: free {:#x}\n", n - 1),
        _ => format!("1: malloc {:#x} {}\n", n + 1, 16 + n % 1000),
    });
    let file = folder.file("trace", lines.collect::<String>());
    let options = ["--raster", "--hops", "--memory", "--map", "--holes"];
    let paths: Vec<String> = options.iter().map(|option| folder.path(&option[2..])).collect();
    let again = folder.path("again");
    let mut arguments = vec![&*file, "--list", "both", "--at", "4000"];
    arguments.extend(options.iter().zip(&paths).flat_map(|(option, path)| [*option, path]));
    arguments.extend(["--raster", &again, "--map", "-"]);
    assert_prints(
        &arguments,
        &["The picture for --raster is in", "The picture for --holes is in", "largest hole"],
    );
    assert!(
        fs::read(&again).expect("it is drawn twice") == fs::read(&paths[0]).expect("the picture is there")
    );
    let raster = fs::File::open(&paths[0]).expect("the picture is there");
    let mut raster = png::Decoder::new(std::io::BufReader::new(raster)).read_info().expect("it is a PNG");
    let mut pixels = vec![0; raster.output_buffer_size().expect("it is small")];
    let info = raster.next_frame(&mut pixels).expect("it is whole");
    assert!((600..1400).contains(&info.width) && (300..700).contains(&info.height), "{info:?}");
    let colours: std::collections::HashSet<&[u8]> = pixels.chunks(3).collect();
    assert!(colours.len() > 8, "{} colours", colours.len());
    for (path, part) in paths[1..].iter().zip(["Holes over time", "Memory over time", "heap map", "Holes:"]) {
        let picture = fs::read_to_string(path).expect("the picture is there");
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{path}");
        assert!(picture.contains(part), "{part:?} is not in {path}");
    }
}
