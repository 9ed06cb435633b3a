//! A block of the heap: allocating, measuring, freeing.

#[cfg(feature = "hardened")]
mod hardened;
#[cfg(not(feature = "hardened"))]
mod plain;

#[cfg(feature = "hardened")]
pub(crate) use hardened::*;
#[cfg(not(feature = "hardened"))]
pub(crate) use plain::*;
