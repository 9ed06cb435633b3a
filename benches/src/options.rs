//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::allocators::{NAMES, ON_DEMAND};

/// The output of `--help`.
pub const HELP: &str = "\
smalloc-bench COMMAND [OPTIONS]
smalloc-bench programs [OPTIONS] [PATH...]    (Rust files or folders of them; else the sources that cargo keeps)

commands: all replay cold footprint churn random efficiency cheese threads larson remote latency large programs
          callgrind

--traces PATH       a trace or a folder of them, for replay, cold, footprint, callgrind; repeatable
--only A,B          the allocators, in the order of the columns
--base A            the allocator that the others are divided by (the first)
--rounds N          interleaved rounds (5, churn 3, programs 7); fills of efficiency (10)
--out DIR           writes a CSV file for each table
--limit S           seconds until one allocator's round is cut and marked * (1)
--touch T           the part of each block that a timed replay writes: none, first (byte), all (none)
--align N           the largest alignment of a plain request in a replay (8)
--region-mib N      the region of a replay (256)
--live N,N          live blocks of churn (1000,10000,100000,1000000)
--pairs N           timed pairs of churn (300000)
--threads N,N       threads of threads and larson (1,2,4,16,64)";

/// The part of each block that a replay writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Touch {
    /// Nothing: only the calls are made.
    None = 0,
    /// The first byte.
    First = 1,
    /// Every byte.
    All = 2,
}

/// All options.
#[derive(Debug)]
pub struct Options {
    /// The command.
    pub command: String,
    /// The arguments after the command.
    pub arguments: Vec<String>,
    /// The allocators, in the order of the tables.
    pub only: Vec<&'static str>,
    /// The allocator that the others are compared to.
    pub base: String,
    /// Files or folders of traces.
    pub traces: Vec<PathBuf>,
    /// The folder for CSV files.
    pub out: Option<PathBuf>,
    /// Whether `--only` was given.
    pub chosen: bool,
    /// Interleaved rounds; without the option, the default of the workload.
    rounds: Option<usize>,
    /// The numbers of threads.
    pub threads: Vec<usize>,
    /// The part of each block that a replay writes.
    pub touch: Touch,
    /// The largest alignment that a replay gives to plain requests, in bytes.
    pub align: usize,
    /// The size of the region of a replay, in bytes.
    pub region: usize,
    /// The longest time one round of one allocator may take.
    pub limit: Duration,
    /// Numbers of live blocks for the churn.
    pub live: Vec<usize>,
    /// Timed pairs of the churn.
    pub pairs: usize,
}

impl Default for Options {
    fn default() -> Self {
        let only: Vec<&'static str> =
            NAMES.iter().copied().filter(|name| !ON_DEMAND.contains(name)).collect();
        Self {
            command: String::new(),
            arguments: Vec::new(),
            base: only[0].to_owned(),
            only,
            traces: Vec::new(),
            out: None,
            chosen: false,
            rounds: None,
            threads: vec![1, 2, 4, 16, 64],
            touch: Touch::None,
            align: 8,
            region: 256 << 20,
            limit: Duration::from_secs(1),
            live: vec![1_000, 10_000, 100_000, 1_000_000],
            pairs: 300_000,
        }
    }
}

/// The names in a list separated by commas.
fn names(list: &str) -> Result<Vec<&'static str>, lexopt::Error> {
    let find = |name: &str| {
        let known = || format!("no allocator is called {name:?}; there are {}", NAMES.join(", "));
        NAMES.iter().copied().find(|known| *known == name).ok_or_else(|| known().into())
    };
    list.split(',').map(find).collect()
}

fn numbers(list: &str) -> Result<Vec<usize>, lexopt::Error> {
    let parse = |number: &str| number.parse().map_err(|_| format!("not a number: {number:?}").into());
    list.split(',').map(parse).collect()
}

fn touch(word: &str) -> Result<Touch, lexopt::Error> {
    match word {
        "none" => Ok(Touch::None),
        "first" => Ok(Touch::First),
        "all" => Ok(Touch::All),
        _ => Err("--touch is none, first or all".into()),
    }
}

impl Options {
    /// Reads the command line of the process.
    ///
    /// # Errors
    ///
    /// If an option is unknown or its value is not valid.
    pub fn from_args() -> Result<Self, lexopt::Error> {
        let mut options = Self::default();
        let mut base = None;
        let mut parser = Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Arg::Value(word) if options.command.is_empty() => options.command = word.string()?,
                Arg::Value(word) => options.arguments.push(word.string()?),
                Arg::Long("base") => base = Some(names(&parser.value()?.string()?)?[0].to_owned()),
                Arg::Short('h') | Arg::Long("help") => "help".clone_into(&mut options.command),
                Arg::Long(name) => {
                    let name = name.to_owned();
                    let value = parser.value()?.string()?;
                    options.set(&name, &value)?;
                }
                Arg::Short(_) => return Err(argument.unexpected()),
            }
        }
        options.base = base.unwrap_or_else(|| options.only[0].to_owned());
        Ok(options)
    }

    /// The number of rounds: the option's, or else `default`.
    pub fn rounds_or(&self, default: usize) -> usize {
        self.rounds.unwrap_or(default)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), lexopt::Error> {
        let number = || value.parse::<usize>().map_err(|_| format!("--{name}: not a number: {value:?}"));
        match name {
            "only" => (self.only, self.chosen) = (names(value)?, true),
            "traces" => self.traces.push(value.into()),
            "out" => self.out = Some(value.into()),
            "rounds" => self.rounds = Some(number()?.max(1)),
            "touch" => self.touch = touch(value)?,
            "align" => self.align = number()?.next_power_of_two(),
            "region-mib" => self.region = number()? << 20,
            "limit" => self.limit = Duration::from_secs(number()? as u64),
            "threads" => self.threads = numbers(value)?,
            "live" => self.live = numbers(value)?,
            "pairs" => self.pairs = number()?.max(1),
            _ => return Err(format!("unknown option --{name}").into()),
        }
        Ok(())
    }
}
