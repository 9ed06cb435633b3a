//! The text formats of Prometheus and OpenMetrics: the numbers of one or more heaps or regions in one answer.

use core::fmt::{self, Write};

use super::histogram::HopHistogram;
use super::metrics::{Kind, Metric, Unit, histograms, metrics};
use super::stats::Stats;

/// Upper bounds of the hop buckets that are written. Each is a bound of the histogram's own buckets, so the counts are
/// exact.
const FEW_BOUNDS: [usize; 8] = [0, 1, 3, 7, 15, 63, 255, 1023];
/// With [`all_buckets`](PrometheusOptions::all_buckets): one bound less than each power of two up to this one.
const ALL_POWERS: u32 = 20;

/// The numbers of one heap or region, and the labels under which they are written.
///
/// Give every source of one answer labels that differ from those of the others.
///
/// ```
/// use smalloc::{Indexed, PrometheusOptions, PrometheusSource, SmallocGlobal};
///
/// static HEAP: SmallocGlobal<Indexed, 2> = SmallocGlobal::with_region_size(1 << 20);
///
/// let stats = [0, 1].map(|region| HEAP.region_stats(region).unwrap());
/// let sources = [0, 1].map(|region| PrometheusSource::new(&stats[region]).heap("main").region(region));
/// let mut text = String::new();
/// PrometheusOptions::new().write(&sources, &mut text)?;
/// assert!(text.contains("smalloc_used_bytes{heap=\"main\",region=\"1\"} 0\n"));
/// assert_eq!(text.matches("# TYPE smalloc_used_bytes gauge\n").count(), 1);
/// # Ok::<(), std::fmt::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PrometheusSource<'a> {
    stats: &'a Stats,
    heap: Option<&'a str>,
    region: Option<usize>,
}

impl<'a> PrometheusSource<'a> {
    /// Numbers without a label.
    #[must_use]
    pub const fn new(stats: &'a Stats) -> Self {
        Self { stats, heap: None, region: None }
    }

    /// Sets the label `heap`, which may be any text.
    #[must_use]
    pub const fn heap(self, name: &'a str) -> Self {
        Self { heap: Some(name), ..self }
    }

    /// Sets the label `region`.
    #[must_use]
    pub const fn region(self, number: usize) -> Self {
        Self { region: Some(number), ..self }
    }

    /// The labels of a sample, with the upper bound of a bucket if it has one.
    fn labels<B: fmt::Display>(self, bound: Option<B>) -> Labels<'a, B> {
        Labels { source: self, bound }
    }

    fn plain_labels(self) -> Labels<'a, usize> {
        self.labels(None)
    }
}

/// How numbers are written for Prometheus: `PrometheusOptions::new().prefix("app_").write(&sources, &mut text)`.
///
/// By default, this is the text format 0.0.4 (`text/plain; version=0.0.4`). The names are `smalloc_` and the field's
/// name in [`Stats`], with the suffixes that Prometheus expects: `_bytes` for sizes, `_total` for counters. The hops
/// are histograms with the upper bounds 0, 1, 3, 7, 15, 63, 255 and 1023.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrometheusOptions<'a> {
    prefix: &'a str,
    open_metrics: bool,
    all_buckets: bool,
}

impl<'a> PrometheusOptions<'a> {
    /// The text format 0.0.4, no prefix, few buckets.
    #[must_use]
    pub const fn new() -> Self {
        Self { prefix: "", open_metrics: false, all_buckets: false }
    }

    /// Puts `prefix` before every name. In it, characters that names may not have become `_`.
    #[must_use]
    pub const fn prefix(self, prefix: &'a str) -> Self {
        Self { prefix, ..self }
    }

    /// Chooses between OpenMetrics 1.0 (`application/openmetrics-text; version=1.0.0`) and the text format 0.0.4. An
    /// answer in OpenMetrics ends after these numbers; no others can follow.
    #[must_use]
    pub const fn open_metrics(self, wanted: bool) -> Self {
        Self { open_metrics: wanted, ..self }
    }

    /// Writes 21 instead of 8 buckets of hops: up to 0, 1, 3, 7 and so on to 2^20 - 1.
    #[must_use]
    pub const fn all_buckets(self, wanted: bool) -> Self {
        Self { all_buckets: wanted, ..self }
    }

    /// Writes the numbers of all sources, those of one metric together, below one `TYPE` line. Allocates nothing.
    ///
    /// # Errors
    /// Any error of `out`.
    pub fn write(&self, sources: &[PrometheusSource<'_>], out: &mut (impl Write + ?Sized)) -> fmt::Result {
        for metric in metrics() {
            let (kind, suffix) = match metric.kind {
                Kind::Gauge => ("gauge", ""),
                Kind::Counter => ("counter", "_total"),
            };
            let name = MetricName { prefix: self.prefix, metric };
            // In OpenMetrics, the suffix is a part of the samples' names only.
            self.head(&name, if self.open_metrics { "" } else { suffix }, kind, metric.help, out)?;
            for source in sources {
                let value = (metric.get)(source.stats);
                writeln!(out, "{name}{suffix}{} {value}", source.plain_labels())?;
            }
        }
        for (index, (name, help, _)) in histograms(&Stats::default()).into_iter().enumerate() {
            let name = HistogramName { prefix: self.prefix, name };
            self.head(&name, "", "histogram", help, out)?;
            for source in sources {
                if let Some((_, _, histogram)) = histograms(source.stats).get(index) {
                    self.histogram(&name, *source, histogram, out)?;
                }
            }
        }
        if self.open_metrics { out.write_str("# EOF\n") } else { Ok(()) }
    }

    fn head(
        &self,
        name: &dyn fmt::Display,
        suffix: &str,
        kind: &str,
        help: &str,
        out: &mut (impl Write + ?Sized),
    ) -> fmt::Result {
        write!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}\n")
    }

    /// Writes cumulative buckets, the sum and the count.
    fn histogram(
        &self,
        name: &HistogramName<'_>,
        source: PrometheusSource<'_>,
        histogram: &HopHistogram,
        out: &mut (impl Write + ?Sized),
    ) -> fmt::Result {
        let mut bucket = |bound: usize| {
            let below = histogram.iter().take_while(|&(low, _, _)| low <= bound);
            let count = below.fold(0, |sum: u64, (_, _, count)| sum.wrapping_add(count));
            writeln!(out, "{name}_bucket{} {count}", source.labels(Some(bound)))
        };
        if self.all_buckets {
            (0..=ALL_POWERS).try_for_each(|power| bucket((1 << power) - 1))?;
        } else {
            FEW_BOUNDS.into_iter().try_for_each(bucket)?;
        }
        let (count, sum) = (histogram.count(), histogram.sum());
        writeln!(out, "{name}_bucket{} {count}", source.labels(Some("+Inf")))?;
        let labels = source.plain_labels();
        write!(out, "{name}_sum{labels} {sum}\n{name}_count{labels} {count}\n")
    }
}

impl Stats {
    /// Writes all numbers in the text format that Prometheus scrapes (`text/plain; version=0.0.4`), without labels.
    ///
    /// [`PrometheusOptions`] writes the numbers of several heaps or regions in one answer.
    ///
    /// # Errors
    /// Any error of `out`.
    ///
    /// ```
    /// let heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
    /// let mut text = String::new();
    /// heap.stats().write_prometheus(&mut text)?;
    /// assert!(text.contains("# TYPE smalloc_used_bytes gauge\nsmalloc_used_bytes 0\n"));
    /// assert!(text.contains("smalloc_hops_bucket{le=\"+Inf\"} 0\n"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_prometheus(&self, out: &mut (impl Write + ?Sized)) -> fmt::Result {
        PrometheusOptions::new().write(&[PrometheusSource::new(self)], out)
    }
}

/// The name of a metric with the suffix of its unit.
struct MetricName<'a> {
    prefix: &'a str,
    metric: &'static Metric,
}

impl fmt::Display for MetricName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.metric.unit == Unit::Bytes { "_bytes" } else { "" };
        write!(f, "{}{}{unit}", Prefix(self.prefix), self.metric.stem())
    }
}

struct HistogramName<'a> {
    prefix: &'a str,
    name: &'static str,
}

impl fmt::Display for HistogramName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Prefix(self.prefix), self.name)
    }
}

/// The beginning of every name: letters, digits, `_` and `:`, and no digit first.
struct Prefix<'a>(&'a str);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, letter) in self.0.chars().enumerate() {
            let allowed = letter.is_ascii_alphanumeric() || matches!(letter, '_' | ':');
            let allowed = allowed && !(index == 0 && letter.is_ascii_digit());
            f.write_char(if allowed { letter } else { '_' })?;
        }
        f.write_str("smalloc_")
    }
}

/// The labels of a sample in braces; nothing if there are none.
struct Labels<'a, B> {
    source: PrometheusSource<'a>,
    bound: Option<B>,
}

impl<B: fmt::Display> fmt::Display for Labels<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        if let Some(heap) = self.source.heap {
            write!(f, "{before}heap=\"{}\"", Escaped(heap))?;
            before = ',';
        }
        if let Some(region) = self.source.region {
            write!(f, "{before}region=\"{region}\"")?;
            before = ',';
        }
        if let Some(bound) = &self.bound {
            write!(f, "{before}le=\"{bound}\"")?;
            before = ',';
        }
        if before == '{' { Ok(()) } else { f.write_char('}') }
    }
}

/// The value of a label, in which backslash, quote and line break are escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|letter| match letter {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

#[cfg(test)]
#[path = "../../tests/unit/inspect/prometheus.rs"]
mod tests;
