//! The table of all numbers in [`Stats`], and how to write it as JSON. `prometheus` writes it for Prometheus, `report`
//! for people.
//!
//! A new number of [`Stats`] needs one line in [`GROUPS`] to appear in all three; a test fails without it.

use core::fmt::{self, Write};

use super::histogram::HopHistogram;
use super::number::wide;
use super::stats::Stats;

/// Whether a number can fall.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// State at one instant.
    Gauge,
    /// Events or bytes since the heap was created; never falls.
    Counter,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Count,
}

/// One number of [`Stats`].
pub(super) struct Metric {
    /// The field or method of [`Stats`]: the key in JSON and, after `smalloc_`, the name in Prometheus.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) unit: Unit,
    /// The label in the block of text; empty if the line's title says it.
    pub(super) label: &'static str,
    /// The help text for Prometheus.
    pub(super) help: &'static str,
    pub(super) get: fn(&Stats) -> u64,
}

/// The numbers that share a line in the block of text.
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) metrics: &'static [Metric],
}

const fn size(name: &'static str, label: &'static str, help: &'static str, get: fn(&Stats) -> u64) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: Unit::Bytes, label, help, get }
}

const fn number(
    name: &'static str,
    label: &'static str,
    help: &'static str,
    get: fn(&Stats) -> u64,
) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: Unit::Count, label, help, get }
}

const fn events(
    name: &'static str,
    label: &'static str,
    help: &'static str,
    get: fn(&Stats) -> u64,
) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, label, help, get }
}

const fn volume(
    name: &'static str,
    label: &'static str,
    help: &'static str,
    get: fn(&Stats) -> u64,
) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Bytes, label, help, get }
}

/// All numbers of [`Stats`], in the order in which they are written.
pub(super) static GROUPS: [Group; 10] = [
    Group {
        title: "memory",
        metrics: &[
            size("region_size", "region", "Size of the region.", |s| wide(s.region_size)),
            size("used_bytes", "used", "Bytes in segments in use.", |s| wide(s.used_bytes)),
            size("free_bytes", "free", "Bytes in free segments and the wilderness.", |s| wide(s.free_bytes)),
            size("top", "top", "Offset where the wilderness begins.", |s| wide(s.top)),
        ],
    },
    Group {
        title: "peak",
        metrics: &[
            size("peak_used_bytes", "used", "Most bytes in use at once.", |s| wide(s.peak_used_bytes)),
            size("peak_top", "top", "Highest top.", |s| wide(s.peak_top)),
        ],
    },
    Group {
        title: "mapped",
        metrics: &[
            size("committed_bytes", "committed", "Committed bytes of the region.", |s| {
                wide(s.committed_bytes)
            }),
            size("metadata_bytes", "bookkeeping", "Bytes of the segment map and the index.", |s| {
                wide(s.metadata_bytes)
            }),
            volume("purged_total", "returned", "Bytes of free pages returned to the system.", |s| {
                s.purged_total
            }),
        ],
    },
    Group {
        title: "segments",
        metrics: &[
            number("live_segments", "in use", "Segments in use.", |s| wide(s.live_segments)),
            number("free_segments", "free", "Free segments, including the wilderness.", |s| {
                wide(s.free_segments)
            }),
            events("splits", "splits", "Free segments that were split.", |s| s.splits),
            events("coalesces", "coalesces", "Neighbours coalesced with a freed segment.", |s| s.coalesces),
        ],
    },
    Group {
        title: "below top",
        metrics: &[
            number("holes", "holes", "Free segments below top.", |s| wide(s.holes())),
            size("hole_bytes", "bytes", "Bytes in free segments below top.", |s| wide(s.hole_bytes)),
            size("largest_hole", "largest", "Size of the largest hole.", |s| wide(s.largest_hole)),
        ],
    },
    Group {
        title: "calls",
        metrics: &[
            events("allocs", "allocs", "Allocations that succeeded.", |s| s.allocs),
            events("frees", "frees", "Segments freed by the program.", |s| s.frees),
            events("contended", "waited for the lock", "Times a thread found the lock taken.", |s| {
                s.contended
            }),
            events(
                "handed_over",
                "handed over",
                "Blocks freed without waiting for another region's lock.",
                |s| s.handed_over,
            ),
        ],
    },
    Group {
        title: "caches",
        metrics: &[
            size("cached_bytes", "bytes", "Bytes in use that wait in the caches of threads.", |s| {
                wide(s.cached_bytes)
            }),
            events("cache_hits", "hits", "Allocations that caches have served.", |s| s.cache_hits),
        ],
    },
    Group {
        title: "reallocs",
        metrics: &[
            events("reallocs", "", "Calls of realloc.", |s| s.reallocs),
            events("reallocs_in_place", "in place", "Calls of realloc that kept the place.", |s| {
                s.reallocs_in_place
            }),
            events("reallocs_moved", "moved", "Calls of realloc that moved.", |s| s.reallocs_moved),
        ],
    },
    Group {
        title: "failures",
        metrics: &[
            events("failures", "", "Requests that could not be placed.", |s| s.failures),
            size("last_failed_size", "the last of", "Size of the last failed request.", |s| {
                wide(s.last_failed_size)
            }),
        ],
    },
    Group {
        title: "rounding",
        metrics: &[
            volume("requested_total", "requested", "Bytes requested by all successful requests.", |s| {
                s.requested_total
            }),
            volume("allocated_total", "given", "Bytes in their segments.", |s| s.allocated_total),
        ],
    },
];

/// The hop histograms with their names and help texts.
pub(super) fn histograms(stats: &Stats) -> [(&'static str, &'static str, &HopHistogram); 2] {
    [
        ("hops", "Hops of the searches that found a place.", &stats.hops),
        ("failed_hops", "Hops of the searches that found none.", &stats.failed_hops),
    ]
}

impl Metric {
    /// The name without its unit and kind, which each format writes in its own way.
    pub(super) fn stem(&self) -> &'static str {
        self.name.trim_end_matches("_total").trim_end_matches("_bytes").trim_end_matches("_size")
    }
}

pub(super) fn metrics() -> impl Iterator<Item = &'static Metric> {
    GROUPS.iter().flat_map(|group| group.metrics)
}

impl Stats {
    /// Writes all numbers as one JSON object.
    ///
    /// The keys are the names of the fields, and `holes`; the values are integers. `hops` and `failed_hops` are objects
    /// with `count`, `sum`, `mean`, `p50`, `p90`, `p99`, `max` and `buckets`; a bucket is `[lowest, highest, count]`.
    ///
    /// # Errors
    /// Any error of `out`.
    ///
    /// ```
    /// let heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
    /// let mut json = String::new();
    /// heap.stats().write_json(&mut json)?;
    /// assert!(json.starts_with(r#"{"region_size":1048576,"used_bytes":0,"free_bytes":1048576,"#));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_json(&self, out: &mut (impl Write + ?Sized)) -> fmt::Result {
        out.write_char('{')?;
        for metric in metrics() {
            write!(out, "\"{}\":{},", metric.name, (metric.get)(self))?;
        }
        for (i, (name, _, histogram)) in histograms(self).into_iter().enumerate() {
            write!(out, "{}\"{name}\":", if i == 0 { "" } else { "," })?;
            histogram_json(histogram, out)?;
        }
        out.write_char('}')
    }
}

fn histogram_json(histogram: &HopHistogram, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|q| histogram.quantile(q));
    let (count, sum, mean) = (histogram.count(), histogram.sum(), histogram.mean());
    let max = histogram.max();
    write!(out, "{{\"count\":{count},\"sum\":{sum},\"mean\":{mean:.4},")?;
    write!(out, "\"p50\":{p50},\"p90\":{p90},\"p99\":{p99},\"max\":{max},\"buckets\":[")?;
    for (i, (low, high, count)) in histogram.iter().enumerate() {
        write!(out, "{}[{low},{high},{count}]", if i == 0 { "" } else { "," })?;
    }
    out.write_str("]}")
}

#[cfg(test)]
#[path = "../../tests/unit/inspect/metrics.rs"]
pub(super) mod tests;
