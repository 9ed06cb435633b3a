//! The feature `serde`: numbers, segments and snapshots for any serializer, in the shape that `write_json` uses.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer};

use super::histogram::HopHistogram;
use super::metrics::{histograms, metrics};
use super::snapshot::{Segments, Snapshot};
use super::stats::Stats;

/// As [`Stats::write_json`]: a map from names to numbers, and two histograms.
impl Serialize for Stats {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let histograms = histograms(self);
        let mut map = serializer.serialize_map(Some(metrics().count().saturating_add(histograms.len())))?;
        for metric in metrics() {
            map.serialize_entry(metric.name, &(metric.get)(self))?;
        }
        for (name, _, histogram) in histograms {
            map.serialize_entry(name, histogram)?;
        }
        map.end()
    }
}

/// With `buckets` as arrays `[lowest, highest, count]`.
impl Serialize for HopHistogram {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("HopHistogram", 8)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("sum", &self.sum())?;
        fields.serialize_field("mean", &self.mean())?;
        fields.serialize_field("p50", &self.quantile(0.5))?;
        fields.serialize_field("p90", &self.quantile(0.9))?;
        fields.serialize_field("p99", &self.quantile(0.99))?;
        fields.serialize_field("max", &self.max())?;
        fields.serialize_field("buckets", &Buckets(self))?;
        fields.end()
    }
}

struct Buckets<'a>(&'a HopHistogram);

impl Serialize for Buckets<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut array = serializer.serialize_seq(Some(self.0.iter().count()))?;
        for bucket in self.0 {
            array.serialize_element(&bucket)?;
        }
        array.end()
    }
}

/// As [`Snapshot::write_json`]: each segment is an array `[offset, size, in_use]`.
impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Snapshot", 3)?;
        fields.serialize_field("stats", self.stats())?;
        fields.serialize_field("held_ns", &self.held().as_nanos())?;
        fields.serialize_field("segments", &self.segments())?;
        fields.end()
    }
}

impl Serialize for Segments<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut array = serializer.serialize_seq(Some(self.len()))?;
        for segment in self.clone() {
            array.serialize_element(&(segment.offset, segment.size, segment.in_use))?;
        }
        array.end()
    }
}
