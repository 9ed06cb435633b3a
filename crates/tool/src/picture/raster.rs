//! Address over time, as a PNG: the colour shows which share of a column's calls and a row's bytes was in use.

use std::io;

use anyhow::Result;
use smalloc_terminal::{Bytes, Count};

use super::bitmap::{Bitmap, Colour};
use crate::replay::{RASTER_GRANULE as GRANULE, RASTER_ROWS as ROWS, Raster};

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

/// Draws a raster, and packs it as PNG.
pub(crate) fn write(mut raster: Raster, name: &str, out: impl io::Write) -> Result<()> {
    let rest = raster.calls % raster.calls_per_column;
    if rest > 0 {
        raster.finish_column();
    }
    let last = raster.columns.len().max(1) - 1;
    let calls_in = |column: usize| if column == last && rest > 0 { rest } else { raster.calls_per_column };
    let top = raster.columns.iter().map(|column| column.top).max().unwrap_or(0).max(GRANULE);
    let rows = top.div_ceil(raster.bytes_per_row).min(ROWS);
    let columns = raster.columns.len().max(1);
    let (wide, high) = ((WIDE / columns).max(1), (HIGH / rows).max(1));
    let mut bitmap = Bitmap::new((LEFT + columns * wide + RIGHT).max(LEFT + 480), HEAD + rows * high + FOOT);
    for (x, column) in raster.columns.iter().enumerate() {
        for row in 0..rows {
            let all = calls_in(x) * raster.bytes_per_row as u64;
            let above = row * raster.bytes_per_row >= column.top;
            let colour = if above { ABOVE_TOP } else { colour_of(column.used[row] as f64 / all as f64) };
            bitmap.fill(LEFT + x * wide, HEAD + (rows - 1 - row) * high, wide, high, colour);
        }
    }
    label(&raster, &mut bitmap, name, top, (columns * wide, rows * high, high));
    bitmap.write_png(out)
}

/// Title, axes and legend.
fn label(
    raster: &Raster,
    bitmap: &mut Bitmap,
    name: &str,
    top: usize,
    (width, height, high): (usize, usize, usize),
) {
    bitmap.text(LEFT, 6, INK, &format!("Address over time: {name}"));
    let cell = format!(
        "{} calls, top at most {}; a column is {} call{}, a row {}",
        Count(raster.calls),
        Bytes(top),
        Count(raster.calls_per_column),
        if raster.calls_per_column == 1 { "" } else { "s" },
        Bytes(raster.bytes_per_row)
    );
    bitmap.text(LEFT, 26, PALE_INK, &cell);
    let bottom = HEAD + height;
    let step = step_of(top as f64 / 6.0, 2.0).max(GRANULE as f64) as usize;
    for offset in (0..=top).step_by(step) {
        let y = bottom - offset * high / raster.bytes_per_row;
        bitmap.fill(LEFT - 6, y.min(bottom - 1), 6, 1, PALE_INK);
        bitmap.text_ending(LEFT - 10, (y - 8).min(bottom - 16), INK, &Bytes(offset).to_string());
    }
    let per_pixel = raster.calls.max(1) as f64 / width as f64;
    let step = step_of(raster.calls as f64 / 8.0, 10.0).max(1.0) as u64;
    for call in (0..=raster.calls).step_by(step as usize) {
        let x = LEFT + (call as f64 / per_pixel) as usize;
        bitmap.fill(x.min(LEFT + width - 1), bottom, 1, 6, PALE_INK);
        bitmap.text_around(x, bottom + 10, INK, &Count(call).to_string());
    }
    bitmap.text_ending(LEFT + width, bottom + 40, PALE_INK, "calls");
    legend(bitmap, bottom + 40);
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

    #[test]
    fn steps_are_round() {
        assert_eq!(
            [0.3, 1.0, 3.0, 7.0, 120.0].map(|least| step_of(least, 10.0)),
            [0.5, 1.0, 5.0, 10.0, 200.0]
        );
        assert_eq!([0.3, 1.0, 3.0, 70.0].map(|least| step_of(least, 2.0)), [0.5, 1.0, 4.0, 128.0]);
    }
}
