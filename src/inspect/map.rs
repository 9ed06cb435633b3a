//! The heap map: the address space in rows of cells, each cell showing the share of its bytes that is in use.
//!
//! A row is a line of the text or a strip of the picture, with its offset at the left. Cells show a share and not a
//! majority, since a heap of which every cell is 60 % in use is full of holes. Three rows and more that are all in use
//! or all free fold into one line, so that a cell can be small where something is to be seen.
//!
//! - `layout`: which bytes each row shows, and what is in each cell
//! - `text`: characters for a terminal or a log
//! - `svg`: a picture

mod layout;
mod svg;
mod text;

#[cfg(test)]
mod tests;

use core::fmt::{self, Write};

use super::snapshot::Snapshot;
use layout::Layout;
pub(super) use text::share_glyph;

/// Whether a text may contain colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// Characters alone show what a cell holds.
    #[default]
    Plain,
    /// Escape sequences for terminals with 256 colours.
    Ansi,
}

/// How a heap map is drawn: how many cells, of how many bytes, in which characters.
///
/// The library does not look at the process's environment or its terminal; the caller says what the reader can show:
///
/// ```
/// use smalloc::{Color, MapOptions};
/// use std::io::IsTerminal;
///
/// let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
/// let color = if std::io::stdout().is_terminal() && !no_color { Color::Ansi } else { Color::Plain };
///
/// let heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
/// let mut map = String::new();
/// heap.snapshot()?.write_map_text(&mut map, MapOptions { color, ..MapOptions::text() })?;
/// println!("{map}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapOptions {
    /// Colours in text. Pictures have colours always.
    pub color: Color,
    /// Only ASCII characters in text.
    pub ascii: bool,
    /// Cells in a row, taken as the nearest number from 8 to 256.
    pub width: usize,
    /// Rows to keep to when the bytes per cell are chosen, folded ones counted as one; at least 4.
    pub max_rows: usize,
    /// Bytes per cell, rounded up to a multiple of 16. With `None` it is the smallest power of two that keeps to
    /// `max_rows`. Give it to compare the maps of two instants.
    pub cell_bytes: Option<usize>,
    /// The first offset to show, rounded down to a multiple of 16.
    pub from: usize,
    /// The offset to stop before; the region's end if that is lower.
    pub to: usize,
}

impl MapOptions {
    /// 64 cells a row and up to 48 rows: a terminal of 100 columns.
    #[must_use]
    pub const fn text() -> Self {
        Self {
            color: Color::Plain,
            ascii: false,
            width: 64,
            max_rows: 48,
            cell_bytes: None,
            from: 0,
            to: usize::MAX,
        }
    }

    /// 128 cells a row and up to 96 rows: a picture that fits a page.
    #[must_use]
    pub const fn svg() -> Self {
        Self { width: 128, max_rows: 96, ..Self::text() }
    }
}

impl Default for MapOptions {
    fn default() -> Self {
        Self::text()
    }
}

impl Snapshot {
    /// Writes the heap map as text: one line a row, with a header and a legend.
    ///
    /// Without colours a cell is `·` when it is free, `░ ▒ ▓` when it is in use up to a third, two thirds and more, `█`
    /// when all of it is in use, `◆` in the largest hole, and blank above top. With [`MapOptions::ascii`] these are
    /// `. - + * # O`.
    ///
    /// # Errors
    /// Those of `out`.
    ///
    /// ```
    /// use core::alloc::Layout;
    /// use smalloc::MapOptions;
    ///
    /// let mut heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 16)?;
    /// let first = heap.smalloc(Layout::new::<[u8; 256]>()).0;
    /// heap.smalloc(Layout::new::<[u8; 256]>());
    /// unsafe { heap.sfree(first.unwrap()) };
    ///
    /// let mut map = String::new();
    /// heap.snapshot()?.write_map_text(&mut map, MapOptions { ascii: true, ..MapOptions::text() })?;
    /// assert!(map.contains("OOOOOOOOOOOOOOOO################"));
    /// assert!(map.contains("< largest hole: 256 B at 0x0"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_map_text(&self, out: &mut (impl Write + ?Sized), options: MapOptions) -> fmt::Result {
        text::write(self, &Layout::new(self, &options), &options, out)
    }

    /// Writes the heap map as a picture in SVG, without scripts or fonts of its own.
    ///
    /// Where segments are large enough each is drawn by itself, elsewhere cells show the share of their bytes that is in
    /// use. Every part says what it is when pointed at.
    ///
    /// # Errors
    /// Those of `out`.
    ///
    /// ```no_run
    /// let heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
    /// let mut picture = String::new();
    /// heap.snapshot()?.write_map_svg(&mut picture, smalloc::MapOptions::svg())?;
    /// std::fs::write("heap.svg", picture)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_map_svg(&self, out: &mut (impl Write + ?Sized), options: MapOptions) -> fmt::Result {
        svg::write(self, &Layout::new(self, &options), out)
    }
}
