//! Looking at a heap: its numbers, its segments, its hops. Reads, never writes.
//!
//! - `histogram`: how many hops searches took
//! - `stats`: the numbers of one instant, and the difference of two
//! - `snapshot`: all segments at one instant
//! - `diff`: what changed between two snapshots
//! - `metrics`: the table of all numbers, as JSON and for Prometheus; `report`: the same for people
//! - `serialize`: with the feature `serde`, the same for any serializer
//! - `map`: where segments lie, as text and as a picture; `picture`: the elements of pictures
//! - `charts`: sizes of holes, and hops, as bars
//! - `live`: the numbers in a page that other processes can read
//! - `failure`: what is told of a request that found no place
//! - `human`, `number`: numbers for people, and conversions
//!
//! Nothing here allocates or panics, since a part of it runs under the heap's lock and all of it may be looking at the
//! heap that the program allocates from. Text goes out through [`core::fmt::Write`].

mod charts;
mod diff;
mod failure;
mod histogram;
mod human;
mod live;
mod map;
mod metrics;
mod number;
mod picture;
mod report;
#[cfg(feature = "serde")]
mod serialize;
mod snapshot;
mod stats;

pub use charts::write_hops_svg;
pub use diff::{Change, Diff, DiffSummary, Fate};
pub(crate) use failure::Failure;
pub use histogram::{HopBuckets, HopHistogram};
pub(crate) use live::LivePage;
pub use live::{Live, LiveError, Published};
pub use map::{Color, MapOptions};
pub(crate) use snapshot::SegmentBuffer;
pub use snapshot::{Segment, Segments, Snapshot, SnapshotError};
pub use stats::{Measured, Stats, StatsDelta};
