//! Options of a heap map.

/// Colours in text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Color {
    /// No colours: characters alone show the content of a cell.
    #[default]
    Plain,
    /// Escape sequences for terminals with 256 colours.
    Ansi,
}

/// Options of a heap map: the number of cells, their size, and the characters.
///
/// The library reads neither the environment nor the terminal, so the caller says what the output can show:
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
    /// Colours in text. Pictures always have colours.
    pub color: Color,
    /// Only ASCII characters in text.
    pub ascii: bool,
    /// Cells per row, clamped to 8 to 256.
    pub width: usize,
    /// Largest number of rows if `cell_bytes` is `None`; at least 4. Folded rows count as one.
    pub max_rows: usize,
    /// Bytes per cell, rounded up to a multiple of 16. `None` selects the smallest power of two that keeps to
    /// `max_rows`. Set it to compare two maps.
    pub cell_bytes: Option<usize>,
    /// The first offset to show, rounded down to a multiple of 16.
    pub from: usize,
    /// The offset to stop before; limited to the region's end.
    pub to: usize,
}

impl MapOptions {
    /// 64 cells per row and up to 48 rows, for a terminal of 100 columns.
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

    /// 128 cells per row and up to 96 rows, for a picture that fits a page.
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
