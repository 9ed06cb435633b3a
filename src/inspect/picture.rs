//! The SVG elements that the pictures use.

use core::fmt::{self, Write};

pub(super) const INK: &str = "#222222";
/// Less important text, and axes.
pub(super) const PALE_INK: &str = "#595959";
/// The colour that should be noticed first.
pub(super) const ACCENT: &str = "#e8760c";

/// Opens a picture, with a white background so that it looks the same on a dark page.
pub(super) fn begin(width: f64, height: f64, name: &str, out: &mut (impl Write + ?Sized)) -> fmt::Result {
    write!(out, r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" "#)?;
    write!(out, r#"width="{width}" height="{height}" role="img" aria-label="{name}" "#)?;
    writeln!(
        out,
        r#"font-family="ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace" font-size="11">"#
    )?;
    writeln!(out, r##"<rect width="100%" height="100%" fill="#ffffff"/>"##)
}

pub(super) fn end(out: &mut (impl Write + ?Sized)) -> fmt::Result {
    writeln!(out, "</svg>")
}

/// A line of text whose start, middle or end (`anchor`) is at `x`, with its baseline at `y`.
pub(super) fn text(
    x: f64,
    y: f64,
    anchor: &str,
    fill: &str,
    text: fmt::Arguments<'_>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    writeln!(out, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{fill}">{text}</text>"#)
}

/// The title of a picture or of a part of it.
pub(super) fn title(
    x: f64,
    y: f64,
    text: fmt::Arguments<'_>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    writeln!(
        out,
        r#"<text x="{x:.1}" y="{y:.1}" font-size="15" font-weight="bold" fill="{INK}">{text}</text>"#
    )
}

/// A filled rectangle.
#[derive(Clone, Copy)]
pub(super) struct Rect {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) fill: &'static str,
}

impl Rect {
    /// Writes the element without its end.
    fn open(&self, out: &mut (impl Write + ?Sized)) -> fmt::Result {
        let Self { x, y, width, height, fill } = self;
        write!(out, r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" fill="{fill}""#)
    }

    pub(super) fn write(&self, out: &mut (impl Write + ?Sized)) -> fmt::Result {
        self.open(out)?;
        writeln!(out, "/>")
    }

    /// Adds a thin outline, for the swatches of a legend.
    pub(super) fn write_outlined(&self, out: &mut (impl Write + ?Sized)) -> fmt::Result {
        self.open(out)?;
        writeln!(out, r##" stroke="#8a8a8a" stroke-width="0.5"/>"##)
    }

    /// Adds a tooltip.
    pub(super) fn write_with_title(
        &self,
        title: fmt::Arguments<'_>,
        out: &mut (impl Write + ?Sized),
    ) -> fmt::Result {
        self.open(out)?;
        writeln!(out, "><title>{title}</title></rect>")
    }
}
