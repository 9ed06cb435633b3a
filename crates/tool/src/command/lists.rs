//! The option that chooses free lists.

use clap::ValueEnum;
use smalloc_terminal::List;

/// The lists that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Lists {
    Linked,
    Indexed,
    Both,
}

impl Lists {
    /// As they are replayed.
    pub(super) fn lists(self) -> &'static [List] {
        match self {
            Self::Linked => &[List::Linked],
            Self::Indexed => &[List::Indexed],
            Self::Both => &[List::Linked, List::Indexed],
        }
    }
}
