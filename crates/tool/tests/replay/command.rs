//! `smalloc replay`: its comparisons, inputs, errors and pictures.

use crate::{
    Folder, assert_prints, assert_refuses, churn, command, read, record_program, record_threads, replay,
};
use smalloc::recording::{Call, HEAD_BYTES, Record};
use smalloc::{Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::fs;
use std::process::Stdio;

#[test]
#[cfg_attr(feature = "hardened", ignore = "the feature places differently")]
fn it_replays_recordings_and_compares() {
    let folder = Folder::new("compares");
    let (linked, program) = (folder.path("linked"), folder.path("program"));
    record_threads::<Linked>(&linked);
    record_program(&program);

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

    // One hop more in one record is detected, and reported.
    let mut bytes = fs::read(&linked).expect("the recording is there");
    let at = records.iter().position(|record| record.call == Call::Alloc).expect("an allocation");
    bytes[HEAD_BYTES + 32 * at + 24] += 1;
    let damaged = folder.file("damaged", &bytes);
    assert_refuses(&[&damaged], &format!("call {}: 0 hops here, 1 in the recording", at + 1));
    bytes[HEAD_BYTES + 32 * at + 16] ^= 1;
    let damaged = folder.file("damaged", &bytes);
    assert_refuses(&[&damaged], "the recording takes offset 0x10");
}

/// A recording that begins late contains the blocks in use at that moment.
#[test]
#[cfg_attr(feature = "hardened", ignore = "the feature places differently")]
fn it_replays_what_began_late() {
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
fn it_reads_what_others_write() {
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
fn it_says_what_it_cannot_read_and_where() {
    let folder = Folder::new("bad");
    let refuses = |name: &str, contents: &[u8], error: &str| {
        let file = folder.file(name, contents);
        assert_refuses(&[&file], &format!("{file}: {error}"));
    };
    refuses("empty", b"", "the file is empty");
    refuses("prose", b"Once upon a time\n", "line 1: \"Once upon a time\" is in no format that can be read");
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
    refuses("call", &whole, "record 2: damaged: call 77 is unknown");
    whole[8] = 3;
    refuses("version", &whole, "format version 3 is not supported, only 1 and 2");
    // The readable part is replayed before the error is reported, and no file is lost.
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
    let output = replay(&[]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("were not provided") && stderr.contains("<FILE>"), "{stderr}");
    assert_refuses(&["/no/such/file"], "cannot read /no/such/file: No such file or directory");
    assert_refuses(&[&path, "--map", "/no/such/file"], "--map: cannot write /no/such/file");
    assert_refuses(&[&path, "--at", "99999999"], "--at 99999999: there are only");
}

/// A picture that cannot be written does not prevent the others or the report.
#[test]
fn it_tells_all_that_is_wrong() {
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

/// The reader of the report may leave before its end.
#[test]
fn it_draws_for_who_does_not_read() {
    let folder = Folder::new("unread");
    let file = folder.file("trace", "1: malloc 0x1 100\n1: free 0x1\n");
    let path = folder.path("memory");
    let mut child = command(&[&file, "--memory", &path])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("the command ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(fs::read_to_string(&path).expect("the picture is there").starts_with("<svg"));
}

#[test]
fn it_draws() {
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

/// A header with a larger number of records than there are: the end is missing, whether the file is cut off or empty.
#[test]
fn it_misses_records_that_are_gone() {
    let folder = Folder::new("gone");
    let path = folder.path("whole");
    record_threads::<Linked>(&path);
    let whole = fs::read(&path).expect("the recording is there");
    let all = (whole.len() - HEAD_BYTES) / 32;
    let cut = folder.file("cut", &whole[..HEAD_BYTES + 32 * 3]);
    assert_refuses(&[&cut], &format!("it ends after 3 of {all} records"));
    let mut zeros = whole;
    zeros[HEAD_BYTES + 32 * 5..].fill(0);
    let zeros = folder.file("zeros", &zeros);
    assert_refuses(&[&zeros], &format!("it ends after 5 of {all} records"));
}

/// Blocks in use when a recording began count, and may not fit in the replay.
#[test]
#[cfg_attr(feature = "hardened", ignore = "the feature places differently")]
fn it_counts_what_was_in_use_before() {
    let folder = Folder::new("held");
    let path = folder.path("held");
    let heap = SmallocGlobal::<Linked>::with_region_size(1 << 20);
    let layout = |size| Layout::from_size_align(size, 1).expect("a layout");
    // SAFETY: layouts are not empty, and blocks are live and have the layouts that they are given.
    unsafe {
        let [first, second, _third] = [100_000, 50_000, 100].map(|size| heap.alloc(layout(size)));
        heap.dealloc(first, layout(100_000));
        heap.record_to(&path).expect("the file can be made");
        heap.dealloc(second, layout(50_000));
        heap.alloc(layout(50));
    }
    assert!(heap.stop_recording().is_some_and(|recorded| recorded.complete));
    assert_prints(&[&path], &["Live at most: 48.9 KiB after call 0; at the end: 162 B."]);
    assert_prints(&[&path, "--region", "64K"], &["Not compared with the recording", "Replayed 2 calls"]);
    // An impossible segment.
    let mut bytes = fs::read(&path).expect("the recording is there");
    bytes[HEAD_BYTES + 8..HEAD_BYTES + 16].fill(0xff);
    let damaged = folder.file("damaged", &bytes);
    assert_refuses(&[&damaged], "has no end");
}

#[test]
fn it_refuses_what_is_incomplete_or_draws_over_itself() {
    let folder = Folder::new("incomplete");
    let half = folder.file("half", "= Start\n@ a + 0x10 0x10\n@ a < 0x10\n");
    assert_refuses(&[&half], "it ends in the midst of a realloc");
    let twice = folder.file("twice", "= Start\n@ a < 0x10\n@ a < 0x20\n@ a > 0x30 0x8\n");
    assert_refuses(&[&twice], "line 3: \"@ a < 0x20\": not a line of mtrace");
    let long = folder.file("long", format!("1: malloc 0x10 9\n{}", "x".repeat(2 << 20)));
    assert_refuses(&[&long], "line 2: it has 1048576 bytes and more");
    let file = folder.file("trace", "1: malloc 0x10 9\n1: mall");
    let picture = folder.path("picture");
    assert_refuses(&[&file, "--map", &picture, "--memory", &picture], "--map is drawn there");
    let output = replay(&[&file, "--at", "5"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("line 2") && stderr.contains("there are only 1 calls"), "{stderr}");
    let full = fs::File::options().write(true).open("/dev/full").expect("a device");
    let output = command(&[&file]).stdout(full).output().expect("the command starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.starts_with("smalloc replay: failed printing to stdout"), "{stderr}");
}
