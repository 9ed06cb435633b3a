//! Horizontal bar charts of the sizes of free segments and of the hops of searches.
//!
//! Both count in classes that double, one line per class. The number is written beside the bar, so that it can be read
//! even if the bar is too short to see.

use core::fmt::{self, Write};

use super::histogram::HopHistogram;
use super::human::{Bytes, Count, Percent, Text};
use super::number::{float, floor_log2, share, wide};
use super::picture::{self, INK, PALE_INK, Rect};
use super::snapshot::Snapshot;

/// The number of classes: one for zero and one for each power of two.
const CLASSES: usize = 65;
type Classes = [u64; CLASSES];

const BAR: &str = "#3272ab";
/// Pixels left of the bars, for the labels of the classes.
const LEFT: f64 = 132.0;
/// Pixels of the longest bar.
const LONGEST: f64 = 260.0;
/// Pixels from one panel's bars to the next panel's.
const PANEL: f64 = 440.0;
/// Pixels above the first bar and below the last one.
const HEAD: f64 = 64.0;
const FOOT: f64 = 16.0;
/// Pixels from one bar to the next, and the thickness of a bar.
const PITCH: f64 = 18.0;
const THICK: f64 = 12.0;

/// The class of a number: 0, 1, 2 to 3, 4 to 7 and so on.
fn class_of(n: usize) -> usize {
    if n == 0 { 0 } else { floor_log2(n) + 1 }
}

/// The lowest and the highest number of a class.
fn bounds_of(class: usize) -> (u64, u64) {
    match class.checked_sub(1) {
        None => (0, 0),
        Some(power) => {
            let low = 1u64.wrapping_shl(u32::try_from(power).unwrap_or(0));
            (low, low | (low - 1))
        }
    }
}

fn add(classes: &mut Classes, class: usize, n: u64) {
    if let Some(sum) = classes.get_mut(class) {
        *sum = sum.saturating_add(n);
    }
}

/// Text with the special characters of SVG escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '&' => f.write_str("&amp;"),
            // Characters that XML does not allow.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => f.write_char(' '),
            c => f.write_char(c),
        })
    }
}

impl Snapshot {
    /// Writes an SVG picture of the holes' sizes: the number of holes of each size, and their bytes.
    ///
    /// Sizes are in classes that double. The wilderness is not included.
    ///
    /// # Errors
    /// Any error of `out`.
    ///
    /// ```
    /// let heap = smalloc::Heap::<smalloc::Indexed>::with_region_size(1 << 20)?;
    /// let mut picture = String::new();
    /// heap.snapshot()?.write_holes_svg(&mut picture)?;
    /// assert!(picture.starts_with("<svg"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_holes_svg(&self, out: &mut (impl Write + ?Sized)) -> fmt::Result {
        let mut panels: [Classes; 2] = [[0; CLASSES]; 2];
        let [count, bytes] = &mut panels;
        for hole in self.holes() {
            add(count, class_of(hole.size), 1);
            add(bytes, class_of(hole.size), wide(hole.size));
        }
        let (holes, size) = (Count::of(self.stats().holes()), Bytes::of(self.stats().hole_bytes));
        let range = used_classes(&panels);
        begin(&range, 2, "sizes of the holes", out)?;
        picture::title(LEFT, 24.0, format_args!("Holes: {holes} with {size} below top"), out)?;
        labels(&range, class_of_sizes, out)?;
        let [count, bytes] = &panels;
        bars(
            0.0,
            format_args!("number of holes, by size (upper bound excluded)"),
            &range,
            count,
            |n| Text::new(format_args!("{}", Count(n))),
            out,
        )?;
        bars(
            PANEL,
            format_args!("bytes in them"),
            &range,
            bytes,
            |n| Text::new(format_args!("{}", Bytes(n))),
            out,
        )?;
        picture::end(out)
    }
}

/// Writes an SVG picture of the hops: how many searches took how many. Each histogram gets a panel with its name.
///
/// Hops are in classes that double: 0, 1, 2 to 3, 4 to 7 and so on.
///
/// # Errors
/// Any error of `out`.
///
/// ```
/// let heap = smalloc::Heap::<smalloc::Linked>::with_region_size(1 << 20)?;
/// let mut picture = String::new();
/// smalloc::write_hops_svg(&mut picture, &[("linked", &heap.stats().hops)])?;
/// assert!(picture.contains("linked"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn write_hops_svg(out: &mut (impl Write + ?Sized), histograms: &[(&str, &HopHistogram)]) -> fmt::Result {
    let classes = |histogram: &HopHistogram| {
        let mut classes = [0; CLASSES];
        histogram.iter().for_each(|(low, _, count)| add(&mut classes, class_of(low), count));
        classes
    };
    let highest = histograms.iter().map(|(_, histogram)| class_of(histogram.max())).max();
    let range = 0..highest.unwrap_or(0) + 1;
    begin(&range, histograms.len(), "hops of searches", out)?;
    picture::title(LEFT, 24.0, format_args!("Hops: how many searches took how many"), out)?;
    labels(&range, class_of_hops, out)?;
    let mut x = 0.0;
    for (name, histogram) in histograms {
        let all = histogram.count();
        // Omit a share that rounds to nothing.
        let text = |n: u64| match share(n, all) {
            share if share < 0.0005 => Text::new(format_args!("{}", Count(n))),
            share => Text::new(format_args!("{} ({})", Count(n), Percent(share))),
        };
        let title = format_args!("{}: {histogram}", Escaped(name));
        bars(x, title, &range, &classes(histogram), text, out)?;
        x += PANEL;
    }
    picture::end(out)
}

/// The classes from the first to the last that is not empty in some panel.
fn used_classes(panels: &[Classes]) -> core::ops::Range<usize> {
    let in_use = |class: &usize| panels.iter().any(|panel| panel.get(*class).is_some_and(|&n| n > 0));
    let first = (0..CLASSES).find(in_use).unwrap_or(0);
    let last = (0..CLASSES).rfind(in_use).unwrap_or(0);
    first..last + 1
}

fn class_of_sizes(class: usize) -> Text<48> {
    let (low, high) = bounds_of(class);
    match high.checked_add(1) {
        Some(end) => Text::new(format_args!("{} to {}", Bytes(low), Bytes(end))),
        None => Text::new(format_args!("{} and more", Bytes(low))),
    }
}

fn class_of_hops(class: usize) -> Text<48> {
    let (low, high) = bounds_of(class);
    if low == high {
        Text::new(format_args!("{low}"))
    } else {
        Text::new(format_args!("{} to {}", Count(low), Count(high)))
    }
}

fn begin(
    range: &core::ops::Range<usize>,
    panels: usize,
    name: &str,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let width = LEFT + PANEL * float(wide(panels.max(1)));
    picture::begin(width, HEAD + FOOT + PITCH * float(wide(range.len())), name, out)
}

/// Writes the labels of the classes, at the left.
fn labels(
    range: &core::ops::Range<usize>,
    label: impl Fn(usize) -> Text<48>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let mut y = HEAD;
    for class in range.clone() {
        let text = label(class);
        picture::text(LEFT - 8.0, y + THICK - 2.0, "end", INK, format_args!("{}", text.as_str()), out)?;
        y += PITCH;
    }
    Ok(())
}

/// Writes a panel: its title, and a bar with its number for every class.
fn bars(
    x: f64,
    title: fmt::Arguments<'_>,
    range: &core::ops::Range<usize>,
    classes: &Classes,
    number: impl Fn(u64) -> Text<48>,
    out: &mut (impl Write + ?Sized),
) -> fmt::Result {
    let x = x + LEFT;
    picture::text(x, HEAD - 12.0, "start", PALE_INK, title, out)?;
    let longest = classes.iter().copied().max().unwrap_or(0);
    let mut y = HEAD;
    for &n in classes.iter().skip(range.start).take(range.len()) {
        // A count above 0 gets a visible bar.
        let width = if n == 0 { 0.0 } else { (LONGEST * share(n, longest)).max(1.0) };
        if n > 0 {
            Rect { x, y, width, height: THICK, fill: BAR }.write(out)?;
            let text = number(n);
            let label = format_args!("{}", text.as_str());
            picture::text(x + width + 6.0, y + THICK - 2.0, "start", INK, label, out)?;
        }
        y += PITCH;
    }
    Rect { x: x - 1.0, y: HEAD - 3.0, width: 1.0, height: y - HEAD, fill: PALE_INK }.write(out)
}

#[cfg(test)]
#[path = "../../tests/unit/inspect/charts.rs"]
mod tests;
