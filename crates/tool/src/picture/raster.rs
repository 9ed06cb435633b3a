//! Address over time, as a PNG: a column is a few calls, a row is a few bytes, and the colour shows which share of both
//! was in use. Neither the number of calls nor the height of the heap is known in advance, so columns and rows are
//! joined in pairs whenever there are too many.

use std::io;

use anyhow::Result;
use smalloc_terminal::{Bytes, Count};

use super::bitmap::{Bitmap, Colour};
use crate::replay::Change;

/// Columns and rows are joined in pairs when there are twice as many.
const COLUMNS: usize = 600;
const ROWS: usize = 512;
/// Bytes of a row at first: a granule.
const GRANULE: usize = 16;

/// Nothing in use; then one blue that darkens, as in the heap map.
const SHARES: [Colour; 8] = [
    [0xe4, 0xdf, 0xd6],
    [0xc3, 0xda, 0xee],
    [0x9c, 0xc3, 0xe2],
    [0x74, 0xa9, 0xd3],
    [0x4f, 0x8d, 0xc1],
    [0x32, 0x72, 0xab],
    [0x1d, 0x57, 0x91],
    [0x0a, 0x2f, 0x5c],
];
/// Above top.
const ABOVE_TOP: Colour = [0xf7, 0xf7, 0xf7];
const INK: Colour = [0x22, 0x22, 0x22];
const PALE_INK: Colour = [0x59, 0x59, 0x59];

/// Pixels around the raster.
const LEFT: usize = 88;
const RIGHT: usize = 24;
const HEAD: usize = 52;
const FOOT: usize = 72;
/// Pixels to which a small raster is enlarged.
const WIDE: usize = 1200;
const HIGH: usize = 512;

/// A few calls.
#[derive(Clone)]
struct Column {
    /// For each row, bytes in use, summed over the calls.
    used: Vec<u64>,
    top: usize,
}

/// The picture while it is being made.
#[derive(Clone)]
pub(crate) struct Raster {
    columns: Vec<Column>,
    calls_per_column: u64,
    bytes_per_row: usize,
    /// Bytes in use of each row now, the sum for the current column, and the call up to which it is summed.
    rows: Vec<Row>,
    calls: u64,
    top: usize,
}

#[derive(Clone, Copy, Default)]
struct Row {
    used: u64,
    sum: u64,
    until: u64,
}

impl Row {
    fn advance(&mut self, call: u64) {
        self.sum += self.used * (call - self.until);
        self.until = call;
    }
}

impl Raster {
    pub(crate) fn new() -> Self {
        Self {
            columns: Vec::new(),
            calls_per_column: 1,
            bytes_per_row: GRANULE,
            rows: vec![Row::default(); ROWS],
            calls: 0,
            top: 0,
        }
    }

    /// A segment came into use or went out of it, with the call that is under way.
    pub(crate) fn change(&mut self, change: Change) {
        let end = change.end();
        while end > ROWS * self.bytes_per_row {
            self.join_rows();
        }
        let mut from = change.offset;
        while from < end {
            let row = from / self.bytes_per_row;
            let to = end.min((row + 1) * self.bytes_per_row);
            let bytes = (to - from) as u64;
            let row = &mut self.rows[row];
            row.advance(self.calls);
            row.used = if change.in_use { row.used + bytes } else { row.used - bytes };
            from = to;
        }
        self.top = if change.in_use { self.top.max(end) } else { self.top };
    }

    /// A call has been made.
    pub(crate) fn tick(&mut self) {
        self.calls += 1;
        if self.calls.is_multiple_of(self.calls_per_column) {
            self.finish_column();
            if self.columns.len() >= 2 * COLUMNS {
                self.join_columns();
            }
        }
    }

    fn finish_column(&mut self) {
        let calls = self.calls;
        let sum = |row: &mut Row| {
            row.advance(calls);
            std::mem::take(&mut row.sum)
        };
        let used = self.rows.iter_mut().map(sum).collect();
        // The highest row that this column reached: at least the highest row that is in use at its end.
        let highest = self.rows.iter().rposition(|row| row.used > 0).map_or(0, |row| row + 1);
        let top = self.top.max(highest * self.bytes_per_row);
        self.columns.push(Column { used, top });
        self.top = 0;
    }

    fn join_columns(&mut self) {
        let mut columns = std::mem::take(&mut self.columns).into_iter();
        while let Some(mut first) = columns.next() {
            if let Some(second) = columns.next() {
                first.used.iter_mut().zip(&second.used).for_each(|(sum, more)| *sum += more);
                first.top = first.top.max(second.top);
            }
            self.columns.push(first);
        }
        self.calls_per_column *= 2;
    }

    fn join_rows(&mut self) {
        for column in &mut self.columns {
            column.used = join(&column.used, |pair| pair.iter().sum());
        }
        let calls = self.calls;
        self.rows.iter_mut().for_each(|row| row.advance(calls));
        self.rows = join(&self.rows, |pair| Row {
            used: pair.iter().map(|row| row.used).sum(),
            sum: pair.iter().map(|row| row.sum).sum(),
            until: calls,
        });
        self.bytes_per_row *= 2;
    }

    /// Draws it, and packs it as PNG.
    pub(crate) fn write(mut self, name: &str, out: impl io::Write) -> Result<()> {
        let rest = self.calls % self.calls_per_column;
        if rest > 0 {
            self.finish_column();
        }
        let last = self.columns.len().max(1) - 1;
        let calls_in = |column: usize| if column == last && rest > 0 { rest } else { self.calls_per_column };
        let top = self.columns.iter().map(|column| column.top).max().unwrap_or(0).max(GRANULE);
        let rows = top.div_ceil(self.bytes_per_row).min(ROWS);
        let columns = self.columns.len().max(1);
        let (wide, high) = ((WIDE / columns).max(1), (HIGH / rows).max(1));
        let mut bitmap =
            Bitmap::new((LEFT + columns * wide + RIGHT).max(LEFT + 480), HEAD + rows * high + FOOT);
        for (x, column) in self.columns.iter().enumerate() {
            for row in 0..rows {
                let all = calls_in(x) * self.bytes_per_row as u64;
                let above = row * self.bytes_per_row >= column.top;
                let colour = if above { ABOVE_TOP } else { colour_of(column.used[row] as f64 / all as f64) };
                bitmap.fill(LEFT + x * wide, HEAD + (rows - 1 - row) * high, wide, high, colour);
            }
        }
        self.label(&mut bitmap, name, top, (columns * wide, rows * high, high));
        bitmap.write_png(out)
    }

    /// Title, axes and legend.
    fn label(
        &self,
        bitmap: &mut Bitmap,
        name: &str,
        top: usize,
        (width, height, high): (usize, usize, usize),
    ) {
        bitmap.text(LEFT, 6, INK, &format!("Address over time: {name}"));
        let cell = format!(
            "{} calls, top at most {}; a column is {} call{}, a row {}",
            Count(self.calls),
            Bytes(top),
            Count(self.calls_per_column),
            if self.calls_per_column == 1 { "" } else { "s" },
            Bytes(self.bytes_per_row)
        );
        bitmap.text(LEFT, 26, PALE_INK, &cell);
        let bottom = HEAD + height;
        let step = step_of(top as f64 / 6.0, 2.0).max(GRANULE as f64) as usize;
        for offset in (0..=top).step_by(step) {
            let y = bottom - offset * high / self.bytes_per_row;
            bitmap.fill(LEFT - 6, y.min(bottom - 1), 6, 1, PALE_INK);
            bitmap.text_ending(LEFT - 10, (y - 8).min(bottom - 16), INK, &Bytes(offset).to_string());
        }
        let per_pixel = self.calls.max(1) as f64 / width as f64;
        let step = step_of(self.calls as f64 / 8.0, 10.0).max(1.0) as u64;
        for call in (0..=self.calls).step_by(step as usize) {
            let x = LEFT + (call as f64 / per_pixel) as usize;
            bitmap.fill(x.min(LEFT + width - 1), bottom, 1, 6, PALE_INK);
            bitmap.text_around(x, bottom + 10, INK, &Count(call).to_string());
        }
        bitmap.text_ending(LEFT + width, bottom + 40, PALE_INK, "calls");
        legend(bitmap, bottom + 40);
    }
}

/// The meaning of the colours.
fn legend(bitmap: &mut Bitmap, y: usize) {
    let mut x = LEFT;
    for (colour, what) in [(ABOVE_TOP, "above top"), (SHARES[0], "free")] {
        bitmap.fill(x, y, 16, 16, colour);
        bitmap.outline(x, y, 16, 16, PALE_INK);
        bitmap.text(x + 24, y, INK, what);
        x += 48 + 8 * what.len();
    }
    for part in 1..=120 {
        bitmap.fill(x, y, 1, 16, colour_of(f64::from(part) / 120.0));
        x += 1;
    }
    bitmap.text(x + 8, y, INK, "in use, a little to all");
}

/// Joins neighbours in pairs, and appends as many zeros.
fn join<T: Copy + Default>(all: &[T], one: impl Fn(&[T]) -> T) -> Vec<T> {
    let mut joined: Vec<T> = all.chunks(2).map(one).collect();
    joined.resize(all.len(), T::default());
    joined
}

/// The colour of a share in use. Even the smallest share does not look free.
fn colour_of(share: f64) -> Colour {
    if share <= 0.0 {
        return SHARES[0];
    }
    let place = 0.5 + share.min(1.0) * (SHARES.len() as f64 - 1.5);
    let (low, part) = (place as usize, place.fract());
    let (from, to) = (SHARES[low], SHARES[(low + 1).min(SHARES.len() - 1)]);
    std::array::from_fn(|i| (f64::from(from[i]) + part * (f64::from(to[i]) - f64::from(from[i]))) as u8)
}

/// The smallest step that is at least `least`: a power of 2, or for 10 one, two or five times a power of it.
pub(crate) fn step_of(least: f64, base: f64) -> f64 {
    let power = base.powf(least.max(f64::MIN_POSITIVE).log(base).floor());
    let factors: &[f64] = if base == 10.0 { &[1.0, 2.0, 5.0, 10.0] } else { &[1.0, 2.0] };
    factors.iter().map(|factor| factor * power).find(|step| *step >= least).unwrap_or(base * power)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in use over all columns and rows: joining loses none.
    fn sum(raster: &Raster) -> u64 {
        raster.columns.iter().flat_map(|column| &column.used).sum()
    }

    #[test]
    fn joining_keeps_what_was_in_use() {
        let mut raster = Raster::new();
        let mut expected = 0;
        let mut used = 0;
        for call in 0..20_001_u64 {
            let offset = (call as usize * 7919) % 100_000 * 16;
            let change = |in_use| Change { number: 0, size: 48, offset, bytes: 48, in_use };
            raster.change(change(true));
            used += 48;
            if call % 3 == 0 {
                raster.change(change(false));
                used -= 48;
            }
            raster.tick();
            expected += used;
        }
        assert_ne!(raster.calls % raster.calls_per_column, 0, "the last column is a part of one");
        raster.finish_column();
        assert_eq!(sum(&raster), expected);
        assert!(raster.columns.len() <= 2 * COLUMNS && raster.calls_per_column == 32);
        assert_eq!(raster.bytes_per_row, 4096);
    }

    #[test]
    fn steps_are_round() {
        assert_eq!(
            [0.3, 1.0, 3.0, 7.0, 120.0].map(|least| step_of(least, 10.0)),
            [0.5, 1.0, 5.0, 10.0, 200.0]
        );
        assert_eq!([0.3, 1.0, 3.0, 70.0].map(|least| step_of(least, 2.0)), [0.5, 1.0, 4.0, 128.0]);
    }
}
