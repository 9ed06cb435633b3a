//! `smalloc man`: the pages of the manual.

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;

use super::Cli;
use crate::output::print;

const EXAMPLES: &str = "\
Examples:
  smalloc man | man -l -
  smalloc man replay > /usr/local/share/man/man1/smalloc-replay.1";

/// Print a page of the manual.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The subcommand to describe [default: the command itself]
    command: Option<String>,
}

/// Prints the page.
///
/// # Errors
///
/// If there is no such subcommand, or the page cannot be printed.
pub fn run(args: &Args) -> Result<()> {
    // Building gives the subcommands their full names, `smalloc-replay`.
    let mut command = Cli::command();
    command.build();
    let command = match &args.command {
        None => command,
        Some(name) => command
            .get_subcommands()
            .find(|subcommand| subcommand.get_name() == name)
            .cloned()
            .with_context(|| format!("{name:?}: there is no such subcommand"))?,
    };
    let mut page = Vec::new();
    Man::new(command).render(&mut page)?;
    Ok(print(page)?)
}
