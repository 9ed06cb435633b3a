//! Looking at a heap: its numbers, its segments, its hops. Reads, never writes.
//!
//! - `histogram`: how many hops searches took
//! - `stats`: the numbers of one instant, and the difference of two
//! - `snapshot`: all segments at one instant
//! - `number`: conversions
//!
//! Nothing here allocates or panics, since a part of it runs under the heap's lock and all of it may be looking at the
//! heap that the program allocates from. Text goes out through [`core::fmt::Write`].

mod histogram;
mod number;
mod snapshot;
mod stats;

pub use histogram::{HopBuckets, HopHistogram};
pub(crate) use snapshot::SegmentBuffer;
pub use snapshot::{Segment, Segments, Snapshot, SnapshotError};
pub use stats::{Stats, StatsDelta};
