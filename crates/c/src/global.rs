//! The heap of the preload library.

use smalloc::{Indexed, SmallocGlobal};

/// Number of regions. C programs often have threads, and each region has one lock.
const REGIONS: usize = 8;

pub(crate) type Global = SmallocGlobal<Indexed, REGIONS>;

pub(crate) static HEAP: Global = Global::new();
