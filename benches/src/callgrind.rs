//! Instructions and mispredicted branches of a replay, counted by callgrind. The counts repeat exactly, which no clock
//! does.
//!
//! Each allocator replays each trace once in a process of its own, with a fresh heap. Only instructions inside of
//! `replay_piece` are counted. The loop itself is part of the count, the same few instructions for all.

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::allocators;
use crate::child::{self, Calls};
use crate::options::{Options, Touch};
use crate::replay::{Once, describe};
use crate::report::{Comparison, Sample};
use crate::trace::Trace;

/// The counts of one replay.
struct Counts {
    instructions: f64,
    mispredicted: f64,
}

/// Finds `event` in the lines `events:` and `totals:` of a callgrind file.
fn event(text: &str, event: &str) -> Option<f64> {
    let line = |head: &str| text.lines().find_map(|line| line.strip_prefix(head));
    let index = line("events:")?.split_whitespace().position(|name| name == event)?;
    let totals = line("totals:").or_else(|| line("summary:"))?;
    totals.split_whitespace().nth(index)?.parse().ok()
}

fn count(allocator: &str, calls: &Path, region: usize, out: &Path) -> io::Result<Counts> {
    let mut out_option = std::ffi::OsString::from("--callgrind-out-file=");
    out_option.push(out);
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--branch-sim=yes", "--collect-atstart=no"])
        .arg("--toggle-collect=*replay_piece*")
        .arg(out_option)
        .arg(env::current_exe()?)
        .args(["callgrind-child", allocator])
        .arg(calls)
        .arg(region.to_string())
        .stdout(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(io::Error::other(format!("valgrind with {allocator}: {}\n{text}", output.status)));
    }
    let text = fs::read_to_string(out)?;
    let number =
        |name| event(&text, name).ok_or_else(|| io::Error::other(format!("no {name} in {}", out.display())));
    Ok(Counts { instructions: number("Ir")?, mispredicted: number("Bcm")? + number("Bim")? })
}

/// Counts every trace with every allocator. With an output folder, the callgrind files stay there
/// for `callgrind_annotate`.
///
/// # Errors
///
/// If a trace cannot be read, valgrind cannot be run or a file cannot be written.
pub fn run(options: &Options) -> io::Result<()> {
    // Counting takes fifty times as long as running: without `--only`, just the closest peer.
    let only = &if options.chosen { options.only.clone() } else { vec!["smalloc", "talc"] };
    let mut instructions =
        Comparison::new("callgrind-instructions", "instructions per call", only, &options.base);
    let mut mispredicted =
        Comparison::new("callgrind-mispredicted", "mispredicted branches per call", only, &options.base)
            .with_decimals(3);
    let folder = options.out.clone().unwrap_or_else(env::temp_dir);
    fs::create_dir_all(&folder)?;
    for trace in Trace::open_all(&options.traces, options.align)? {
        describe(&trace);
        let calls = Calls::store(&trace)?;
        let per_call = |count: f64| vec![Sample::Full(count / trace.calls.len() as f64)];
        let (mut ir, mut missed) = (Vec::new(), Vec::new());
        for allocator in only {
            let out = folder.join(format!("callgrind.{}.{allocator}", trace.name));
            let counts = count(allocator, calls.path(), options.region, &out)?;
            ir.push(per_call(counts.instructions));
            missed.push(per_call(counts.mispredicted));
            if options.out.is_none() {
                fs::remove_file(&out)?;
            }
        }
        instructions.push(&trace.name, ir);
        mispredicted.push(&trace.name, missed);
    }
    instructions.finish(options.out.as_deref())?;
    mispredicted.finish(options.out.as_deref())
}

/// The process that is counted: `allocator`, the file of calls, and the size of the region.
///
/// # Errors
///
/// If the arguments are not these or the file cannot be read.
pub fn child(arguments: &[String]) -> io::Result<()> {
    let (allocator, trace, [region]) = child::arguments(arguments)?;
    let once = Once { trace: &trace, region, touch: Touch::None, limit: Duration::MAX };
    let failed = allocators::visit(allocator, &once).failed;
    if failed > 0 {
        return Err(io::Error::other(format!("{failed} requests failed")));
    }
    Ok(())
}
