//! Call sites: which code asked for memory. Only with the feature `sites`.
//!
//! - `sampler`: which requests have their call stack taken
//! - `stack`: taking a call stack
//! - `objects`: the program and its libraries in memory, by which addresses get names later
//! - `frames`: all call frames, each with a number
//! - `live`: the blocks in use whose stacks were taken
//! - `counts`: bytes and blocks by call stack
//! - `table`: all of these of one heap
//! - `report`: a copy of the counts; `pprof`: as a profile
//!
//! A stack is taken before the heap is locked. Everything else is done with the heap's lock held, in memory of its own,
//! whose size has a bound.

mod counts;
mod frames;
mod live;
mod objects;
mod pprof;
mod report;
mod sampler;
mod stack;
mod table;

pub(crate) use objects::{ask_loader, find_objects, objects};
pub use report::{Site, Sites};
pub(crate) use sampler::Sampler;
pub(crate) use stack::Stack;
pub(crate) use table::Table;
