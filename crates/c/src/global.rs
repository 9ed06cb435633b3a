//! The heap of the preload library.

use smalloc::{Indexed, SmallocGlobal};

/// Regions side by side. C programs bring threads, and one region has one lock.
const REGIONS: usize = 8;

pub(crate) type Global = SmallocGlobal<Indexed, REGIONS>;

pub(crate) static HEAP: Global = Global::new();
