//! A block of the heap: its allocation, its size, its end.

#[cfg(feature = "hardened")]
mod hardened;
#[cfg(not(feature = "hardened"))]
mod plain;

#[cfg(feature = "hardened")]
pub(crate) use hardened::*;
#[cfg(not(feature = "hardened"))]
pub(crate) use plain::*;
