//! `smalloc convert`: each format is read back by the tool that it is for.
//!
//! `SMALLOC_TEST_PYTHON` names a Python that has the package `perfetto`, and `SMALLOC_TEST_PPROF` Go's `pprof`, as
//! `.ci/run` does. If a tool is missing, its test is skipped, except in CI.

#[path = "../report/browser.rs"]
#[expect(dead_code, reason = "the tests of the report use more of it")]
mod browser;
#[path = "../common/mod.rs"]
mod common;
mod consumers;

use common::Folder;
use std::fmt::Write;
use std::process::{Command, Output};
use std::{env, fs};

use serde_json::Value;

/// A trace of heaptrack with call stacks: `main` calls `insert` in two places of one line, and `insert` calls `grow`.
/// The names are those of files that do not exist, with an offset.
///
/// Two blocks of 0x64 bytes are in use at the peak, after call 3, beside one of 0x3e8; at the end one of 0x10 is.
const STACKS: &str = "\
v 10400 3
x 9 /nowhere/x
X /nowhere/x
I 1000 5e298d
m c /nowhere/bin 1000 0 1000
m c /nowhere/lib 9000 0 1000
t 1100 0
t 1200 1
t 9100 2
t 1300 1
+ 64 2 10
+ 64 2 20
+ 3e8 3 30
- 20
- 30
- 10
+ 10 4 40
+ 20 4 50
- 50
";

/// As STACKS has them, from the outside in.
const MAIN: &str = "bin+0x100";
const INSERT: &str = "bin+0x200";
const GROW: &str = "lib+0x100";
const OTHER: &str = "bin+0x300";

/// 100 blocks of two sizes on two threads, of which those of one thread are freed.
fn two_threads() -> String {
    let mut trace = String::new();
    for block in 1..=50 {
        _ = writeln!(trace, "71: malloc 0x{block}1 48\n72: malloc 0x{block}2 5000");
    }
    (1..=50).for_each(|block| _ = writeln!(trace, "72: free 0x{block}2"));
    trace
}

fn convert(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_smalloc")).arg("convert").args(arguments).output().expect("it starts")
}

/// Converts a trace, and returns the path of the file.
#[track_caller]
fn converted(folder: &Folder, trace: &str, format: &str, more: &[&str]) -> String {
    let (trace, path) = (folder.file("trace", trace), folder.path(format));
    let output = convert(&[&[trace.as_str(), "--to", format, "-o", &path], more].concat());
    assert!(output.status.success() && output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
    path
}

#[track_caller]
fn json(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).expect("the file is there")).expect("it is JSON")
}

/// The numbers of a column.
#[track_caller]
fn numbers(column: &Value) -> Vec<i64> {
    let column = column.as_array().unwrap_or_else(|| panic!("an array: {column}"));
    column.iter().map(|number| number.as_i64().unwrap_or_else(|| panic!("a number: {number}"))).collect()
}

// ---- files -------------------------------------------------------------------------------------------------------

#[test]
fn files_are_replaced_whole_or_not_at_all() {
    let folder = Folder::new("whole");
    let trace = folder.file("trace", STACKS);
    let before = "what was here";
    let out = folder.file("out", before);
    for (arguments, error) in [
        (&[&trace, "--to", "frob", "-o", &out][..], "invalid value 'frob' for '--to <FORMAT>'"),
        (&[&folder.path("none"), "--to", "dhat", "-o", &out], "cannot read"),
        (&[&folder.file("text", "hello\n"), "--to", "dhat", "-o", &out], "is in no format that can be read"),
        (&[&trace, "--to", "dhat", "-o", &trace], "it is the trace"),
        (&[&trace, "--to", "perfetto", "--at", "99", "-o", &out], "--at 99: there are only 9 calls"),
        (&[&trace, "--to", "dhat", "-o", &folder.path("none/out")], "--output: cannot write"),
        (&[&trace, "--to", "dhat"], "--output"),
    ] {
        let output = convert(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(error), "{error:?} is not in\n{stderr}");
    }
    assert_eq!(fs::read_to_string(&out).expect("it is there"), before);
    assert_eq!(fs::read_to_string(&trace).expect("it is there"), STACKS);

    // Through a link the file itself is replaced, and keeps its permissions.
    let link = folder.path("link");
    std::os::unix::fs::symlink(&out, &link).expect("a link can be made");
    let mut permissions = fs::metadata(&out).expect("it is there").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o640);
    fs::set_permissions(&out, permissions).expect("they can be set");
    assert!(convert(&[&trace, "--to", "folded", "-o", &link]).status.success());
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&out).expect("it is there").permissions());
    assert_eq!(mode & 0o777, 0o640);
    let text = fs::read_to_string(&out).expect("it is there");
    assert_eq!(convert(&[&trace, "--to", "folded", "-o", "-"]).stdout, text.as_bytes());
    // No temporary file stays.
    let files = fs::read_dir(folder.path("")).expect("the folder is there").count();
    assert_eq!(files, ["trace", "out", "text", "link"].len());

    let full = convert(&[&trace, "--to", "firefox", "-o", "/dev/full"]);
    assert_eq!(full.status.code(), Some(2), "{full:?}");
    assert!(String::from_utf8_lossy(&full.stderr).contains("cannot write /dev/full: No space"), "{full:?}");
}

/// A part of a trace is converted, and it is said where it ends.
#[test]
fn a_damaged_trace_is_converted_as_far_as_it_goes() {
    let folder = Folder::new("damaged");
    let trace = folder.file("trace", format!("{STACKS}hello\n"));
    let output = convert(&[&trace, "--to", "folded", "--value", "end", "-o", "-"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{MAIN};{OTHER} 16\n"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a line of heaptrack"), "{output:?}");
}

// ---- formats -----------------------------------------------------------------------------------------------------

#[test]
fn folded_stacks_have_the_number_that_is_asked_for() {
    let folder = Folder::new("folded");
    for (value, lines) in [
        ("peak", &[(&[MAIN, INSERT][..], 200), (&[MAIN, INSERT, GROW], 1000)][..]),
        ("end", &[(&[MAIN, OTHER], 16)]),
        ("total", &[(&[MAIN, INSERT], 200), (&[MAIN, INSERT, GROW], 1000), (&[MAIN, OTHER], 48)]),
        ("blocks", &[(&[MAIN, INSERT], 2), (&[MAIN, INSERT, GROW], 1), (&[MAIN, OTHER], 2)]),
    ] {
        let path = converted(&folder, STACKS, "folded", &["--value", value]);
        let expected: String =
            lines.iter().map(|(frames, number)| format!("{} {number}\n", frames.join(";"))).collect();
        assert_eq!(fs::read_to_string(path).expect("it is there"), expected, "{value}");
    }
    let path = converted(&folder, &two_threads(), "folded", &["--value", "total"]);
    let expected = "blocks of 48 bytes 2400\nblocks of 4609 to 5120 bytes 250000\n";
    assert_eq!(fs::read_to_string(path).expect("it is there"), expected);
}

/// Every number of the file, against the trace.
#[test]
fn dhat_has_the_sums_of_each_stack() {
    let folder = Folder::new("dhat");
    let file = json(&converted(&folder, STACKS, "dhat", &[]));
    assert_eq!((&file["tg"], &file["te"]), (&3.into(), &9.into()));
    let point = |number: usize| {
        let point = &file["pps"][number];
        ["tb", "tbk", "tl", "mb", "mbk", "gb", "gbk", "eb", "ebk"]
            .map(|name| point[name].as_i64().expect(name))
    };
    // The blocks live from call 1 to 6 and from 2 to 4; from 3 to 5; from 7 to the end and from 8 to 9.
    assert_eq!(point(0), [200, 2, 7, 200, 2, 200, 2, 0, 0]);
    assert_eq!(point(1), [1000, 1, 2, 1000, 1, 1000, 1, 0, 0]);
    assert_eq!(point(2), [48, 2, 3, 48, 2, 0, 0, 16, 1]);
    let names = file["ftbl"].as_array().expect("an array");
    let frames: Vec<Vec<&str>> = (0..3)
        .map(|point| {
            let frames = numbers(&file["pps"][point]["fs"]);
            frames.iter().map(|&frame| names[frame as usize].as_str().expect("a text")).collect()
        })
        .collect();
    assert_eq!(frames, [vec![INSERT, MAIN], vec![GROW, INSERT, MAIN], vec![OTHER, MAIN]]);
    assert_eq!(names[0], "[root]");
}

/// A stack that is told twice is one: the viewer of DHAT refuses two that are alike.
#[test]
fn stacks_of_the_same_frames_are_one() {
    let folder = Folder::new("same");
    let twice = STACKS.replace("t 1300 1\n", "t 1300 1\nt 1200 1\n").replace("+ 64 2 20", "+ 64 5 20");
    assert_eq!(
        json(&converted(&folder, &twice, "dhat", &[]))["pps"],
        json(&converted(&folder, STACKS, "dhat", &[]))["pps"]
    );
}

/// No reader of this format can be installed, so its columns are checked as the profiler's own documentation has them.
#[test]
fn firefox_has_every_allocation_and_free() {
    let folder = Folder::new("firefox");
    let file = json(&converted(&folder, STACKS, "firefox", &[]));
    let [thread] = &file["threads"].as_array().expect("an array")[..] else { panic!("one thread") };
    let samples = &thread["nativeAllocations"];
    assert_eq!(numbers(&samples["weight"]), [100, 100, 1000, -100, -1000, -100, 16, 32, -32]);
    assert_eq!(samples["weightType"], "bytes");
    assert_eq!(samples["length"], 9);
    // In milliseconds.
    let times: Vec<f64> = (1..=9).map(|call| f64::from(call) / 1000.0).collect();
    assert_eq!(samples["time"], serde_json::json!(times));
    // Both blocks of 100 bytes take 112, and the lowest hole is used again.
    assert_eq!(numbers(&samples["memoryAddress"]), [0, 112, 224, 112, 224, 0, 0, 16, 16]);
    let stacks: Vec<Vec<String>> = samples["stack"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|stack| frames(&file, thread, stack.as_u64()))
        .collect();
    let (insert, grow, other) = ([INSERT, MAIN], [GROW, INSERT, MAIN], [OTHER, MAIN]);
    let none: &[&str] = &[];
    assert_eq!(stacks, [&insert[..], &insert, &grow, none, none, none, &other, &other, none]);

    // The thread is the outermost frame.
    let file = json(&converted(&folder, &two_threads(), "firefox", &[]));
    let thread = &file["threads"][0];
    let stacks = &thread["nativeAllocations"]["stack"];
    assert_eq!(frames(&file, thread, stacks[0].as_u64()), ["blocks of 48 bytes", "thread 71"]);
    assert_eq!(frames(&file, thread, stacks[1].as_u64()), ["blocks of 4609 to 5120 bytes", "thread 72"]);
    assert_eq!(file["threads"].as_array().map(Vec::len), Some(1));
    let counter = &file["counters"][0]["samples"]["count"];
    let live: f64 = counter.as_array().expect("an array").iter().filter_map(Value::as_f64).sum();
    assert_eq!(live, 50.0 * 48.0, "the changes add up to the live bytes at the end");
}

/// The frames of a stack of the Firefox Profiler, the innermost first.
fn frames(file: &Value, thread: &Value, mut stack: Option<u64>) -> Vec<String> {
    let mut frames = Vec::new();
    let strings = thread.get("stringArray").unwrap_or(&file["shared"]["stringArray"]);
    let at = |column: &Value, index: u64| column[index as usize].clone();
    while let Some(index) = stack {
        let frame = at(&thread["stackTable"]["frame"], index).as_u64().expect("a frame");
        let function = at(&thread["frameTable"]["func"], frame).as_u64().expect("a function");
        let name = at(&thread["funcTable"]["name"], function).as_u64().expect("a name");
        frames.push(at(strings, name).as_str().expect("a text").to_owned());
        stack = at(&thread["stackTable"]["prefix"], index).as_u64();
    }
    frames
}
