//! What exists because there are several threads: the lock, regions side by side, frees handed to another region, and
//! `fork`.

pub(crate) mod fork_table;
pub(crate) mod free_ring;
mod home;
pub(crate) mod lock;
mod object;
pub(crate) mod regions;
pub(crate) mod shared;
