//! The report on a request that found no place: why, how much is free, and where.

use core::fmt;

use super::human::{Bytes, Count, Text};
use super::map::share_glyph;
use super::snapshot::Segment;
use super::stats::Stats;

/// The number of largest holes in the report.
const LARGEST: usize = 5;
/// Characters of the map.
const CELLS: usize = 64;
/// Bytes of a granule, the smallest cell.
const GRANULE: usize = 16;
/// Bytes for the longest report, with room to spare: a character of the map takes three bytes.
const REPORT_BYTES: usize = 1536;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    NoRegion,
    TooLarge,
    Refused,
    Unaligned,
    Fragmented,
    Full,
}

/// A failed request and the state of its heap. It is built under the heap's lock and written after its release.
pub(crate) struct Failure {
    size: usize,
    align: usize,
    /// There was room above top, but the system refused memory.
    refused: bool,
    region_size: usize,
    /// The limit in bytes, if one is set.
    limit: Option<usize>,
    used_bytes: usize,
    hole_bytes: usize,
    holes: usize,
    top: usize,
    /// The largest holes, in descending order. Unused places have size 0.
    largest: [Segment; LARGEST],
    cell_bytes: usize,
    /// Bytes in use in each cell.
    cells: [usize; CELLS],
}

impl Failure {
    pub(crate) fn new(size: usize, align: usize, refused: bool, limit: Option<usize>, stats: &Stats) -> Self {
        let cell_bytes = stats.top.div_ceil(CELLS).max(1).next_multiple_of(GRANULE);
        Self {
            size,
            align,
            refused,
            region_size: stats.region_size,
            limit,
            used_bytes: stats.used_bytes,
            hole_bytes: stats.hole_bytes,
            holes: stats.holes(),
            top: stats.top,
            largest: [Segment { offset: 0, size: 0, in_use: false }; LARGEST],
            cell_bytes,
            cells: [0; CELLS],
        }
    }

    pub(crate) fn count(&mut self, segment: Segment) {
        if segment.in_use {
            self.add_used(segment);
        } else {
            self.add_hole(segment);
        }
    }

    fn add_used(&mut self, segment: Segment) {
        let mut from = segment.offset;
        while from < segment.end() {
            let index = from.checked_div(self.cell_bytes).unwrap_or(CELLS);
            let to = index
                .wrapping_add(1)
                .wrapping_mul(self.cell_bytes)
                .min(segment.end())
                .max(from.wrapping_add(1));
            if let Some(cell) = self.cells.get_mut(index) {
                *cell = cell.wrapping_add(to.wrapping_sub(from));
            }
            from = to;
        }
    }

    /// Among holes of one size, the lowest comes first.
    fn add_hole(&mut self, mut hole: Segment) {
        for place in &mut self.largest {
            if hole.size > place.size {
                core::mem::swap(place, &mut hole);
            }
        }
    }

    /// Bytes that may be used: the limit, or else the region's size.
    fn bound(&self) -> usize {
        self.limit.unwrap_or(self.region_size)
    }

    fn wilderness(&self) -> usize {
        self.bound().saturating_sub(self.top)
    }

    fn reason(&self) -> Reason {
        let largest_hole = self.largest.first().map_or(0, |hole| hole.size);
        if self.region_size == 0 {
            Reason::NoRegion
        } else if self.size > self.bound() {
            Reason::TooLarge
        } else if self.refused {
            Reason::Refused
        } else if largest_hole.max(self.wilderness()) >= self.size {
            Reason::Unaligned
        } else if self.hole_bytes.saturating_add(self.wilderness()) >= self.size {
            Reason::Fragmented
        } else {
            Reason::Full
        }
    }

    /// Calls `write` with the report as text.
    pub(crate) fn tell(&self, write: impl FnOnce(&[u8])) {
        let text = Text::<REPORT_BYTES>::new(format_args!("{self}"));
        write(text.as_str().as_bytes());
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "smalloc: no place for {} bytes", Count::of(self.size))?;
        if self.align > GRANULE {
            write!(f, " aligned to {}", Count::of(self.align))?;
        }
        let (region, bound) = (Bytes::of(self.region_size), Bytes::of(self.bound()));
        let what = if self.limit.is_some() { "limit" } else { "region" };
        let wilderness = Bytes::of(self.wilderness());
        match self.reason() {
            Reason::NoRegion => return f.write_str(": the system gives no region\n"),
            Reason::TooLarge => writeln!(f, ": the request is larger than the {what} of {bound}")?,
            Reason::Refused => writeln!(f, ": the system gives no more memory")?,
            Reason::Unaligned => writeln!(f, ": no free place is aligned so")?,
            Reason::Fragmented => writeln!(f, ": the heap is fragmented")?,
            Reason::Full if self.limit.is_some() => writeln!(f, ": the limit of {bound} is reached")?,
            Reason::Full => writeln!(f, ": the heap is full")?,
        }
        let (used, free, holes) =
            (Bytes::of(self.used_bytes), Bytes::of(self.hole_bytes), Count::of(self.holes));
        write!(f, "  region         {region}")?;
        if self.limit.is_some() {
            write!(f, ", limit {bound}")?;
        }
        write!(
            f,
            ": {used} in use, {free} free in {holes} {}, ",
            if self.holes == 1 { "hole" } else { "holes" }
        )?;
        writeln!(f, "{wilderness} free above top")?;
        f.write_str("  largest holes  ")?;
        self.fmt_largest(f)?;
        f.write_str("\n  map            ")?;
        self.fmt_map(f)
    }
}

impl Failure {
    fn fmt_largest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.holes == 0 {
            return f.write_str("none");
        }
        for (i, hole) in self.largest.iter().take_while(|hole| hole.size > 0).enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{} at {:#x}", Bytes::of(hole.size), hole.offset)?;
        }
        Ok(())
    }

    fn fmt_map(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut from = 0;
        for &used in &self.cells {
            if from >= self.top {
                break;
            }
            let size = self.cell_bytes.min(self.top.saturating_sub(from));
            f.write_str(share_glyph(used, size))?;
            from = from.saturating_add(self.cell_bytes);
        }
        writeln!(f, "  up to top, {} a character", Bytes::of(self.cell_bytes))
    }
}

#[cfg(test)]
#[path = "../../tests/unit/inspect/failure.rs"]
mod tests;
