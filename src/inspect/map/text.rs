//! The heap map as text.

use core::fmt::{self, Write};

use super::layout::{Cell, Layout, Line, State};
use super::options::{Color, MapOptions};
use crate::inspect::human::{Bytes, Count, Percent, Text};
use crate::inspect::number::{share, wide};
use crate::inspect::snapshot::Snapshot;

/// Characters for the share in use (none, up to a third, up to two thirds, more, all) and for the largest hole.
struct Glyphs {
    shares: [&'static str; 5],
    hole: &'static str,
    pointer: &'static str,
}

const UNICODE: Glyphs = Glyphs { shares: ["·", "░", "▒", "▓", "█"], hole: "◆", pointer: "◂" };
const ASCII: Glyphs = Glyphs { shares: [".", "-", "+", "*", "#"], hole: "O", pointer: "<" };

/// Background colours of the shares in use, among the 256 of terminals: grey for free, then ever darker blue.
const BACKGROUNDS: [u8; 6] = [252, 153, 111, 69, 26, 18];
/// The background of the largest hole.
const ACCENT: u8 = 208;
const RESET: &str = "\x1b[0m";

/// Writes the header, the lines, and the legend.
pub(super) fn write(
    snapshot: &Snapshot,
    layout: &Layout,
    options: &MapOptions,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let glyphs = if options.ascii { &ASCII } else { &UNICODE };
    let stats = snapshot.stats();
    let digits = Text::<16>::new(format_args!("{:x}", stats.region_size)).as_str().len();
    let (used, size) = (Bytes::of(stats.used_bytes), Bytes::of(stats.region_size));
    let full = Percent(share(wide(stats.used_bytes), wide(stats.region_size)));
    let dense = Percent(share(wide(stats.used_bytes), wide(stats.top)));
    let (holes, bytes) = (Count::of(stats.holes()), Bytes::of(stats.hole_bytes));
    writeln!(out, "heap map: {used} of {size} in use ({full}; {dense} below top), {holes} holes of {bytes}")?;
    ruler(layout, digits, out)?;
    for line in layout.lines(snapshot) {
        write!(out, "0x{:0digits$x}  ", line.offset)?;
        let shown = match line.folded {
            Some(state) => write_fold(&line, state, layout, (glyphs, options.color), out)?,
            None => {
                let cells = layout.cells(snapshot, line.offset);
                write_cells(cells.as_slice(), glyphs, options.color, out)?
            }
        };
        if let Some(hole) = layout.label(&line) {
            let pad = layout.width.saturating_sub(shown) + 2;
            let (pointer, size) = (glyphs.pointer, Bytes::of(hole.size));
            write!(out, "{:pad$}{pointer} largest hole: {size} at 0x{:x}", "", hole.offset)?;
        }
        writeln!(out)?;
    }
    legend(layout, glyphs, options.color, digits, out)
}

/// Writes the offsets within a row at each quarter, or fewer if they would touch.
fn ruler(layout: &Layout, digits: usize, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    const LABEL: usize = 12;
    let marks = (layout.width / LABEL).clamp(1, 4);
    let marks = if marks == 3 { 2 } else { marks };
    let step = layout.width / marks;
    write!(out, "{:indent$}+0", "", indent = digits + 4)?;
    let mut written = 2;
    for i in 1..marks {
        let label = Text::<24>::new(format_args!("+{}", Bytes::of(i * step * layout.cell)));
        write!(out, "{:pad$}{}", "", label.as_str(), pad = (i * step).saturating_sub(written))?;
        written = i * step + label.as_str().len();
    }
    writeln!(out)
}

/// Writes a row's cells without the blank ones at its end. Returns the columns used.
fn write_cells(
    cells: &[Cell],
    glyphs: &Glyphs,
    color: Color,
    out: &mut (impl Write + ?Sized),
) -> Result<usize, fmt::Error> {
    let shown = cells.iter().rposition(|cell| !cell.above_top).map_or(0, |last| last + 1);
    let mut background = None;
    for cell in cells.iter().take(shown) {
        match color {
            Color::Plain if cell.marked => out.write_str(glyphs.hole)?,
            Color::Plain => out.write_str(glyph(glyphs, cell.level(glyphs.shares.len())))?,
            Color::Ansi => {
                let of_cell = if cell.marked {
                    ACCENT
                } else {
                    BACKGROUNDS.get(cell.level(BACKGROUNDS.len())).copied().unwrap_or(ACCENT)
                };
                if background != Some(of_cell) {
                    write!(out, "\x1b[48;5;{of_cell}m")?;
                    background = Some(of_cell);
                }
                out.write_char(' ')?;
            }
        }
    }
    if background.is_some() {
        out.write_str(RESET)?;
    }
    Ok(shown)
}

/// The character for a cell of `size` bytes of which `used` are in use.
pub(in crate::inspect) fn share_glyph(used: usize, size: usize) -> &'static str {
    let cell = Cell { used, size, ..Cell::default() };
    glyph(&UNICODE, cell.level(UNICODE.shares.len()))
}

fn glyph(glyphs: &Glyphs, level: usize) -> &'static str {
    glyphs.shares.get(level).copied().unwrap_or_default()
}

/// Writes a line for folded rows. Returns the columns used.
fn write_fold(
    line: &Line,
    state: State,
    layout: &Layout,
    (glyphs, color): (&Glyphs, Color),
    out: &mut (impl Write + ?Sized),
) -> Result<usize, fmt::Error> {
    let rows = Count::of(line.size.div_ceil(layout.row()));
    let size = Bytes::of(line.size);
    let [free, .., full] = glyphs.shares;
    let [lightest, .., darkest] = BACKGROUNDS;
    let (mark, background, what) = match state {
        State::Used => (full, Some(darkest), "all in use"),
        State::Hole if layout.begins_in_largest(line) => (glyphs.hole, Some(ACCENT), "all free"),
        State::Hole => (free, Some(lightest), "all free"),
        State::Wilderness => (" ", None, "above top"),
    };
    match (color, background) {
        (Color::Ansi, Some(background)) => write!(out, "\x1b[48;5;{background}m {RESET}")?,
        _ => out.write_str(mark)?,
    }
    let text = Text::<96>::new(format_args!(" ({rows} rows, {size}, {what})"));
    out.write_str(text.as_str())?;
    Ok(text.as_str().len() + 1)
}

/// Writes the meaning of characters or colours, and the bytes per cell.
fn legend(
    layout: &Layout,
    glyphs: &Glyphs,
    color: Color,
    digits: usize,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    write!(out, "{:indent$}", "", indent = digits + 4)?;
    match color {
        Color::Plain => {
            let [none, third, two_thirds, more, all] = glyphs.shares;
            write!(
                out,
                "{none} free  {third}{two_thirds}{more} in use up to 1/3, 2/3, less than all  {all} all in use"
            )?;
            write!(out, "  {} largest hole", glyphs.hole)?;
        }
        Color::Ansi => {
            out.write_str("free ")?;
            for background in BACKGROUNDS {
                write!(out, "\x1b[48;5;{background}m  ")?;
            }
            write!(out, "{RESET} all in use  \x1b[48;5;{ACCENT}m  {RESET} largest hole")?;
        }
    }
    writeln!(out, "  blank above top")?;
    let (cell, row) = (Bytes::of(layout.cell), Bytes::of(layout.row()));
    writeln!(out, "{:indent$}1 cell is {cell}, 1 row is {row}", "", indent = digits + 4)
}
