//! `smalloc diff`: lists the groups of blocks that grew from one trace to another.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Error, Result, bail};
use clap::builder::ValueParser;
use clap::{ValueHint, value_parser};
use smalloc_terminal::{Bytes, Count, parse_size};

use super::progress::Progress;
use crate::input::{Input, Sites};
use crate::output::{complain, print};
use crate::replay::{Kind, Lives, Replay, Tally};
use crate::report::group_name;

const EXAMPLES: &str = "\
Blocks are compared by call site if both traces have call stacks, and otherwise by size.

Examples:
  smalloc diff before.rec after.rec
  smalloc diff old.raw.zst new.raw.zst --by size --rows 50";

/// Tell which blocks became more from one trace to another.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// A trace that `smalloc replay` reads
    #[arg(value_name = "A", value_hint = ValueHint::FilePath)]
    before: PathBuf,
    /// The trace that it is compared with
    #[arg(value_name = "B", value_hint = ValueHint::FilePath)]
    after: PathBuf,
    /// Group blocks by [default: site, or size if a trace has no call stacks]
    #[arg(long, value_name = "KIND", overrides_with = "by")]
    by: Option<Kind>,
    /// Number of groups to list
    #[arg(long, value_name = "N", overrides_with = "rows", default_value_t = 20, value_parser = value_parser!(u32).range(1..))]
    rows: u32,
    /// The size of the heaps, such as 512M or 2G [default: that of the recording, or 32G]
    #[arg(long, value_name = "SIZE", overrides_with = "region", value_parser = ValueParser::new(parse_size))]
    region: Option<usize>,
}

/// A trace that was replayed.
struct Side {
    calls: u64,
    live: Bytes,
    peak: Bytes,
    lives: Lives,
    sites: Option<Sites>,
    /// The error that ended reading it.
    unread: Option<Error>,
}

/// The blocks of one group on both sides.
#[derive(Clone, Copy, Default)]
struct Row {
    before: Sums,
    after: Sums,
}

/// Bytes and blocks of one group.
#[derive(Clone, Copy, Default)]
struct Sums {
    live: u64,
    peak: u64,
    total: u64,
    blocks: u64,
}

impl Sums {
    fn add(&mut self, tally: &Tally) {
        self.live += tally.live_bytes;
        self.peak += tally.peak_bytes;
        self.total += tally.bytes;
        self.blocks += tally.blocks;
    }
}

/// Replays both traces and prints the groups that grew most.
///
/// # Errors
///
/// If a trace cannot be read to its end. Parts of traces are compared nevertheless.
pub fn run(args: &Args) -> Result<()> {
    let (before, after) = (replay(&args.before, args.region)?, replay(&args.after, args.region)?);
    let has_sites = before.sites.is_some() && after.sites.is_some();
    let kind = match args.by {
        Some(Kind::Stack) => bail!("--by stack: stacks differ from build to build: compare by site"),
        Some(Kind::Site) if !has_sites => bail!("--by site: not both traces have call stacks"),
        Some(kind) => kind,
        None if has_sites => Kind::Site,
        None => Kind::Size,
    };
    print(table(&before, &after, kind, args.rows as usize)?)?;
    let mut unread = [before.unread, after.unread].into_iter().flatten();
    let first = unread.next();
    unread.for_each(|error| complain("diff", &error));
    first.map_or(Ok(()), Err)
}

fn replay(path: &Path, region: Option<usize>) -> Result<Side> {
    let mut input = Input::open(path)?;
    input.choose(None)?;
    input.name_sites();
    let mut replay = Replay::new(&input, &[], region, None)?;
    replay.keep_lives();
    let progress = Progress::new(input.position());
    let unread = replay.run(&mut input, |call| progress.called(call))?;
    drop(progress);
    Ok(Side {
        calls: replay.calls(),
        live: replay.live(),
        peak: replay.peak_live().0,
        lives: replay.take_lives().context("the lives of blocks were kept")?,
        sites: input.sites().cloned(),
        unread,
    })
}

/// The groups in the order of their growth at the end, and then at their peaks.
fn table(before: &Side, after: &Side, kind: Kind, most: usize) -> Result<String> {
    // Sizes are ordered as numbers. A site has a different number in each trace, so its name stands for it.
    let mut groups: BTreeMap<(usize, String), Row> = BTreeMap::new();
    for (side, is_after) in [(before, false), (after, true)] {
        for (group, tally) in side.lives.tallies.of(kind).iter().enumerate().filter(|(_, it)| it.blocks > 0) {
            let name = group_name(kind, group, side.sites.as_ref(), &side.lives.threads);
            let row = groups.entry((if kind == Kind::Size { group } else { 0 }, name)).or_default();
            if is_after { &mut row.after } else { &mut row.before }.add(tally);
        }
    }
    let mut rows: Vec<_> = groups.into_iter().map(|((_, name), row)| (name, row)).collect();
    let growth = |from: u64, to: u64| to.cast_signed() - from.cast_signed();
    let live = |row: &Row| growth(row.before.live, row.after.live);
    let peak = |row: &Row| growth(row.before.peak, row.after.peak);
    let total = |row: &Row| growth(row.before.total, row.after.total);
    rows.sort_by_key(|(_, row)| std::cmp::Reverse((live(row), peak(row), total(row))));
    let blocks = |row: &Row| growth(row.before.blocks, row.after.blocks);
    let groups = rows.len();
    rows.retain(|(_, row)| [live(row), peak(row), total(row), blocks(row)] != [0; 4]);
    let unchanged = groups - rows.len();
    let mut out = String::new();
    for (name, number) in [("A", before), ("B", after)] {
        let (calls, peak, live) = (Count(number.calls), &number.peak, &number.live);
        writeln!(out, "{name}: {calls} calls, {peak} live at most, {live} at the end")?;
    }
    writeln!(
        out,
        "\n{:>12} {:>12} {:>12} {:>12} {:>12}  group",
        "live at end", "more", "peak more", "total more", "blocks more"
    )?;
    for (name, row) in rows.iter().take(most) {
        writeln!(
            out,
            "{:>12} {:>12} {:>12} {:>12} {:>12}  {name}",
            Bytes(row.after.live as usize),
            signed(live(row), |bytes| Bytes(bytes as usize).to_string()),
            signed(peak(row), |bytes| Bytes(bytes as usize).to_string()),
            signed(total(row), |bytes| Bytes(bytes as usize).to_string()),
            signed(blocks(row), |blocks| Count(blocks).to_string()),
        )?;
    }
    if rows.len() > most {
        writeln!(out, "and {} groups that grew less (--rows shows more)", Count::from(rows.len() - most))?;
    }
    if unchanged > 0 {
        writeln!(out, "unchanged groups: {}", Count::from(unchanged))?;
    }
    Ok(out)
}

/// A change with its sign; 0 has none.
fn signed(change: i64, text: impl Fn(u64) -> String) -> String {
    let sign = match change {
        0 => "",
        1.. => "+",
        _ => "-",
    };
    format!("{sign}{}", text(change.unsigned_abs()))
}
