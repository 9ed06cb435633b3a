//! Threads: the lock, the regions, remote frees and `fork`.

pub(crate) mod caches;
pub(crate) mod fork_table;
pub(crate) mod free_ring;
pub(crate) mod home;
pub(crate) mod lock;
pub(crate) mod object;
pub(crate) mod preparing;
pub(crate) mod regions;
pub(crate) mod shared;
mod streams;
