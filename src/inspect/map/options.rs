//! How a heap map is drawn.

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
