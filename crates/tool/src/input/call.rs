//! The calls that every format is translated to. They name blocks by the addresses that the traced program saw.

/// One call of a traced program. An address only names a block: a replay places the block anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Allocates.
    Alloc {
        /// The block's name.
        block: u64,
        /// Bytes.
        size: usize,
        /// Bytes, a power of two.
        align: usize,
    },
    /// Frees.
    Free {
        /// The block's name.
        block: u64,
        /// Whether the format writes a free after it happened: another thread's block with the same address may then
        /// come before it.
        late: bool,
    },
    /// Gives a block another size and another name. Formats write it after it happened.
    Realloc {
        /// The block's name so far.
        old: u64,
        /// Its name from now on.
        new: u64,
        /// Bytes from now on.
        size: usize,
        /// Bytes, a power of two.
        align: usize,
    },
    /// A request that the program's allocator refused.
    Refused {
        /// The block to be resized; none for a new one.
        block: Option<u64>,
        /// Bytes.
        size: usize,
        /// Bytes, as requested: it need not be a power of two.
        align: usize,
    },
    /// No call: a block that was in use when the trace began.
    Held {
        /// The block's name.
        block: u64,
        /// Bytes.
        size: usize,
    },
    /// No call: from now on the heap places nothing above this offset.
    Limit {
        /// The offset in bytes.
        bytes: usize,
    },
}

/// The outcome of a call in a recording of smalloc, to be compared with the replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The payload's offset; none if the request was refused.
    pub offset: Option<usize>,
    /// The hops of the search.
    pub hops: usize,
}

/// The thread and the call stack of a call; 0 if the trace does not contain it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The system's number of the thread.
    pub thread: u32,
    /// The number of the stack in [`Sites`](super::Sites), from 1 on.
    pub stack: u32,
    /// The number of its site, from 1 on.
    pub site: u32,
    /// The calls of this stack that it stands for, where the stacks of a sample were taken; 0 if its stack was not
    /// taken.
    pub weight: u32,
}

impl Default for Origin {
    fn default() -> Self {
        Self { thread: 0, stack: 0, site: 0, weight: 1 }
    }
}

/// A call, its origin, and its outcome, which only recordings of smalloc contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The call.
    pub call: Call,
    /// Offset and hops.
    pub recorded: Option<Recorded>,
    /// Thread, call stack and site.
    pub origin: Origin,
}

/// The alignment that `malloc` gives.
pub(crate) const MALLOC_ALIGN: usize = 16;

/// A number in hexadecimal digits, with `0x` or without.
pub(super) fn hexadecimal(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
}

/// An address as `printf` writes it.
pub(super) fn address(word: &str) -> Option<u64> {
    if word == "(nil)" { Some(0) } else { hexadecimal(word) }
}

/// The outcome of a request to `malloc`: a null pointer means that it was refused.
pub(super) fn allocated(block: u64, size: usize, align: usize) -> Call {
    match block {
        0 => Call::Refused { block: None, size, align },
        block => Call::Alloc { block, size, align },
    }
}

/// The outcome of `realloc`, by the rules of `malloc`: without a block it allocates, and with size 0 it may free.
pub(super) fn reallocated(new: u64, old: u64, size: usize) -> Call {
    let align = MALLOC_ALIGN;
    match (new, old) {
        (new, 0) => allocated(new, size, align),
        (0, old) if size == 0 => Call::Free { block: old, late: true },
        (0, old) => Call::Refused { block: Some(old), size, align },
        (new, old) => Call::Realloc { old, new, size, align },
    }
}
