//! Reading a heap: its numbers, its segments, its hops. Nothing here writes to the heap.
//!
//! - `histogram`: the distribution of hops
//! - `stats`: the numbers at one instant, and differences; `totals`: those that fit a small stack
//! - `thread_measured`: the calls of one thread
//! - `snapshot`: all segments at one instant
//! - `diff`: the changes between two snapshots
//! - `memory`: the bytes that are in RAM
//! - `metrics`: the table of all numbers, as JSON; `prometheus`: for Prometheus; `report`: as text
//! - `serialize`: with the feature `serde`, for any serializer
//! - `map`: the positions of segments, as text and as a picture; `picture`: elements of pictures
//! - `charts`: bar charts of hole sizes and of hops
//! - `live`: the numbers in a page that other processes can read
//! - `failure`: the report on a request that found no place
//! - `human`, `number`: formatting and conversion of numbers
//!
//! Nothing here allocates or panics: some of it runs under the heap's lock, and all of it may read the heap that the
//! program allocates from. Text is written through [`core::fmt::Write`].

mod charts;
mod diff;
mod failure;
mod histogram;
mod human;
mod live;
mod map;
mod memory;
mod metrics;
mod number;
mod picture;
mod prometheus;
mod report;
#[cfg(feature = "serde")]
mod serialize;
mod snapshot;
mod stats;
mod thread_measured;
mod totals;

pub use charts::write_hops_svg;
pub use diff::{Change, Diff, DiffSummary, Fate};
pub(crate) use failure::Failure;
pub use histogram::{HopBuckets, HopHistogram};
pub(crate) use live::LivePage;
pub use live::{Live, LiveError, Published};
pub use map::{Color, MapOptions};
pub use memory::Memory;
pub use prometheus::{PrometheusOptions, PrometheusSource};
pub(crate) use snapshot::SegmentBuffer;
pub use snapshot::{Segment, Segments, Snapshot, SnapshotError};
pub use stats::{Measured, Stats, StatsDelta};
pub use thread_measured::ThreadMeasured;
pub use totals::Totals;
