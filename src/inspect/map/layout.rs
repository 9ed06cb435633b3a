//! The layout of a heap map: the bytes of each row and the content of each cell.

use core::iter::Peekable;

use super::options::MapOptions;
use crate::inspect::snapshot::{Segment, Segments, Snapshot};

/// The largest number of cells per row.
const MAX_WIDTH: usize = 256;
/// The smallest number of cells per row.
const MIN_WIDTH: usize = 8;
/// The smallest limit on the number of rows.
const MIN_ROWS: usize = 4;
/// Bytes of a granule, the smallest cell.
const GRANULE: usize = 16;
/// The least number of equal rows that are folded into one line.
const FOLD: usize = 3;

/// The scale of a map.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Bytes per cell.
    pub(super) cell: usize,
    /// Cells per row.
    pub(super) width: usize,
    /// The first offset shown.
    from: usize,
    /// The offset behind the last one shown.
    to: usize,
    /// The largest hole, which is marked.
    pub(super) largest: Option<Segment>,
}

impl Layout {
    /// The scale for these options. If they set no cell size, the smallest cell that keeps to their number of rows.
    pub(super) fn new(snapshot: &Snapshot, options: &MapOptions) -> Self {
        let region_size = snapshot.stats().region_size;
        let to = options.to.min(region_size);
        let from = if options.from < to { options.from / GRANULE * GRANULE } else { to };
        let width = options.width.clamp(MIN_WIDTH, MAX_WIDTH);
        let mut layout = Self { cell: GRANULE, width, from, to, largest: snapshot.largest_hole() };
        if let Some(cell) = options.cell_bytes {
            // A cell larger than the region is useless, and could overflow a row.
            layout.cell = cell.clamp(GRANULE, region_size.max(GRANULE)).next_multiple_of(GRANULE);
            return layout;
        }
        let max_rows = options.max_rows.max(MIN_ROWS);
        while layout.row() < to - from
            && layout.lines(snapshot).take(max_rows.saturating_add(1)).count() > max_rows
        {
            layout.cell *= 2;
        }
        layout
    }

    /// Bytes per row.
    pub(super) const fn row(&self) -> usize {
        self.cell * self.width
    }

    /// The lines of the map in address order.
    pub(super) fn lines<'a>(&self, snapshot: &'a Snapshot) -> Lines<'a> {
        let runs = Runs { segments: snapshot.segments_from(self.from).peekable(), top: snapshot.stats().top };
        Lines { layout: *self, runs: runs.peekable(), offset: self.from }
    }

    /// The cells of the row that begins at `offset`.
    pub(super) fn cells(&self, snapshot: &Snapshot, offset: usize) -> Cells {
        let end = offset.saturating_add(self.row()).min(self.to);
        let mut cells =
            Cells { cells: [Cell::default(); MAX_WIDTH], len: (end - offset).div_ceil(self.cell) };
        for (i, cell) in cells.cells.iter_mut().take(cells.len).enumerate() {
            cell.offset = offset + i * self.cell;
            cell.size = self.cell.min(end - cell.offset);
            cell.above_top = cell.offset >= snapshot.stats().top;
            cell.marked = self.largest.is_some_and(|hole| marks(hole, cell, self.cell));
        }
        for segment in snapshot.segments_from(offset).take_while(|segment| segment.offset < end) {
            if segment.in_use {
                let (low, high) = (segment.offset.max(offset) - offset, segment.end().min(end) - offset);
                cells.add_used(low, high, self.cell);
            }
        }
        cells
    }

    /// The largest hole, if it begins in this line, which then carries its label.
    pub(super) fn label(&self, line: &Line) -> Option<Segment> {
        self.largest.filter(|hole| hole.offset >= line.offset && hole.offset - line.offset < line.size)
    }

    /// Whether the line begins in the largest hole.
    pub(super) fn begins_in_largest(&self, line: &Line) -> bool {
        self.largest.is_some_and(|hole| hole.offset <= line.offset && line.offset < hole.end())
    }
}

/// Whether a cell shows the largest hole: all cells within the hole do, or if there are none, the cell where it begins.
fn marks(hole: Segment, cell: &Cell, cell_bytes: usize) -> bool {
    let within = hole.offset <= cell.offset && cell.offset + cell.size <= hole.end();
    let begins = hole.offset >= cell.offset && hole.offset < cell.offset + cell.size;
    // The next cell begins at this one's end.
    let holds_none = hole.end() < (cell.offset + cell.size).saturating_add(cell_bytes);
    within || (begins && holds_none)
}

/// A cell: a run of bytes.
#[derive(Clone, Copy, Default)]
pub(super) struct Cell {
    pub(super) offset: usize,
    pub(super) size: usize,
    pub(super) used: usize,
    /// The cell lies wholly in the wilderness.
    pub(super) above_top: bool,
    /// The cell shows the largest hole.
    pub(super) marked: bool,
}

impl Cell {
    /// The share in use as one of `levels` steps: first for nothing, last for all, and equal widths between.
    pub(super) const fn level(&self, levels: usize) -> usize {
        if self.used == 0 {
            0
        } else if self.used >= self.size {
            levels - 1
        } else {
            1 + self.used * (levels - 2) / self.size
        }
    }
}

pub(super) struct Cells {
    cells: [Cell; MAX_WIDTH],
    len: usize,
}

impl Cells {
    pub(super) fn as_slice(&self) -> &[Cell] {
        self.cells.get(..self.len).unwrap_or_default()
    }

    /// Counts the bytes from `low` to `high` of the row as in use.
    fn add_used(&mut self, low: usize, high: usize, cell_bytes: usize) {
        let first = low / cell_bytes;
        let count = high.div_ceil(cell_bytes) - first;
        for (i, cell) in self.cells.iter_mut().enumerate().skip(first).take(count) {
            let start = i * cell_bytes;
            cell.used += high.min(start + cell_bytes) - low.max(start);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Used,
    Hole,
    Wilderness,
}

/// One line of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) offset: usize,
    pub(super) size: usize,
    /// The state of all its bytes, if these are several rows folded into one.
    pub(super) folded: Option<State>,
}

/// The lines of a map; see [`Layout::lines`].
pub(super) struct Lines<'a> {
    layout: Layout,
    runs: Peekable<Runs<'a>>,
    offset: usize,
}

impl Iterator for Lines<'_> {
    type Item = Line;

    fn next(&mut self) -> Option<Line> {
        let (offset, row) = (self.offset, self.layout.row());
        let left = self.layout.to.checked_sub(offset).filter(|&left| left > 0)?;
        while self.runs.next_if(|run| run.end <= offset).is_some() {}
        let mut line = Line { offset, size: row.min(left), folded: None };
        // A heap that was never used has no segments: all of it is wilderness.
        let untouched = Run { end: self.layout.to, state: State::Wilderness };
        let run = self.runs.peek().copied().unwrap_or(untouched);
        // The last row may be partial, and counts as a whole one.
        let covered = if run.end >= self.layout.to { left } else { (run.end - offset) / row * row };
        if covered.div_ceil(row) >= FOLD {
            line.size = covered;
            line.folded = Some(run.state);
        }
        self.offset = offset + line.size;
        Some(line)
    }
}

/// Neighbouring segments of one state.
#[derive(Clone, Copy)]
struct Run {
    end: usize,
    state: State,
}

struct Runs<'a> {
    segments: Peekable<Segments<'a>>,
    top: usize,
}

impl Runs<'_> {
    fn state(segment: &Segment, top: usize) -> State {
        match (segment.in_use, segment.offset >= top) {
            (true, _) => State::Used,
            (false, false) => State::Hole,
            (false, true) => State::Wilderness,
        }
    }
}

impl Iterator for Runs<'_> {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let top = self.top;
        let first = self.segments.next()?;
        let state = Self::state(&first, top);
        let mut run = Run { end: first.end(), state };
        while let Some(more) = self.segments.next_if(|segment| Self::state(segment, top) == state) {
            run.end = more.end();
        }
        Some(run)
    }
}
