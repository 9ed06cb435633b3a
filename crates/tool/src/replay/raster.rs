//! Bytes in use by address and time: a column is a few calls, a row is a few bytes. Neither the number of calls nor the
//! height of the heap is known in advance, so columns and rows are joined in pairs whenever there are too many.

use super::script::Change;

/// Columns and rows are joined in pairs when there are twice as many.
const COLUMNS: usize = 600;
pub(crate) const ROWS: usize = 512;
/// Bytes of a row at first: a granule.
pub(crate) const GRANULE: usize = 16;

/// A few calls.
#[derive(Clone)]
pub(crate) struct Column {
    /// For each row, bytes in use, summed over the calls.
    pub(crate) used: Vec<u64>,
    pub(crate) top: usize,
}

/// The shares in use by address and call, while the calls are made.
#[derive(Clone)]
pub(crate) struct Raster {
    pub(crate) columns: Vec<Column>,
    pub(crate) calls_per_column: u64,
    pub(crate) bytes_per_row: usize,
    /// Bytes in use of each row now, the sum for the current column, and the call up to which it is summed.
    rows: Vec<Row>,
    pub(crate) calls: u64,
    top: usize,
}

#[derive(Clone, Copy, Default)]
struct Row {
    used: u64,
    sum: u64,
    until: u64,
}

impl Row {
    fn advance(&mut self, call: u64) {
        self.sum += self.used * (call - self.until);
        self.until = call;
    }
}

impl Raster {
    pub(crate) fn new() -> Self {
        Self {
            columns: Vec::new(),
            calls_per_column: 1,
            bytes_per_row: GRANULE,
            rows: vec![Row::default(); ROWS],
            calls: 0,
            top: 0,
        }
    }

    /// A segment came into use or went out of it, with the call that is under way.
    pub(crate) fn change(&mut self, change: Change) {
        let end = change.end();
        while end > ROWS * self.bytes_per_row {
            self.join_rows();
        }
        let mut from = change.offset;
        while from < end {
            let row = from / self.bytes_per_row;
            let to = end.min((row + 1) * self.bytes_per_row);
            let bytes = (to - from) as u64;
            let row = &mut self.rows[row];
            row.advance(self.calls);
            row.used = if change.in_use { row.used + bytes } else { row.used - bytes };
            from = to;
        }
        self.top = if change.in_use { self.top.max(end) } else { self.top };
    }

    /// A call has been made.
    pub(crate) fn tick(&mut self) {
        self.calls += 1;
        if self.calls.is_multiple_of(self.calls_per_column) {
            self.finish_column();
            if self.columns.len() >= 2 * COLUMNS {
                self.join_columns();
            }
        }
    }

    pub(crate) fn finish_column(&mut self) {
        let calls = self.calls;
        let sum = |row: &mut Row| {
            row.advance(calls);
            std::mem::take(&mut row.sum)
        };
        let used = self.rows.iter_mut().map(sum).collect();
        // The highest row that this column reached: at least the highest row that is in use at its end.
        let highest = self.rows.iter().rposition(|row| row.used > 0).map_or(0, |row| row + 1);
        let top = self.top.max(highest * self.bytes_per_row);
        self.columns.push(Column { used, top });
        self.top = 0;
    }

    fn join_columns(&mut self) {
        let mut columns = std::mem::take(&mut self.columns).into_iter();
        while let Some(mut first) = columns.next() {
            if let Some(second) = columns.next() {
                first.used.iter_mut().zip(&second.used).for_each(|(sum, more)| *sum += more);
                first.top = first.top.max(second.top);
            }
            self.columns.push(first);
        }
        self.calls_per_column *= 2;
    }

    fn join_rows(&mut self) {
        for column in &mut self.columns {
            column.used = join(&column.used, |pair| pair.iter().sum());
        }
        let calls = self.calls;
        self.rows.iter_mut().for_each(|row| row.advance(calls));
        self.rows = join(&self.rows, |pair| Row {
            used: pair.iter().map(|row| row.used).sum(),
            sum: pair.iter().map(|row| row.sum).sum(),
            until: calls,
        });
        self.bytes_per_row *= 2;
    }
}

/// Joins neighbours in pairs, and appends as many zeros.
fn join<T: Copy + Default>(all: &[T], one: impl Fn(&[T]) -> T) -> Vec<T> {
    let mut joined: Vec<T> = all.chunks(2).map(one).collect();
    joined.resize(all.len(), T::default());
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes in use over all columns and rows: joining loses none.
    fn sum(raster: &Raster) -> u64 {
        raster.columns.iter().flat_map(|column| &column.used).sum()
    }

    #[test]
    fn joining_keeps_what_was_in_use() {
        let mut raster = Raster::new();
        let mut expected = 0;
        let mut used = 0;
        for call in 0..20_001_u64 {
            let offset = (call as usize * 7919) % 100_000 * 16;
            let change = |in_use| Change { number: 0, size: 48, offset, bytes: 48, in_use };
            raster.change(change(true));
            used += 48;
            if call % 3 == 0 {
                raster.change(change(false));
                used -= 48;
            }
            raster.tick();
            expected += used;
        }
        assert_ne!(raster.calls % raster.calls_per_column, 0, "the last column is a part of one");
        raster.finish_column();
        assert_eq!(sum(&raster), expected);
        assert!(raster.columns.len() <= 2 * COLUMNS && raster.calls_per_column == 32);
        assert_eq!(raster.bytes_per_row, 4096);
    }
}
