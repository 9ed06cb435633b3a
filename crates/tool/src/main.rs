//! `smalloc`, the command.

use std::process::ExitCode;

use clap::Parser;
use smalloc_tool::command::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
