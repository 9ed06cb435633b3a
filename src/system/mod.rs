//! System interface: memory, files, clocks, the environment, fatal errors.
//!
//! Nothing here allocates from a heap. Functions may change `errno`; [`errno::unchanged`] preserves it.

pub(crate) mod addresses;
pub(crate) mod append_file;
mod buffer;
pub(crate) mod call;
pub(crate) mod clock;
pub(crate) mod cores;
pub(crate) mod environment;
pub(crate) mod errno;
pub(crate) mod fatal;
mod file_limit;
pub(crate) mod mapping;
pub(crate) mod path;
pub(crate) mod resident;
pub(crate) mod shared_page;
pub(crate) mod signals;
#[cfg(feature = "sites")]
pub(crate) mod words;

pub(crate) use buffer::Buffer;
