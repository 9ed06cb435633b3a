//! Measures smalloc beside the allocators of its kind.
//!
//! ```text
//! cargo run --release -p smalloc-bench -- all --traces DIR --out DIR
//! cargo run --release -p smalloc-bench -- replay --traces DIR --only smalloc,talc --rounds 15
//! ```
//!
//! | command | what it measures |
//! |---|---|
//! | `replay` | traces of real programs: time per call |
//! | `cold` | the same in a new process each time, with the page faults of fresh memory |
//! | `footprint` | the traces with every byte written: peak resident growth over peak live bytes |
//! | `churn` | a random block freed and another allocated, at 10^3 to 10^6 live blocks: time per pair |
//! | `mixes` | the same with few sizes that nearly fit each other's places, and aligned requests, up to 10^5 live: time per pair |
//! | `random` | talc's random actions, on one thread and on four: time per action |
//! | `efficiency` | a region of 128 MiB filled to the first failure: live bytes over region |
//! | `cheese` | requests too large for each of many holes: steps and time against their number |
//! | `threads` | sets of blocks that wander among 1 to 64 threads: pairs per second |
//! | `larson` | the same with sets of 1000 blocks that wander seldom, and what is resident then |
//! | `remote` | one thread allocates, another frees: blocks per second |
//! | `latency` | single calls of a million: median, 99 %, 99.9 %, worst; of each call the least over the rounds |
//! | `large` | a block that grows to 1 GiB by doubling; 512 MiB written and read at random; also with huge pages |
//! | `programs` | the work of the examples `ast`, `words` and `cache` as whole programs: processor time, peak memory |
//! | `callgrind` | instructions and mispredicted branches of the replays, exact (needs valgrind) |
//! | `all` | all of these, one after the other, each in a process of its own |
//!
//! | option | default | |
//! |---|---|---|
//! | `--traces PATH` | | a trace, or a folder of them; can be repeated |
//! | `--only A,B` | all | allocators, in the order of the columns |
//! | `--base A` | the first | the allocator that the others are divided by |
//! | `--rounds N` | 5 | interleaved rounds, 3 for `churn`, 7 for `programs`; for `efficiency` the fills, 10 (the published ones are 300) |
//! | `--out DIR` | | writes a CSV file for each table |
//! | `--limit S` | 1 | seconds after which one allocator's round is cut, marked `*` |
//! | `--touch none`, `first`, `all` | none | how much of its blocks a timed replay writes |
//! | `--align N` | 8 | the largest alignment of a plain request in a replay |
//! | `--region-mib N` | 256 | the region of a replay |
//! | `--live N,N` | 1000 to 1000000 | the live blocks of `churn` and `mixes` |
//! | `--pairs N` | 300000 | the timed pairs of `churn` and `mixes` |
//! | `--threads N,N` | 1,2,4,16,64 | the threads of `threads` |
//!
//! # How
//!
//! - Every allocator works as it would behind `#[global_allocator]`: `smalloc` with its own lock; the other region
//!   allocators (talc, rlsf, dlmalloc, good_memory_allocator as `galloc`, buddy_system_allocator as `buddy`,
//!   linked_list_allocator as `lla`) behind one and the same spin lock, with a mapped region of the same size as
//!   smalloc's; the system's malloc, mimalloc and jemalloc unchanged.
//! - The timed loops are generic and compiled once for each allocator: no call through a table. Random numbers are
//!   seeded, so all allocators get the same calls.
//! - The allocators take turns: each round runs all of them once, beginning with another one. The ratio of two
//!   allocators is taken within a round. Tables give the median over the rounds, and the geometric mean of those over
//!   the lines. The last line, `smalloc / it`, is the reciprocal.
//! - A replay first decodes its trace, to 12 bytes a call. Frees and reallocs of unknown addresses are left out and
//!   counted. One pass that is not timed faults in the memory, and leaks are freed between passes. So page faults and
//!   decoding do not count, but the loop that makes the calls does: `--only smalloc,talc,loop` shows its cost.
//! - `cold` is the opposite: the cost of a program's start. It writes the first byte of every block, or all with
//!   `--touch all`.
//! - `churn`, `random`, `cheese` and the thread workloads begin each round with a fresh heap.
//! - `footprint` uses a process for each number, and touches all of its own memory before.
//! - `programs` reads the Rust files and folders that follow it, or the sources that cargo keeps. It takes the
//!   allocators for which there is a binary in `src/bin`: smalloc, system, mimalloc and jemalloc.
//! - A measurement that the time limit cut short (`*`) would look worse at full length.
//!
//! `smalloc-linked` is smalloc with the linked free list, `smalloc-2`, `smalloc-4` and `smalloc-16` have several
//! regions, and `smalloc-huge` has huge pages. Like `loop` they take part only if they are named, except in `large`.

use std::env;
use std::io;
use std::process::{Command, ExitCode};

mod allocators;
mod callgrind;
mod cheese;
mod child;
mod churn;
mod clean;
mod footprint;
mod large;
mod latency;
mod options;
mod programs;
mod random;
mod region;
mod replay;
mod report;
mod rng;
mod threads;
mod trace;

use options::Options;

/// All workloads of `all`, and whether each needs traces.
const ALL: [(&str, bool); 15] = [
    ("replay", true),
    ("cold", true),
    ("footprint", true),
    ("churn", false),
    ("mixes", false),
    ("random", false),
    ("efficiency", false),
    ("cheese", false),
    ("threads", false),
    ("larson", false),
    ("remote", false),
    ("latency", false),
    ("large", false),
    ("programs", false),
    ("callgrind", true),
];

/// Runs every workload in a process of its own, so that none finds the heap of another one.
fn run_all(options: &Options) -> io::Result<()> {
    let valgrind = Command::new("valgrind").arg("--version").output().is_ok();
    for (command, needs_traces) in ALL {
        if needs_traces && options.traces.is_empty() {
            println!("\n## {command}: left out, there is no --traces");
            continue;
        }
        if command == "callgrind" && !valgrind {
            println!("\n## {command}: left out, valgrind is not installed");
            continue;
        }
        let passed_on = env::args_os().skip(1).filter(|argument| argument != "all");
        let status = Command::new(env::current_exe()?).arg(command).args(passed_on).status()?;
        if !status.success() {
            return Err(io::Error::other(format!("{command}: {status}")));
        }
    }
    Ok(())
}

fn run(options: &Options) -> io::Result<()> {
    match options.command.as_str() {
        "all" => run_all(options),
        "replay" => replay::run(options),
        "cold" => replay::run_cold(options),
        "cold-child" => replay::cold_child(&options.arguments),
        "footprint" => footprint::run(options),
        "footprint-child" => footprint::child(&options.arguments),
        "churn" => churn::run(options),
        "mixes" => churn::run_mixes(options),
        "random" => random::run_actions(options),
        "efficiency" => random::run_efficiency(options),
        "cheese" => cheese::run(options),
        "threads" => threads::run_threads(options),
        "larson" => threads::run_larson(options),
        "larson-child" => threads::larson_child(&options.arguments),
        "remote" => threads::run_remote(options),
        "latency" => latency::run(options),
        "large" => large::run(options),
        "programs" => programs::run(options),
        "callgrind" => callgrind::run(options),
        "callgrind-child" => callgrind::child(&options.arguments),
        "" | "help" => {
            println!("{}", options::HELP);
            Ok(())
        }
        command => Err(io::Error::other(format!("unknown command {command:?}; see --help"))),
    }
}

fn main() -> ExitCode {
    let result = Options::from_args().map_err(io::Error::other).and_then(|options| run(&options));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smalloc-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
