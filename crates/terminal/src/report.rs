//! A heap as text: its numbers, its hops as bars, its map.

use std::env;
use std::fmt;
use std::io::{self, IsTerminal};

use smalloc::{Color, HopHistogram, MapOptions, Snapshot, Stats};

use crate::Count;

/// The longest bar, in characters.
const BAR_WIDTH: usize = 40;

/// Shows a heap's numbers, and its hops as a [`HopChart`].
pub struct Report<'a>(pub &'a Stats);

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.0)?;
        HopChart(&self.0.hops).fmt(f)
    }
}

/// Shows a histogram of hops as bars: one for 0 hops, and one for each power of two above.
///
/// ```
/// use smalloc::{Heap, Indexed};
///
/// let mut heap = Heap::<Indexed>::with_region_size(1 << 20)?;
/// heap.smalloc(std::alloc::Layout::new::<u64>());
/// let chart = smalloc_terminal::HopChart(&heap.stats().hops).to_string();
/// assert!(chart.contains("0               1  100.0 %  ####"), "{chart}");
/// # Ok::<(), smalloc::InitError>(())
/// ```
pub struct HopChart<'a>(pub &'a HopHistogram);

impl fmt::Display for HopChart<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<(usize, usize, u64)> = Vec::new();
        for (low, high, count) in self.0 {
            match rows.last_mut() {
                Some(last) if last.0 > 0 && last.0.ilog2() == low.ilog2() => {
                    (last.1, last.2) = (high, last.2 + count);
                }
                _ => rows.push((low, high, count)),
            }
        }
        let (all, most) = (self.0.count().max(1), rows.iter().map(|row| row.2).max().unwrap_or(0));
        writeln!(f, "{:>13}  {:>14}", "hops", "searches")?;
        for (low, high, count) in rows {
            let range = if low == high { low.to_string() } else { format!("{low} to {high}") };
            let percent = 100.0 * count as f64 / all as f64;
            let width = (BAR_WIDTH as f64 * count as f64 / most as f64).round() as usize;
            let line = format!("{range:>13}  {:>14}  {percent:5.1} %  {:#<width$}", Count(count), "");
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// The heap map as text for standard output: as wide as the terminal, and in colours where standard output is one and
/// the environment variable `NO_COLOR` is not set.
///
/// # Errors
///
/// Those of [`Snapshot::write_map_text`].
pub fn map_text(snapshot: &Snapshot) -> Result<String, fmt::Error> {
    /// Columns for the offset at the left and the label at the right.
    const BESIDE: usize = 36;
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = if io::stdout().is_terminal() && !no_color { Color::Ansi } else { Color::Plain };
    let text = MapOptions::text();
    let columns = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
    let width = columns.map_or(text.width, |columns| columns.saturating_sub(BESIDE).clamp(16, 128));
    let mut map = String::new();
    snapshot.write_map_text(&mut map, MapOptions { color, width, ..text })?;
    Ok(map)
}
