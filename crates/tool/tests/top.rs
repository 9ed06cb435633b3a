//! `smalloc top` on programs that publish, that have stopped, and that have ended.

use smalloc::{Linked, SmallocGlobal};
use std::alloc::Layout;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use std::{env, fs, process, thread};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::new();
static LOOKED_AT: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(1 << 20);
static FOLLOWED: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
static AWAITED: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);
static LEFT: SmallocGlobal = SmallocGlobal::with_region_size(1 << 20);

/// A path at which there is no file, and none after the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = Self(env::temp_dir().join(format!("smalloc-top-{}-{name}", process::id())));
        let _ = fs::remove_file(&place.0);
        place
    }

    fn text(&self) -> &str {
        self.0.to_str().expect("a temporary path is text")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn top(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_smalloc"));
    command.arg("top").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn start(arguments: &[&str]) -> Child {
    top(arguments).spawn().expect("the command starts")
}

#[track_caller]
fn assert_prints(output: Output, parts: &[&str]) -> String {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    for part in parts {
        assert!(stdout.contains(part), "{part:?} is not in\n{stdout}");
    }
    stdout
}

#[track_caller]
fn assert_refuses(arguments: &[&str], error: &str) {
    let output = top(arguments).output().expect("the command starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && stderr.contains(error), "{error:?} is not in\n{stderr}");
}

#[test]
fn it_shows_a_heap_once() {
    let place = Place::new("once");
    LOOKED_AT.publish_to(place.text()).expect("it can be published");
    assert!(LOOKED_AT.smalloc(Layout::new::<[u8; 1000]>()).1.success);
    let name = fs::read_to_string("/proc/self/comm").expect("the system tells");
    let head = format!("process {} ({}), list linked, publishing for", process::id(), name.trim());
    let looked = top(&["--once", place.text()]).output().expect("the command starts");
    let text = assert_prints(looked, &[&head, "used 1008 B, top 1008 B", "1 since", "smalloc heap ["]);
    assert!(!text.contains("its last numbers"), "{text}");
    LOOKED_AT.stop_publishing();
    let stopped = top(&[place.text()]).output().expect("the command starts");
    assert_prints(stopped, &["used    1008 B", "has stopped publishing; these are its last numbers."]);
}

#[test]
fn it_follows_a_heap_in_lines() {
    let place = Place::new("lines");
    FOLLOWED.publish_to(place.text()).expect("it can be published");
    let child = start(&["--interval", "5", "--interval=0.02", place.text()]);
    for _ in 0..40 {
        FOLLOWED.smalloc(Layout::new::<[u8; 1000]>());
        thread::sleep(Duration::from_millis(10));
    }
    FOLLOWED.stop_publishing();
    let text = assert_prints(child.wait_with_output().expect("it ends"), &["has stopped publishing"]);
    let rates: Vec<&str> = text.lines().filter_map(|line| line.split("a second").nth(1)).collect();
    assert!(rates.len() > 3 && rates[0].trim() == "-", "{text}");
    assert!(rates[1..].iter().any(|rate| rate.trim().parse::<u64>().is_ok_and(|rate| rate > 10)), "{text}");
}

#[test]
fn it_waits_for_a_heap() {
    let place = Place::new("wait");
    assert_refuses(&[place.text()], &format!("smalloc top: {}: No such file or directory", place.text()));
    let child = start(&["--wait", "--once", place.text()]);
    thread::sleep(Duration::from_millis(150));
    AWAITED.publish_to(place.text()).expect("it can be published");
    assert_prints(child.wait_with_output().expect("it ends"), &["list indexed"]);
    AWAITED.stop_publishing();
}

/// Not a test: a program that publishes and ends.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn ends() {
    let blocks: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
    assert_eq!(blocks.len(), 1000);
}

#[test]
fn it_shows_the_last_numbers_of_what_has_ended() {
    let place = Place::new("ended");
    let program = env::current_exe().expect("the test program has a path");
    let mut program = Command::new(program);
    program.args(["--exact", "ends", "--include-ignored"]).env("SMALLOC_LIVE", place.text());
    assert!(program.output().expect("the test program starts").status.success());
    let ended = top(&[place.text()]).output().expect("the command starts");
    assert_prints(ended, &["The program has ended; these are its last numbers."]);
}

/// The reader of the lines may leave, as `head` does, which ends the command and is not an error.
#[test]
fn it_ends_when_its_reader_leaves() {
    let place = Place::new("left");
    LEFT.publish_to(place.text()).expect("it can be published");
    let mut child = start(&["--interval", "0.01", place.text()]);
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().expect("piped"));
    assert!(reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && line.contains("used"), "{line}");
    drop(reader);
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    LEFT.stop_publishing();
}

#[test]
fn what_is_no_page_is_refused() {
    let place = Place::new("other");
    fs::write(&place.0, "prose").expect("the file can be written");
    assert_refuses(&["--once", place.text()], &format!("smalloc top: {}: ", place.text()));
    assert_refuses(&["--interval", "0", place.text()], "it must be a number of seconds from 0.01 to 3600");
    assert_refuses(&[], "<FILE>");
}
