//! The subcommands: each is a module with its arguments, `Args`, and a function `run`.

pub mod completions;
pub mod convert;
pub mod diff;
mod heap;
pub mod man;
pub mod pins;
mod progress;
pub mod replay;
pub mod report;
pub mod run;
pub mod top;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::output::{PrintError, complain};

const EXAMPLES: &str = "\
Examples:
  SMALLOC_RECORD=program.rec ./program && smalloc report program.rec -o report.html
  smalloc replay program.rec --memory memory.svg
  smalloc run --record program.rec -- program
  smalloc diff before.rec after.rec
  smalloc pins program.rec
  smalloc convert program.rec --to perfetto -o program.pftrace
  SMALLOC_LIVE=/tmp/heap.live ./program & smalloc top --wait /tmp/heap.live

Exit code: 0, or 2 after an error, which is printed on standard error.";

/// Replay and draw traces of allocations on a first-fit heap, and watch the heap of a running program.
#[derive(Debug, Parser)]
#[command(name = "smalloc", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Replay(replay::Args),
    Report(report::Args),
    Diff(diff::Args),
    Pins(pins::Args),
    Convert(convert::Args),
    Top(top::Args),
    Completions(completions::Args),
    Man(man::Args),
}

impl Cli {
    /// Runs the subcommand. An error is printed on standard error, and the exit code is 2.
    pub fn run(self) -> ExitCode {
        let (name, outcome) = match self.command {
            Command::Run(args) => ("run", run::run(&args).map(|never| match never {})),
            Command::Replay(args) => ("replay", replay::run(&args)),
            Command::Diff(args) => ("diff", diff::run(&args)),
            Command::Pins(args) => ("pins", pins::run(&args)),
            Command::Convert(args) => ("convert", convert::run(&args)),
            Command::Report(args) => ("report", report::run(&args)),
            Command::Top(args) => ("top", top::run(&args)),
            Command::Completions(args) => ("completions", completions::run(&args)),
            Command::Man(args) => ("man", man::run(&args)),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if matches!(error.downcast_ref(), Some(PrintError::ReaderLeft)) => ExitCode::SUCCESS,
            Err(error) => {
                complain(name, &error);
                ExitCode::from(2)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
