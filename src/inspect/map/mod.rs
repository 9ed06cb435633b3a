//! The heap map: the address space as rows of cells. Each cell shows the share of its bytes in use.
//!
//! A row is a line of text or a strip of the picture, with its offset at the left. Cells show a share instead of a
//! majority, since a heap whose cells are all 60 % in use is full of holes. Three or more rows that are all in use or
//! all free are folded into one line, so that cells can be small where there is something to see.
//!
//! - `options`: how to draw a map
//! - `layout`: the bytes of each row and the content of each cell
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
    /// Writes the heap map as text: one line per row, with a header and a legend.
    ///
    /// Without colours, a cell is `·` if it is free, `░ ▒ ▓` if up to a third, up to two thirds, or more is in use, `█`
    /// if all is in use, `◆` in the largest hole, and blank above top. With [`MapOptions::ascii`], these are
    /// `. - + * # O`.
    ///
    /// # Errors
    /// Any error of `out`.
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

    /// Writes the heap map as an SVG picture, without scripts or embedded fonts.
    ///
    /// Large segments are drawn one by one, elsewhere cells show their share in use. Every part has a tooltip.
    ///
    /// # Errors
    /// Any error of `out`.
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
