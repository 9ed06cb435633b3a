//! The numbers of a heap as a block of text.

use core::fmt;

use super::human::{Bytes, Count, Percent};
use super::metrics::{GROUPS, Unit};
use super::number::{narrow, share, wide};
use super::stats::{Measured, Stats, StatsDelta};

/// Characters of the bar.
const BAR: u64 = 30;
/// Characters of a line's title.
const TITLE: usize = 12;

impl fmt::Display for Stats {
    /// A block of lines: the region, peaks, segments, fragmentation below top, calls, and the cost of their searches.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (used, size) = (wide(self.used_bytes), wide(self.region_size));
        let full = used.saturating_mul(BAR).checked_div(size).unwrap_or(0).min(BAR);
        let full = narrow(if used > 0 { full.max(1) } else { 0 });
        write!(f, "smalloc heap [{:█<full$}{:░<free$}] ", "", "", free = narrow(BAR) - full)?;
        writeln!(f, "{} of {} in use", Percent(share(used, size)), Bytes(size))?;
        let cached = self.cached_bytes > 0 || self.cache_hits > 0;
        for group in GROUPS.iter().filter(|group| cached || group.title != "caches") {
            write!(f, "  {:<TITLE$}", group.title)?;
            // The size of the last failed request means nothing before a failure.
            let shown = if group.title == "failures" && self.failures == 0 { 1 } else { group.metrics.len() };
            for (i, metric) in group.metrics.iter().take(shown).enumerate() {
                let comma = if i == 0 { "" } else { ", " };
                let space = if metric.label.is_empty() { "" } else { " " };
                write!(f, "{comma}{}{space}", metric.label)?;
                write_value(metric.unit, (metric.get)(self), f)?;
            }
            self.fmt_derived(group.title, f)?;
            writeln!(f)?;
        }
        write!(f, "  {:<TITLE$}{}, searches {}", "hops", self.hops, Count(self.hops.count()))?;
        if self.failed_hops.count() > 0 {
            let searches = Count(self.failed_hops.count());
            write!(f, "\n  {:<TITLE$}{}, searches {searches}", "failed hops", self.failed_hops)?;
        }
        Ok(())
    }
}

impl Stats {
    /// Adds numbers that are derived from those of the line.
    fn fmt_derived(&self, title: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match title {
            "below top" => {
                let below = Percent(self.fragmentation());
                let all = Percent(self.fragmentation_with_wilderness());
                write!(f, ", fragmentation {below} ({all} with the wilderness)")
            }
            "rounding" => {
                let rounding = self.rounding_bytes();
                let lost = Percent(share(rounding, self.allocated_total));
                write!(f, ", lost {} ({lost})", Bytes(rounding))
            }
            _ => Ok(()),
        }
    }
}

fn write_value(unit: Unit, value: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match unit {
        Unit::Bytes => write!(f, "{}", Bytes(value)),
        Unit::Count => write!(f, "{}", Count(value)),
    }
}

/// A difference with its sign, written as a size if `bytes`.
struct Signed {
    difference: isize,
    bytes: bool,
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.difference {
            0 => "",
            1.. => "+",
            _ => "-",
        })?;
        let unit = if self.bytes { Unit::Bytes } else { Unit::Count };
        write_value(unit, wide(self.difference.unsigned_abs()), f)
    }
}

impl fmt::Display for StatsDelta {
    /// A block of lines: the changes, the calls in between, and the cost of their searches.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |difference| Signed { difference, bytes: true };
        let number = |difference| Signed { difference, bytes: false };
        let (used, top, holes) = (size(self.used_bytes), size(self.top), size(self.hole_bytes));
        write!(f, "  {:<TITLE$}used {used}, top {top}, bytes in holes {holes}, ", "change")?;
        let (live, free) = (number(self.live_segments), number(self.free_segments));
        writeln!(f, "segments in use {live}, free segments {free}")?;
        let (allocs, frees, failures) = (Count(self.allocs), Count(self.frees), Count(self.failures));
        write!(f, "  {:<TITLE$}allocs {allocs}, frees {frees}, ", "calls")?;
        let (reallocs, moved) = (Count(self.reallocs), Count(self.reallocs_moved));
        writeln!(f, "reallocs {reallocs}, of which moved {moved}, failed {failures}")?;
        let rounding = Bytes(self.allocated.saturating_sub(self.requested));
        writeln!(f, "  {:<TITLE$}requested {}, lost {rounding}", "rounding", Bytes(self.requested))?;
        write!(f, "  {:<TITLE$}{}, searches {}", "hops", self.hops, Count(self.hops.count()))
    }
}

impl fmt::Display for Measured {
    /// The peak, and the block of the difference.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (growth, before) = (Bytes::of(self.peak_growth()), Bytes::of(self.used_bytes_before));
        let (used, top) = (Bytes::of(self.peak_used_bytes), Bytes::of(self.peak_top));
        writeln!(
            f,
            "  {:<TITLE$}used {used}, which is {growth} above the {before} before, top {top}",
            "peak"
        )?;
        write!(f, "{}", self.delta)
    }
}

#[cfg(test)]
#[path = "../../tests/unit/inspect/report.rs"]
mod tests;
