//! `smalloc completions`: the script with which a shell completes commands.

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use crate::output::print;

const EXAMPLES: &str = "\
Examples:
  smalloc completions bash > ~/.local/share/bash-completion/completions/smalloc
  smalloc completions fish > ~/.config/fish/completions/smalloc.fish";

/// Print the completions of this command for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the completions.
///
/// # Errors
///
/// If they cannot be printed.
pub fn run(args: &Args) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "smalloc", &mut script);
    Ok(print(script)?)
}
