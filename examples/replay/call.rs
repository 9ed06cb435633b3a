//! What all formats come to: calls on blocks that are named by their addresses.

/// One call of a traced program. An address only names a block: the replay places it anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Allocates.
    Alloc { block: u64, size: usize, align: usize },
    /// Frees.
    Free { block: u64 },
    /// Gives the block `old` another size, and the name `new`.
    Realloc { old: u64, new: u64, size: usize, align: usize },
    /// A request that was refused, for a new block or for one that there is.
    Refused { block: Option<u64>, size: usize, align: usize },
    /// No call: a block that was in use when the trace began.
    Held { block: u64, size: usize },
    /// No call: nothing is placed above this from now on.
    Limit { bytes: usize },
}

/// What a recording says of a call, to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    /// Where the payload was placed.
    pub(crate) offset: Option<usize>,
    /// The hops of the search.
    pub(crate) hops: usize,
}

/// A call, and what its recording says of it, if it is one of smalloc.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) call: Call,
    pub(crate) told: Option<Told>,
}

/// What a line of a text is, in formats where each stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Call(Call),
    /// Of no interest here; what it is.
    Other(&'static str),
}

/// The alignment that `malloc` gives.
pub(crate) const MALLOC_ALIGN: usize = 16;

/// A number in hexadecimal digits, with `0x` or without.
pub(crate) fn hexadecimal(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
}

/// A decimal number, or a hexadecimal one with `0x`.
pub(crate) fn number(word: &str) -> Option<u64> {
    if word.starts_with("0x") { hexadecimal(word) } else { word.parse().ok() }
}

/// As above, for a size.
pub(crate) fn size(word: &str) -> Option<usize> {
    number(word).map(|size| size as usize)
}

/// What came of a request of `malloc`: a null pointer says that it was refused.
pub(crate) fn allocated(block: u64, size: usize, align: usize) -> Call {
    match block {
        0 => Call::Refused { block: None, size, align },
        block => Call::Alloc { block, size, align },
    }
}

/// What came of `realloc`, by the rules of `malloc`: without a block it allocates, and with size 0 it may free.
pub(crate) fn reallocated(new: u64, old: u64, size: usize) -> Call {
    let align = MALLOC_ALIGN;
    match (new, old) {
        (new, 0) => allocated(new, size, align),
        (0, old) if size == 0 => Call::Free { block: old },
        (0, old) => Call::Refused { block: Some(old), size, align },
        (new, old) => Call::Realloc { old, new, size, align },
    }
}
