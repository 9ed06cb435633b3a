//! The area that dropped lives took in the picture of address over time: a grid of a bounded size.

use std::ops::Range;

/// Columns and rows of the grid. Cells are joined in pairs if more would be needed.
pub(crate) const COLUMNS: usize = 1024;
const ROWS: usize = 256;

/// The grid.
#[derive(Default)]
pub(crate) struct Residue {
    /// Granules times calls in each cell, row by row from offset 0 on; empty as long as nothing was dropped.
    pub(crate) cells: Vec<f32>,
    pub(crate) calls_per_column: u64,
    pub(crate) granules_per_row: u64,
    dropped: u64,
}

impl Residue {
    /// The number of lives dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The area of all of them, in granules times calls.
    #[cfg(test)]
    pub(crate) fn sum(&self) -> f64 {
        self.cells.iter().copied().map(f64::from).sum()
    }

    /// Adds the life of a block that was in use after these calls, on these granules.
    pub(crate) fn add(&mut self, calls: Range<u64>, granules: Range<u64>) {
        if self.cells.is_empty() {
            *self = Self {
                cells: vec![0.0; COLUMNS * ROWS],
                calls_per_column: 1,
                granules_per_row: 1,
                dropped: 0,
            };
        }
        self.dropped += 1;
        while calls.end > self.calls_per_column * COLUMNS as u64 {
            self.join_columns();
        }
        while granules.end > self.granules_per_row * ROWS as u64 {
            self.join_rows();
        }
        for (row, high) in parts(&granules, self.granules_per_row) {
            for (column, wide) in parts(&calls, self.calls_per_column) {
                self.cells[row * COLUMNS + column] += (high * wide) as f32;
            }
        }
    }

    fn join_columns(&mut self) {
        for row in self.cells.chunks_exact_mut(COLUMNS) {
            (0..COLUMNS / 2).for_each(|column| row[column] = row[2 * column] + row[2 * column + 1]);
            row[COLUMNS / 2..].fill(0.0);
        }
        self.calls_per_column *= 2;
    }

    fn join_rows(&mut self) {
        for row in 0..ROWS / 2 {
            for column in 0..COLUMNS {
                let lower = 2 * row * COLUMNS + column;
                self.cells[row * COLUMNS + column] = self.cells[lower] + self.cells[lower + COLUMNS];
            }
        }
        self.cells[ROWS / 2 * COLUMNS..].fill(0.0);
        self.granules_per_row *= 2;
    }
}

/// The cells of an axis that a range touches, and the part of the range in each.
fn parts(range: &Range<u64>, cell: u64) -> impl Iterator<Item = (usize, u64)> + use<> {
    let (from, to) = (range.start, range.end);
    let cells = from / cell..to.div_ceil(cell);
    cells.map(move |index| (index as usize, to.min((index + 1) * cell) - from.max(index * cell)))
}
