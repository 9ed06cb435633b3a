//! The heap map: the address space in rows of cells, each cell showing the share of its bytes that is in use.
//!
//! A row is a line of the text or a strip of the picture, with its offset at the left. Cells show a share and not a
//! majority, since a heap of which every cell is 60 % in use is full of holes. Three rows and more that are all in use
//! or all free fold into one line, so that a cell can be small where something is to be seen.
//!
//! - `options`: how a map is drawn
//! - `layout`: which bytes each row shows, and what is in each cell
//! - `text`: characters for a terminal or a log
//! - `svg`: a picture

mod layout;
mod options;
mod svg;
mod text;

#[cfg(test)]
#[path = "../../../tests/unit/inspect/map.rs"]
mod tests;

use core::fmt::{self, Write};

use crate::inspect::snapshot::Snapshot;
use layout::Layout;
pub use options::{Color, MapOptions};
pub(super) use text::share_glyph;

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
