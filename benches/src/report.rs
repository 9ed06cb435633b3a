//! Interleaved rounds, medians, tables and CSV.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::allocators::{self, Visitor};

/// The result of one round of one allocator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sample {
    /// A complete measurement.
    Full(f64),
    /// The time limit ended it early; the value is that of the calls made until then.
    Cut(f64),
    /// Nothing could be measured, for example because the region was too small.
    Missing,
}

impl Sample {
    fn value(self) -> f64 {
        match self {
            Self::Full(value) | Self::Cut(value) => value,
            Self::Missing => f64::NAN,
        }
    }
}

impl Sample {
    /// This value as a multiple of another.
    pub fn over(self, first: Self) -> Self {
        match (self, first) {
            (Self::Full(value), Self::Full(first)) => Self::Full(value / first),
            (Self::Missing, _) | (_, Self::Missing) => Self::Missing,
            _ => Self::Cut(self.value() / first.value()),
        }
    }
}

/// One allocator's part in a case: every call makes one round and returns its measurement.
pub type Session<'a, T = Sample> = Box<dyn FnMut() -> T + 'a>;

/// Runs `rounds` rounds, in each of them every session once, beginning with another one each time: a disturbance of the
/// machine then affects all of them. The result is by session, then by round.
pub fn interleave<T>(sessions: &mut [Session<'_, T>], rounds: usize) -> Vec<Vec<T>> {
    let count = sessions.len();
    let mut results: Vec<Vec<T>> = (0..count).map(|_| Vec::with_capacity(rounds)).collect();
    for round in 0..rounds {
        for turn in 0..count {
            let index = (round + turn) % count;
            results[index].push(sessions[index]());
        }
    }
    results
}

/// Runs `rounds` rounds of `visitor` with each of `names`. A session that once ran into the time limit or failed is not
/// run again.
pub fn compare<V: Visitor<Output = Sample>>(names: &[&str], rounds: usize, visitor: &V) -> Vec<Vec<Sample>> {
    let mut sessions: Vec<Session<'_>> = Vec::new();
    for name in names {
        let mut last = None;
        sessions.push(Box::new(move || {
            if !matches!(last, Some(Sample::Cut(_) | Sample::Missing)) {
                last = Some(allocators::visit(name, visitor));
            }
            last.unwrap_or(Sample::Missing)
        }));
    }
    interleave(&mut sessions, rounds)
}

/// The middle value, or NaN if there is none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// One line of a table.
#[derive(Debug)]
struct Case {
    name: String,
    /// By allocator, then by round.
    samples: Vec<Vec<Sample>>,
}

impl Case {
    fn values(&self, allocator: usize) -> Vec<f64> {
        self.samples[allocator].iter().map(|sample| sample.value()).collect()
    }

    fn median(&self, allocator: usize) -> f64 {
        median(&self.values(allocator))
    }

    /// The median over the rounds of this allocator's value by the base's in the same round.
    fn ratio(&self, allocator: usize, base: usize) -> f64 {
        let base = self.values(base);
        let ratios: Vec<f64> =
            self.values(allocator).iter().zip(&base).map(|(value, base)| value / base).collect();
        median(&ratios)
    }

    fn mark(&self, allocator: usize) -> &'static str {
        let cut = self.samples[allocator].iter().any(|sample| matches!(sample, Sample::Cut(_)));
        if cut { "*" } else { "" }
    }
}

/// A table of cases by allocators.
#[derive(Debug)]
pub struct Comparison {
    title: &'static str,
    unit: &'static str,
    allocators: Vec<&'static str>,
    base: usize,
    decimals: usize,
    cases: Vec<Case>,
}

impl Comparison {
    /// An empty table. `title` is also the name of the CSV file; `base` is the allocator the
    /// others are divided by.
    pub fn new(title: &'static str, unit: &'static str, allocators: &[&'static str], base: &str) -> Self {
        let base = allocators.iter().position(|name| *name == base).unwrap_or(0);
        Self { title, unit, allocators: allocators.to_vec(), base, decimals: 1, cases: Vec::new() }
    }

    /// Sets how many decimals the absolute numbers have.
    #[must_use]
    pub fn with_decimals(mut self, decimals: usize) -> Self {
        self.decimals = decimals;
        self
    }

    /// Adds a line; `samples` by allocator, then by round.
    pub fn push(&mut self, name: impl Into<String>, samples: Vec<Vec<Sample>>) {
        assert_eq!(samples.len(), self.allocators.len(), "one list of samples an allocator");
        let name = name.into();
        eprintln!("{}: {name}: done", self.title);
        self.cases.push(Case { name, samples });
    }

    /// The same cases as multiples of the first one, by allocator and round.
    #[must_use]
    pub fn over_first(&self, title: &'static str, unit: &'static str) -> Self {
        let mut scaled =
            Self { title, unit, allocators: self.allocators.clone(), cases: Vec::new(), ..*self };
        for case in &self.cases {
            let samples = case.samples.iter().zip(&self.cases[0].samples);
            let scale = |(samples, first): (&Vec<Sample>, &Vec<Sample>)| {
                samples.iter().zip(first).map(|(sample, first)| sample.over(*first)).collect()
            };
            scaled.cases.push(Case { name: case.name.clone(), samples: samples.map(scale).collect() });
        }
        scaled
    }

    /// The geometric mean over the cases of an allocator's ratio to the base.
    fn mean_ratio(&self, allocator: usize) -> f64 {
        let logs: Vec<f64> = self
            .cases
            .iter()
            .map(|case| case.ratio(allocator, self.base).ln())
            .filter(|log| log.is_finite())
            .collect();
        if logs.is_empty() { f64::NAN } else { (logs.iter().sum::<f64>() / logs.len() as f64).exp() }
    }

    fn line(&self, name: &str, cell: impl Fn(usize) -> String) {
        print!("{name:<24}");
        for allocator in 0..self.allocators.len() {
            print!(" {:>14}", cell(allocator));
        }
        println!();
    }

    /// Prints the absolute medians and the ratios.
    pub fn print(&self) {
        let base = self.allocators[self.base];
        println!("\n## {}: {}", self.title, self.unit);
        self.line("", |allocator| self.allocators[allocator].to_owned());
        for case in &self.cases {
            self.line(&case.name, |allocator| {
                number(case.median(allocator), self.decimals, case.mark(allocator))
            });
        }
        println!("as a ratio to {base}, median over the rounds");
        for case in &self.cases {
            self.line(&case.name, |allocator| {
                number(case.ratio(allocator, self.base), 2, case.mark(allocator))
            });
        }
        self.line("geometric mean", |allocator| number(self.mean_ratio(allocator), 2, ""));
        self.line(&format!("{base} / it"), |allocator| number(1.0 / self.mean_ratio(allocator), 3, ""));
        let cut = |case: &Case| (0..self.allocators.len()).any(|index| !case.mark(index).is_empty());
        if self.cases.iter().any(cut) {
            println!("* stopped at the time limit: the part that was run");
        }
    }

    /// Writes all samples to `folder`/`title`.csv.
    ///
    /// # Errors
    ///
    /// If the folder or the file cannot be written.
    pub fn save(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file = fs::File::create(folder.join(format!("{}.csv", self.title)))?;
        writeln!(file, "case,allocator,unit,median,ratio,min,max,rounds,cut")?;
        for case in &self.cases {
            for (index, allocator) in self.allocators.iter().enumerate() {
                let values = case.values(index);
                let (least, most) = values
                    .iter()
                    .fold((f64::NAN, f64::NAN), |(least, most), value| (least.min(*value), most.max(*value)));
                writeln!(
                    file,
                    "\"{}\",{allocator},\"{}\",{:.4},{:.4},{least:.4},{most:.4},{},{}",
                    case.name,
                    self.unit,
                    median(&values),
                    case.ratio(index, self.base),
                    values.len(),
                    !case.mark(index).is_empty(),
                )?;
            }
        }
        Ok(())
    }

    /// Prints the table and, if there is a folder, writes the CSV file.
    ///
    /// # Errors
    ///
    /// As for [`Comparison::save`].
    pub fn finish(&self, folder: Option<&Path>) -> io::Result<()> {
        self.print();
        folder.map_or(Ok(()), |folder| self.save(folder))
    }
}

fn number(value: f64, decimals: usize, mark: &str) -> String {
    if value.is_nan() { "-".to_owned() } else { format!("{value:.decimals$}{mark}") }
}

#[cfg(test)]
mod tests {
    use super::{Comparison, Sample, Session, interleave, median};

    #[test]
    fn the_median_leaves_out_what_is_missing() {
        assert_eq!(median(&[3.0, f64::NAN, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0]), 2.5);
        assert!(median(&[f64::NAN]).is_nan());
    }

    #[test]
    fn rounds_begin_with_another_session_each_time() {
        let order = std::cell::RefCell::new(Vec::new());
        let session = |name: char| -> Session<'_, char> {
            let order = &order;
            Box::new(move || {
                order.borrow_mut().push(name);
                name
            })
        };
        let results = interleave(&mut [session('a'), session('b')], 2);
        assert_eq!(results, [['a', 'a'], ['b', 'b']]);
        assert_eq!(*order.borrow(), ['a', 'b', 'b', 'a']);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let mut table = Comparison::new("test", "ns", &["base", "other"], "base");
        // The second round runs on a machine half as fast; the ratio of 3 stays.
        let rounds = |values: [f64; 2]| values.map(Sample::Full).to_vec();
        table.push("first", vec![rounds([10.0, 20.0]), rounds([30.0, 60.0])]);
        table.push("second", vec![rounds([10.0, 10.0]), vec![Sample::Full(120.0), Sample::Missing]]);
        assert_eq!(table.cases[0].ratio(1, 0), 3.0);
        assert!((table.mean_ratio(1) - 6.0).abs() < 1e-9);
        let scaled = table.over_first("scaled", "times");
        assert_eq!(scaled.cases[1].samples[1], [Sample::Full(4.0), Sample::Missing]);
    }
}
