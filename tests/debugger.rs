//! `crates/tool/gdb/smalloc_gdb.py` in gdb, on a live process and on a core file, compared with what the process says
//! itself.

mod case;

use smalloc::{Linked, SmallocGlobal};
use std::alloc::{GlobalAlloc, Layout};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[global_allocator]
static HEAP: SmallocGlobal = SmallocGlobal::with_region_size(1 << 30);
static SHOWN: SmallocGlobal<Linked> = SmallocGlobal::with_region_size(1 << 20);

const CASES: [case::Case; 1] = [("waits", waits)];

/// Not a test: the tests below start it.
#[test]
#[ignore = "runs in a process of its own, started by the other tests"]
fn case() {
    case::act(&CASES);
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a layout")
}

/// Fills a heap with a little of everything, prints where it is, and waits for the debugger.
fn waits() {
    // Any process with the right to debug this one may do so, and not only its ancestors.
    // SAFETY: the numbers are what the call takes.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
    // SAFETY: layouts are not empty; blocks are live when they are used, and have these layouts.
    let blocks = unsafe {
        let sizes = [100, 4096, 200_000, 50, 70_000, 16, 5000, 300];
        let mut blocks = sizes.map(|size| SHOWN.alloc(layout(size)));
        // Holes of a word, of many, and of a whole large segment.
        for free in [1, 3, 4, 6] {
            SHOWN.dealloc(blocks[free], layout(sizes[free]));
        }
        blocks[0] = SHOWN.realloc(blocks[0], layout(100), 10_000);
        assert!(SHOWN.alloc(layout(2 << 20)).is_null());
        blocks
    };
    let stats = SHOWN.stats();
    assert!(stats.holes() >= 3 && stats.reallocs == 1 && stats.failures == 1);
    case::write(&format!("\nblocks {:?}\n", blocks.map(|block| block as usize)));
    let mut json = String::new();
    stats.write_json(&mut json).expect("a string takes everything");
    case::write(&format!("{json}\nready\n"));
    std::thread::sleep(std::time::Duration::from_secs(60));
}

/// A process that waits, and what it has printed about itself.
struct Waiting {
    child: Child,
    blocks: Vec<usize>,
    stats: String,
}

impl Waiting {
    fn start() -> Self {
        Self::start_as(case::command("waits"))
    }

    fn start_as(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the test program starts");
        let lines =
            BufReader::new(child.stdout.take().expect("piped")).lines().map(|line| line.expect("text"));
        let told: Vec<String> = lines.take_while(|line| line != "ready").collect();
        let blocks = told.iter().find_map(|line| line.strip_prefix("blocks [")).expect("addresses");
        let blocks = blocks.trim_end_matches(']').split(", ").map(|block| block.parse().expect("an address"));
        let stats = told.last().expect("numbers").clone();
        Self { child, blocks: blocks.collect(), stats }
    }

    fn number(&self, name: &str) -> usize {
        let (_, rest) = self.stats.split_once(&format!("\"{name}\":")).expect("a number of that name");
        rest.split([',', '}']).next().and_then(|digits| digits.parse().ok()).expect("a number")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs gdb with the script and some commands, and returns the output.
fn gdb(arguments: &[&str], commands: &[String]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/tool/gdb/smalloc_gdb.py");
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set debuginfod enabled off"]).args(arguments).arg("-x").arg(script);
    for command in commands {
        gdb.args(["-ex", command]);
    }
    let outcome = case::finish("gdb", &mut gdb);
    format!("{}{}", outcome.stdout, outcome.stderr)
}

fn there_is_gdb() -> bool {
    let there = Command::new("gdb").args(["-nx", "-batch", "-ex", "python print(1)"]).output();
    let there = there.is_ok_and(|output| output.stdout.starts_with(b"1"));
    if !there {
        println!("skipped: there is no gdb with Python here");
    }
    there
}

/// The output of the script agrees with that of the process.
fn assert_told(process: &Waiting, told: &str) {
    let part = |text: String| assert!(told.contains(&text), "{text:?} is not in\n{told}");
    part("debugger::SHOWN, list linked, region 0x".into());
    part("debugger::HEAP, list indexed, region 0x".into());
    let kibibytes = |bytes: usize| format!("{:.1} KiB", bytes as f64 / 1024.0);
    let size = |name| kibibytes(process.number(name));
    part(format!(
        "  memory      used {}, free {}, top {}\n",
        size("used_bytes"),
        size("free_bytes"),
        size("top")
    ));
    part(format!("in use {}, holes {}\n", process.number("live_segments"), process.number("holes")));
    part(format!("bytes in holes {}, largest {}\n", size("hole_bytes"), size("largest_hole")));
    part(format!("calls       allocs {}, frees {}\n", process.number("allocs"), process.number("frees")));
    part("reallocs    1, in place 0, moved 1\n".into());
    part("failures    1, the last of 2,097,152 bytes\n".into());
    let in_use = process.blocks[2];
    part(format!(
        "{:#x} is in debugger::SHOWN, in a segment in use: {in_use:#x} to {:#x}, 200000 bytes at offset 0x",
        in_use + 7,
        in_use + 200_000
    ));
    part(", 7 bytes into it\n".into());
    part(format!("{:#x} is in debugger::SHOWN, in a segment free: ", process.blocks[6]));
    part("in a segment free: the wilderness, ".into());
    part("0x10 is in no heap".into());
    // By size, and by address.
    part(format!("  {in_use:#x}  offset 0x"));
    part("in use  200000 bytes\n  1 segments, 195.3 KiB\n".into());
    part(format!("  {:#x}  offset 0x", process.blocks[6]));
    // A hole of 4,208 bytes, and the segment behind it.
    part(format!("\n0x00000  {}▒{}\n", "·".repeat(16), "█".repeat(47)));
    part("1 character is 256 B: ".into());
}

fn commands(process: &Waiting) -> Vec<String> {
    let wilderness = process.blocks[7] + (512 << 10);
    let mut commands = vec!["smalloc stats".to_owned(), "smalloc map".to_owned()];
    for address in [process.blocks[2] + 7, process.blocks[6], wilderness, 16] {
        commands.push(format!("smalloc segment {address:#x}"));
    }
    commands.push("smalloc segments in-use size=200000".to_owned());
    commands.push(format!("smalloc segments free at={:#x}-{:#x}", process.blocks[6], process.blocks[6] + 15));
    commands
}

#[test]
fn a_live_process_can_be_looked_at() {
    if there_is_gdb() {
        let process = Waiting::start();
        let told = gdb(&["-p", &process.child.id().to_string()], &commands(&process));
        assert_told(&process, &told);
    }
}

#[test]
fn a_core_file_can_be_looked_at() {
    if there_is_gdb() {
        let process = Waiting::start();
        let core = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("core-{}", process.child.id()));
        let path = core.to_str().expect("text");
        gdb(&["-p", &process.child.id().to_string()], &[format!("generate-core-file {path}")]);
        let program = std::env::current_exe().expect("the test program has a path");
        let told = gdb(&[program.to_str().expect("text"), path], &commands(&process));
        let size = core.metadata().expect("gdb has written the file").len();
        std::fs::remove_file(&core).expect("it is there");
        // Two heaps without their regions, one of which has a gibibyte, and the reserved part of an arena of the C
        // library.
        assert!(size < 128 << 20, "{size} bytes");
        assert_told(&process, &told);
    }
}

/// The heaps of a stripped program have no names.
#[test]
fn a_stripped_program_can_be_looked_at() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let stripped = folder.join(format!("stripped-{}", std::process::id()));
    let program = std::env::current_exe().expect("the test program has a path");
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&program).status();
    if !there_is_gdb() || !strip.is_ok_and(|status| status.success()) {
        println!("skipped: there is no strip here");
        return;
    }
    let process = Waiting::start_as(case::command_of(&stripped, "waits"));
    let mut commands = vec!["smalloc stats".to_owned()];
    commands.push("smalloc segments size=200000-200000".to_owned());
    let told = gdb(&["-p", &process.child.id().to_string()], &commands);
    drop(process);
    std::fs::remove_file(&stripped).expect("it is there");
    assert!(told.contains("failures    1, the last of 2,097,152 bytes\n"), "{told}");
    assert!(told.contains("in use  200000 bytes\n  1 segments, 195.3 KiB\n"), "{told}");
}

#[test]
fn wrong_filters_are_reported() {
    if there_is_gdb() {
        for wrong in ["size", "size=x", "at=1-y", "used"] {
            let told = gdb(&[], &[format!("smalloc segments {wrong}")]);
            assert!(
                told.contains("smalloc segments [in-use|free] [size=MIN[-MAX]] [at=FROM[-TO]]"),
                "{told}"
            );
        }
    }
}

#[test]
fn objects_that_are_no_heap_are_reported() {
    if there_is_gdb() {
        let stats = ["smalloc stats".to_owned()];
        assert!(gdb(&["/bin/true"], &stats).contains("no table of heaps (smalloc::debugger::HEAPS)"));
        let program = std::env::current_exe().expect("the test program has a path");
        let told = gdb(&[program.to_str().expect("text")], &stats);
        assert!(told.contains("no heap has been used yet"), "{told}");
    }
}
