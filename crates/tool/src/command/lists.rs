//! The option that chooses free lists.

use clap::ValueEnum;
use smalloc_terminal::List;

/// The lists that can be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Lists {
    Linked,
    Indexed,
    Both,
}

impl Lists {
    /// The lists to replay on.
    pub(super) fn lists(self) -> &'static [List] {
        match self {
            Self::Linked => &[List::Linked],
            Self::Indexed => &[List::Indexed],
            Self::Both => &[List::Linked, List::Indexed],
        }
    }
}
