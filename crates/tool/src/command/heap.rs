//! Options for the heaps of a replay.

use clap::ValueEnum;
use clap::builder::ValueParser;
use smalloc_terminal::{List, parse_size};

/// The size of the heaps, and the part of a recording that they replay.
#[derive(Debug, clap::Args)]
pub(super) struct HeapArgs {
    /// The size of the heap, such as 512M or 2G [default: that of the recording, or 32G, of which only what is used
    /// takes memory]
    #[arg(long, value_name = "SIZE", overrides_with = "region", value_parser = ValueParser::new(parse_size))]
    pub(super) region: Option<usize>,
    /// Number of the region to replay, from 0 on, of a recording of several
    #[arg(long, value_name = "N", overrides_with = "of")]
    pub(super) of: Option<u16>,
}

/// The free lists to replay on.
#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    /// The free list of the heap [default: that of the recording, or indexed]
    #[arg(long, value_name = "LIST", overrides_with = "list")]
    list: Option<Lists>,
}

impl ListArgs {
    /// None stands for the default.
    pub(super) fn lists(&self) -> &'static [List] {
        match self.list {
            None => &[],
            Some(Lists::Linked) => &[List::Linked],
            Some(Lists::Indexed) => &[List::Indexed],
            Some(Lists::Both) => &[List::Linked, List::Indexed],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Lists {
    Linked,
    Indexed,
    Both,
}
