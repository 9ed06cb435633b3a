//! The tool of smalloc: a library that its subcommands share, and the subcommands.
//!
//! - [`input`] reads traces of any format into calls.
//! - [`replay`] makes the calls on heaps.
//! - [`picture`] draws the outcome.
//! - `report` describes and draws it as a page.
//! - `convert` writes it for other tools.
//! - [`command`] has a module for each subcommand, with its arguments.

#![warn(missing_docs, unreachable_pub, unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]

pub mod command;
mod convert;
pub mod input;
mod output;
pub mod picture;
pub mod replay;
mod report;
