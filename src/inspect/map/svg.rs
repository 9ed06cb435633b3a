//! The heap map as an SVG picture.

use core::fmt::{self, Write};

use super::layout::{Cell, Layout, Line, State};
use crate::inspect::human::{Bytes, Count, Percent};
use crate::inspect::number::{float, share, wide};
use crate::inspect::picture::{self, ACCENT, INK, PALE_INK, Rect};
use crate::inspect::snapshot::{Segment, Snapshot};

/// Colours of the shares in use: a warm grey for free, then ever darker blue. They differ in lightness, so that
/// colour-blind readers can tell them apart.
const SHARES: [&str; 8] = [FREE, "#c3daee", "#9cc3e2", "#74a9d3", "#4f8dc1", "#3272ab", "#1d5791", FULL];
/// The colour of free memory.
const FREE: &str = "#e4dfd6";
/// The colour of memory in use.
const FULL: &str = "#0a2f5c";
/// The colour of the wilderness.
const ABOVE_TOP: &str = "#f7f7f7";

/// Pixels left of the cells, for the offsets.
const LEFT: f64 = 112.0;
/// Pixels of a row's width.
const WIDE: f64 = 1024.0;
/// Pixels right of the cells, for the label of the largest hole: 26 letters at most, of 6.7 pixels.
const RIGHT: f64 = 192.0;
/// Pixels above the rows, for the title and the ruler.
const HEAD: f64 = 76.0;
/// Pixels from one row to the next, and the gap between rows.
const PITCH: f64 = 15.0;
const GAP: f64 = 3.0;
/// Pixels below the rows, for the legend.
const FOOT: f64 = 64.0;
/// Segments of at least this width in pixels are separated by a gap.
const GAP_FROM: f64 = 3.0;

pub(super) fn write(snapshot: &Snapshot, layout: &Layout, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    let rows = float(wide(layout.lines(snapshot).count()));
    let (width, bottom) = (LEFT + WIDE + RIGHT, HEAD + rows * PITCH);
    picture::begin(width, bottom + FOOT, "heap map", out)?;
    head(snapshot, layout, out)?;
    let mut y = HEAD;
    for line in layout.lines(snapshot) {
        let middle = y + PITCH - GAP - 2.0;
        let x = LEFT - 8.0;
        picture::text(x, middle, "end", INK, format_args!("0x{:08x}", line.offset), out)?;
        draw_line(snapshot, layout, &line, y, out)?;
        if let Some(hole) = layout.label(&line) {
            let label = format_args!("◂ largest hole: {}", Bytes::of(hole.size));
            picture::text(LEFT + WIDE + 6.0, middle, "start", "#b04a00", label, out)?;
        }
        y += PITCH;
    }
    legend(layout, bottom + 18.0, out)?;
    picture::end(out)
}

/// Writes the title, the numbers and the ruler.
fn head(snapshot: &Snapshot, layout: &Layout, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    let stats = snapshot.stats();
    let (used, size) = (Bytes::of(stats.used_bytes), Bytes::of(stats.region_size));
    let full = Percent(share(wide(stats.used_bytes), wide(stats.region_size)));
    let dense = Percent(share(wide(stats.used_bytes), wide(stats.top)));
    let title = format_args!("Heap map: {used} of {size} in use ({full}; {dense} below top)");
    picture::title(LEFT, 24.0, title, out)?;
    let (live, holes) = (Count::of(stats.live_segments), Count::of(stats.holes()));
    let (bytes, top) = (Bytes::of(stats.hole_bytes), Bytes::of(stats.top));
    let numbers =
        format_args!("{live} segments in use, {holes} holes with {bytes} below top, which is at {top}");
    picture::text(LEFT, 44.0, "start", PALE_INK, numbers, out)?;
    picture::text(LEFT, HEAD - 8.0, "start", PALE_INK, format_args!("+0"), out)?;
    for quarter in 1..4u8 {
        let x = LEFT + WIDE * f64::from(quarter) / 4.0;
        let offset = Bytes::of(layout.row() / 4 * usize::from(quarter));
        picture::text(x, HEAD - 8.0, "start", PALE_INK, format_args!("+{offset}"), out)?;
        Rect { x, y: HEAD - 6.0, width: 1.0, height: 4.0, fill: PALE_INK }.write(out)?;
    }
    Ok(())
}

fn draw_line(
    snapshot: &Snapshot,
    layout: &Layout,
    line: &Line,
    y: f64,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    if let Some(state) = line.folded {
        return draw_fold(layout, line, state, y, out);
    }
    let end = line.offset + line.size;
    let mut segments = snapshot.segments_from(line.offset).take_while(|segment| segment.offset < end);
    if segments.clone().all(|segment| segment.size >= layout.cell / 2) {
        segments.try_for_each(|segment| draw_segment(snapshot, layout, line, segment, y, out))
    } else {
        draw_cells(layout.cells(snapshot, line.offset).as_slice(), layout, line, y, out)
    }
}

/// The horizontal position of the byte at `offset`, in pixels.
fn x_of(layout: &Layout, line: &Line, offset: usize) -> f64 {
    LEFT + WIDE * share(wide(offset.saturating_sub(line.offset)), wide(layout.row()))
}

/// Draws the part of a segment that lies in the row.
fn draw_segment(
    snapshot: &Snapshot,
    layout: &Layout,
    line: &Line,
    segment: Segment,
    y: f64,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let last = line.offset + line.size;
    let x = x_of(layout, line, segment.offset);
    let width = x_of(layout, line, segment.end().min(last)) - x;
    // No gap if the segment continues in the next row.
    let gap = if width >= GAP_FROM && segment.end() <= last { 1.0 } else { 0.0 };
    let fill = if segment.in_use {
        FULL
    } else if segment.offset >= snapshot.stats().top {
        ABOVE_TOP
    } else if layout.largest == Some(segment) {
        ACCENT
    } else {
        FREE
    };
    let state = if segment.in_use { "in use" } else { "free" };
    let (offset, size) = (segment.offset, Bytes::of(segment.size));
    let rect = Rect { x, y, width: width - gap, height: PITCH - GAP, fill };
    rect.write_with_title(format_args!("0x{offset:08x}: {size} {state}"), out)
}

/// Draws cells; neighbours of one colour become one rectangle.
fn draw_cells(
    cells: &[Cell],
    layout: &Layout,
    line: &Line,
    y: f64,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    for run in cells.chunk_by(|a, b| fill_of(a) == fill_of(b)) {
        let Some(first) = run.first() else { continue };
        let (size, used) = run.iter().fold((0, 0), |(size, used), cell| (size + cell.size, used + cell.used));
        let x = x_of(layout, line, first.offset);
        let width = x_of(layout, line, first.offset + size) - x;
        let percent = Percent(share(wide(used), wide(size)));
        let rect = Rect { x, y, width, height: PITCH - GAP, fill: fill_of(first) };
        let (offset, size) = (first.offset, Bytes::of(size));
        rect.write_with_title(format_args!("0x{offset:08x}: {size}, {percent} in use"), out)?;
    }
    Ok(())
}

fn fill_of(cell: &Cell) -> &'static str {
    if cell.marked {
        ACCENT
    } else if cell.above_top {
        ABOVE_TOP
    } else {
        SHARES.get(cell.level(SHARES.len())).copied().unwrap_or(ACCENT)
    }
}

/// Draws a bar for folded rows, with their number.
fn draw_fold(
    layout: &Layout,
    line: &Line,
    state: State,
    y: f64,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let (fill, ink, what) = match state {
        State::Used => (FULL, "#ffffff", "all in use"),
        State::Hole if layout.begins_in_largest(line) => (ACCENT, INK, "all free, in the largest hole"),
        State::Hole => (FREE, INK, "all free"),
        State::Wilderness => (ABOVE_TOP, INK, "above top"),
    };
    Rect { x: LEFT, y, width: WIDE, height: PITCH - GAP, fill }.write(out)?;
    let (rows, size) = (Count::of(line.size.div_ceil(layout.row())), Bytes::of(line.size));
    let label = format_args!("⋮ {rows} rows, {size}, {what}");
    picture::text(LEFT + WIDE / 2.0, y + PITCH - GAP - 2.0, "middle", ink, label, out)
}

/// Writes the meaning of the colours, and the bytes per cell.
fn legend(layout: &Layout, y: f64, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    let swatch = |x, width, fill| Rect { x, y, width, height: 12.0, fill };
    let label = y + 10.0;
    picture::text(LEFT, label, "start", INK, format_args!("free"), out)?;
    let mut x = LEFT + 34.0;
    for fill in SHARES {
        swatch(x, 24.0, fill).write_outlined(out)?;
        x += 24.0;
    }
    picture::text(x + 8.0, label, "start", INK, format_args!("all in use"), out)?;
    x += 112.0;
    for (fill, what, step) in [(ACCENT, "largest hole", 136.0), (ABOVE_TOP, "above top", 136.0)] {
        swatch(x, 24.0, fill).write_outlined(out)?;
        picture::text(x + 32.0, label, "start", INK, format_args!("{what}"), out)?;
        x += step;
    }
    let (cell, row) = (Bytes::of(layout.cell), Bytes::of(layout.row()));
    swatch(x, WIDE / float(wide(layout.width)), FULL).write(out)?;
    picture::text(x + 16.0, label, "start", INK, format_args!("1 cell is {cell}, 1 row is {row}"), out)?;
    let note = "Segments of half a cell and more are drawn one by one; smaller ones as the share of each cell in use.";
    picture::text(LEFT, y + 32.0, "start", PALE_INK, format_args!("{note}"), out)
}
