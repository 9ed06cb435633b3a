//! What the library asks of the system: memory, files, clocks, the environment, and how a process ends.
//!
//! Nothing here allocates from a heap. Calls that may change `errno` leave that to their caller, who wraps them in
//! [`errno::unchanged`].

pub(crate) mod append_file;
mod buffer;
pub(crate) mod clock;
pub(crate) mod environment;
pub(crate) mod errno;
pub(crate) mod fatal;
pub(crate) mod mapping;
pub(crate) mod path;
pub(crate) mod shared_page;

pub(crate) use buffer::Buffer;
