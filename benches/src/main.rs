//! Measures smalloc beside the allocators of its kind.

use std::process::ExitCode;

mod allocators;
mod callgrind;
mod churn;
mod options;
mod region;
mod replay;
mod report;
mod rng;
mod trace;

use options::Options;

fn run(options: &Options) -> std::io::Result<()> {
    match options.command.as_str() {
        "replay" => replay::run(options),
        "churn" => churn::run(options),
        "callgrind" => callgrind::run(options),
        "callgrind-child" => callgrind::child(&options.arguments),
        command => Err(std::io::Error::other(format!("unknown command {command:?}; see --help"))),
    }
}

fn main() -> ExitCode {
    let result = Options::from_args().map_err(std::io::Error::other).and_then(|options| run(&options));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smalloc-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
