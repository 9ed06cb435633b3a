//! Charts over time, as SVG: sizes, hops and holes.

use std::ops::Range;

use anyhow::Result;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use smalloc::Stats;
use smalloc_terminal::{Bytes, Count};

use super::raster::step_of;
use crate::replay::{Bin, Series, Sizes};

/// Colours that differ for all kinds of colour vision (Okabe and Ito), and in lightness too.
const BLACK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const ORANGE: RGBColor = RGBColor(0xd5, 0x5e, 0x00);
const SKY: RGBColor = RGBColor(0x56, 0xb4, 0xe9);
const GREY: RGBColor = RGBColor(0x59, 0x59, 0x59);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

const FONT: &str = "sans-serif";
/// Pixels of a picture, and of a panel in it.
const WIDE: u32 = 1000;
const PANEL: u32 = 300;
/// Pixels for the title and the legend of a panel.
const HEAD: u32 = 56;
/// The most lines of a grid in each direction.
const LINES: f64 = 8.0;
const COLUMNS: f64 = 10.0;

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One line of a panel.
struct Curve {
    name: String,
    colour: RGBColor,
    /// Pixels.
    width: u32,
    points: Vec<(f64, f64)>,
}

impl Curve {
    fn most(&self) -> f64 {
        self.points.iter().map(|point| point.1).fold(0.0, f64::max)
    }
}

/// The placement and the format of the numbers of a panel's upright axis.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    Bytes,
    Counts,
    Calls,
    /// The logarithm of one more, so that 0 has a place.
    Logarithms,
}

impl Scale {
    fn place(self, number: f64) -> f64 {
        if self == Self::Logarithms { number.ln_1p() } else { number }
    }

    /// The numbers from 0 to `most` that get a line of the grid.
    fn ticks(self, most: f64) -> Vec<f64> {
        let by = |step: f64| (0..).map(|n| f64::from(n) * step).take_while(|&tick| tick <= most).collect();
        match self {
            Self::Bytes => by(step_of(most / LINES, 2.0).max(1.0)),
            Self::Counts => by(step_of(most / LINES, 10.0).max(1.0)),
            Self::Calls => by(step_of(most / COLUMNS, 10.0).max(1.0)),
            Self::Logarithms => {
                let powers = (0..12).flat_map(|power| [1.0, 2.0, 5.0].map(|one| one * 10_f64.powi(power)));
                let ticks =
                    std::iter::once(0.0).chain(powers).take_while(|&tick| tick <= most).collect::<Vec<_>>();
                match ticks.len() {
                    0..8 => ticks,
                    _ => {
                        ticks.into_iter().filter(|tick| tick.log10().fract() == 0.0 || *tick == 0.0).collect()
                    }
                }
            }
        }
    }

    fn text(self, number: f64) -> String {
        match self {
            Self::Bytes => Bytes(number as usize).to_string(),
            Self::Counts | Self::Calls | Self::Logarithms => Count(number.round() as u64).to_string(),
        }
    }
}

/// An axis from 0 to a number.
struct Axis {
    scale: Scale,
    most: f64,
}

impl Ranged for Axis {
    type ValueType = f64;
    type FormatOption = NoDefaultFormatting;

    fn map(&self, number: &f64, (from, to): (i32, i32)) -> i32 {
        let share = self.scale.place(*number) / self.scale.place(self.most);
        from + (f64::from(to - from) * share).round() as i32
    }

    /// All lines of the grid are bold ones: light ones in between add nothing.
    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if hint.weight().allow_light_points() { Vec::new() } else { self.scale.ticks(self.most) }
    }

    fn range(&self) -> Range<f64> {
        0.0..self.most
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, number: &f64) -> String {
        self.scale.text(*number)
    }
}

/// Live bytes, used bytes, top and footprint.
pub(crate) fn memory(series: &Series, name: &str) -> Result<String> {
    let curve = |name: &str, colour, width, size: fn(&Sizes) -> usize| {
        let points: Vec<_> =
            series.bins.iter().map(|bin| (bin.end as f64, size(&bin.sizes) as f64)).collect();
        let most = points.iter().map(|point| point.1).fold(0.0, f64::max);
        Curve { name: format!("{name}, at most {}", Bytes(most as usize)), colour, width, points }
    };
    // In the order in which they lie, from the top. The upper ones are wider, so that covered ones show.
    let mut curves = [
        curve("footprint", SKY, 3, |sizes| sizes.footprint),
        curve("top", ORANGE, 2, |sizes| sizes.top),
        curve("used", BLUE, 2, |sizes| sizes.used),
        curve("live", BLACK, 1, |sizes| sizes.live),
    ];
    // The memory that is committed at once would hide a small heap.
    if curves[0].most() > 4.0 * curves[1].most() {
        curves[0].name += " (not shown)";
        curves[0].points.clear();
    }
    let mut picture = String::new();
    {
        let root = SVGBackend::with_string(&mut picture, (WIDE, PANEL + 120)).into_drawing_area();
        root.fill(&WHITE)?;
        panel(&root, &format!("Memory over time: {name}"), Scale::Bytes, series.calls(), &curves)?;
        root.present()?;
    }
    Ok(picture)
}

/// The hops of each list: the distribution, and hops over time, with the holes below.
pub(crate) fn hops(series: &Series, stats: &[(&str, Stats)], name: &str) -> Result<String> {
    let colours = [(BLUE, SKY), (ORANGE, RGBColor(0xe6, 0x9f, 0x00))];
    let mut curves = Vec::new();
    for (index, &(list, _)) in stats.iter().enumerate() {
        // A list has the same colour if it is alone.
        let (mean_colour, most_colour) = colours[usize::from(list == "linked")];
        let most = |bin: &Bin| {
            let searches = bin.searches[index];
            (searches.count > 0).then_some((bin.end as f64, searches.most as f64))
        };
        let mean = |bin: &Bin| Some((bin.end as f64, bin.searches[index].mean()?));
        let bins = &series.bins;
        let points: Vec<_> = bins.iter().filter_map(most).collect();
        curves.push(Curve { name: format!("{list}, most"), colour: most_colour, width: 1, points });
        let points: Vec<_> = bins.iter().filter_map(mean).collect();
        curves.push(Curve { name: format!("{list}, mean"), colour: mean_colour, width: 2, points });
    }
    let points = series.bins.iter().map(|bin| (bin.end as f64, bin.sizes.holes as f64)).collect();
    let holes = [Curve { name: "free segments below top".into(), colour: BLACK, width: 2, points }];
    let mut over_time = String::new();
    {
        let root = SVGBackend::with_string(&mut over_time, (WIDE, 2 * PANEL)).into_drawing_area();
        root.fill(&WHITE)?;
        let (upper, lower) = root.split_vertically(PANEL);
        panel(
            &upper,
            &format!("Hops of a search over time, logarithmic: {name}"),
            Scale::Logarithms,
            series.calls(),
            &curves,
        )?;
        panel(&lower, "Holes over time", Scale::Counts, series.calls(), &holes)?;
        root.present()?;
    }
    let histograms: Vec<_> = stats.iter().map(|(list, stats)| (*list, &stats.hops)).collect();
    let mut histogram = String::new();
    smalloc::write_hops_svg(&mut histogram, &histograms)?;
    Ok(stacked(&over_time, &histogram))
}

/// One picture below another.
fn stacked(upper: &str, lower: &str) -> String {
    let (size, below) = (size_of_svg(upper), size_of_svg(lower));
    let (width, height) = (size.0.max(below.0), size.1 + below.1);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{upper}\n\
         <g transform=\"translate(0 {})\">\n{lower}</g>\n</svg>\n",
        size.1
    )
}

/// Width and height, taken from the first element.
fn size_of_svg(picture: &str) -> (f64, f64) {
    let number = |name: &str| {
        let rest = picture.split_once(&format!(" {name}=\"")).map_or("", |(_, rest)| rest);
        rest.split('"').next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
    };
    (number("width"), number("height"))
}

/// Draws one panel: title, legend, axes with a grid, and the curves.
fn panel(area: &Panel<'_>, title: &str, scale: Scale, calls: f64, curves: &[Curve]) -> Result<()> {
    let bold = TextStyle::from((FONT, 16).into_font().style(FontStyle::Bold)).color(&BLACK);
    area.draw(&Text::new(title.to_owned(), (16, 10), bold))?;
    legend(area, curves)?;
    let most = curves.iter().map(Curve::most).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin_top(HEAD)
        .margin_right(32)
        .margin_bottom(4)
        .x_label_area_size(40)
        .y_label_area_size(84)
        .build_cartesian_2d(Axis { scale: Scale::Calls, most: calls }, Axis { scale, most: most * 1.03 })?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .axis_style(GREY)
        .label_style((FONT, 13).into_font().color(&BLACK))
        .axis_desc_style((FONT, 13).into_font().color(&GREY))
        .x_desc("calls")
        .draw()?;
    for curve in curves {
        let points = curve.points.iter().copied();
        chart.draw_series(LineSeries::new(points, curve.colour.stroke_width(curve.width)))?;
    }
    Ok(())
}

/// A sample of each line, and its name.
fn legend(area: &Panel<'_>, curves: &[Curve]) -> Result<()> {
    let mut x = 16;
    for curve in curves {
        let line = vec![(x, 42), (x + 24, 42)];
        area.draw(&PathElement::new(line, curve.colour.stroke_width(curve.width.max(2))))?;
        let style = TextStyle::from((FONT, 13).into_font()).color(&BLACK);
        area.draw(&Text::new(curve.name.clone(), (x + 30, 35), style))?;
        // Letters are not measured, since the font is not known: 8 pixels are enough for each.
        x += 54 + 7 * curve.name.chars().count() as i32;
    }
    Ok(())
}
