//! A program whose heap is wrapped in `Heaptrack` shows each of its blocks in heaptrack, with its call stack.

use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs};

use smalloc::{Heaptrack, SmallocGlobal};

static HEAP: SmallocGlobal = SmallocGlobal::new();

#[global_allocator]
static TRACKED: Heaptrack<&SmallocGlobal> = Heaptrack::new(&HEAP);

/// Blocks of the program, their size, and those that it leaks.
const BLOCKS: usize = 500;
const SIZE: usize = 1234;
const LEAKED: usize = 50;

/// Not a test: the program that is run under heaptrack.
#[test]
#[ignore = "runs in a process of its own, under heaptrack"]
fn program() {
    let mut blocks: Vec<Box<[u8; SIZE]>> = (0..BLOCKS).map(|_| block()).collect();
    blocks.drain(..LEAKED).for_each(|block| _ = Box::leak(block));
    let mut grown = Vec::with_capacity(1);
    (0..1000_u64).for_each(|number| grown.push(number));
    black_box((blocks, grown));
}

#[inline(never)]
fn block() -> Box<[u8; SIZE]> {
    black_box(Box::new([1; SIZE]))
}

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // An error leaves files behind in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
#[cfg_attr(not(debug_assertions), ignore = "the release profile has no names of functions for heaptrack")]
fn heaptrack_sees_every_block_and_its_stack() {
    if Command::new("heaptrack").arg("--version").output().is_err() {
        assert!(env::var_os("CI").is_none(), "missing: heaptrack");
        eprintln!("not tested, for want of heaptrack");
        return;
    }
    let folder = Folder(env::temp_dir().join(format!("smalloc-heaptrack-{}", std::process::id())));
    fs::create_dir_all(&folder.0).expect("a folder can be made");
    let own = env::current_exe().expect("the test program has a path");
    let output = Command::new("heaptrack")
        .args(["--output"])
        .arg(folder.0.join("trace"))
        .arg(own)
        .args(["--exact", "program", "--include-ignored"])
        .output()
        .expect("it starts");
    assert!(output.status.success(), "{output:?}");
    let trace =
        fs::read_dir(&folder.0).expect("it is there").next().expect("a trace").expect("a file").path();
    let stacks = folder.0.join("stacks");
    // The sum over all stacks that go through the function.
    let through_block = |cost: &str| -> usize {
        let output = Command::new("heaptrack_print")
            .args(["--flamegraph-cost-type", cost, "-F"])
            .args([&stacks, &trace])
            .output()
            .expect("it starts");
        assert!(output.status.success(), "{output:?}");
        let text = fs::read_to_string(&stacks).expect("it is there");
        let own = text.lines().filter(|line| line.contains("heaptrack::block"));
        own.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
    };
    assert_eq!(through_block("allocations"), BLOCKS);
    assert_eq!(through_block("leaked"), LEAKED * SIZE);
    assert_eq!(through_block("peak"), BLOCKS * SIZE);
}
