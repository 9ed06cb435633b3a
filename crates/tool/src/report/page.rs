//! The file: a page of HTML with its styles, its scripts and the numbers in it.

use std::fmt::Write;

use anyhow::Result;
use serde_json::{Value, json};
use smalloc_terminal::Count;

use super::columns::{columns, residue};
use super::{Finding, Report};
use crate::replay::{Kind, RESIDUE_COLUMNS, Tally};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
/// The scripts, in the order of their dependencies.
const SCRIPTS: [&str; 9] = [
    include_str!("page/numbers.js"),
    include_str!("page/blocks.js"),
    include_str!("page/view.js"),
    include_str!("page/paint.js"),
    include_str!("page/charts.js"),
    include_str!("page/moment.js"),
    include_str!("page/table.js"),
    include_str!("page/controls.js"),
    include_str!("page/main.js"),
];

/// Puts the page together.
pub(super) fn page(report: &mut Report<'_>) -> Result<Vec<u8>> {
    let mut data = String::new();
    for column in columns(&mut report.lives)?.into_iter().chain([residue(&report.lives.residue)?]) {
        let (name, base64) = (column.name, column.base64);
        writeln!(data, "<script type=\"text/plain\" id=\"column-{name}\">{base64}</script>")?;
    }
    // A script ends at "</script", and an escape keeps that out of names.
    let facts = facts(report).to_string().replace('<', "\\u003c");
    writeln!(data, "<script type=\"application/json\" id=\"facts\">{facts}</script>")?;
    let findings: String = report.findings.iter().map(finding).collect();
    let scripts = SCRIPTS.concat();
    let mut page = Vec::with_capacity(data.len() + PAGE.len() + STYLE.len() + scripts.len() + findings.len());
    let mut rest = PAGE;
    while let Some((before, after)) = rest.split_once("<!--") {
        let (name, after) = after.split_once("-->").unwrap_or((after, ""));
        page.extend_from_slice(before.as_bytes());
        page.extend_from_slice(
            match name {
                "title" => escaped(&report.name),
                "summary" => summary(report),
                "findings" => findings.clone(),
                "style" => STYLE.to_owned(),
                "data" => std::mem::take(&mut data),
                "scripts" => scripts.clone(),
                comment => format!("<!--{comment}-->"),
            }
            .as_bytes(),
        );
        rest = after;
    }
    page.extend_from_slice(rest.as_bytes());
    Ok(page)
}

fn summary(report: &Report<'_>) -> String {
    let (calls, lists) = (Count(report.replay.calls()), report.replay.stats());
    let lists: Vec<&str> = lists.iter().map(|(list, _)| *list).collect();
    format!("{calls} calls of {}, replayed with the list {}.", report.format, lists.join(" and the list "))
}

/// A finding as an item of a list. The script adds a button to those that can be shown.
fn finding(finding: &Finding) -> String {
    let mut item = String::from("<li");
    let (low, high) = finding.offsets.unzip();
    let group = finding.group.map(|group| group as u64);
    let places = [("call", finding.call.map(u64::from)), ("low", low), ("high", high), ("group", group)];
    for (name, number) in places {
        number.iter().for_each(|number| item += &format!(" data-{name}=\"{number}\""));
    }
    item + ">" + &escaped(&finding.text) + "</li>\n"
}

/// Text for HTML.
fn escaped(text: &str) -> String {
    let escape = |letter: char| match letter {
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '&' => "&amp;".to_owned(),
        '"' => "&quot;".to_owned(),
        letter => letter.to_string(),
    };
    text.chars().map(escape).collect()
}

/// All numbers but those of the single blocks.
fn facts(report: &Report<'_>) -> Value {
    let series = &report.replay.series;
    let bins = &series.bins;
    let stats = report.replay.stats();
    let lists: Vec<Value> = stats
        .iter()
        .enumerate()
        .map(|(list, (name, stats))| {
            let searches = bins.iter().map(|bin| bin.searches[list]);
            let means: Vec<Option<f64>> = searches.clone().map(|them| them.mean().map(round)).collect();
            let most: Vec<usize> = searches.map(|them| them.most).collect();
            json!({ "name": name, "mean": means, "most": most, "hops": stats.hops.mean() })
        })
        .collect();
    let of_bins = |number: fn(&crate::replay::Bin) -> u64| bins.iter().map(number).collect::<Vec<_>>();
    json!({
        "calls": report.replay.calls(),
        "blocks": report.lives.all.len(),
        "kind": kind_name(report.kind),
        "threads": report.lives.threads,
        "sites": sites(report),
        "residue": {
            "columns": RESIDUE_COLUMNS,
            "calls": report.lives.residue.calls_per_column,
            "granules": report.lives.residue.granules_per_row,
            "dropped": report.lives.residue.dropped(),
        },
        "bins": {
            "end": of_bins(|bin| bin.end),
            "live": of_bins(|bin| bin.sizes.live as u64),
            "used": of_bins(|bin| bin.sizes.used as u64),
            "top": of_bins(|bin| bin.sizes.top as u64),
            "footprint": of_bins(|bin| bin.sizes.footprint as u64),
            "holes": of_bins(|bin| bin.sizes.holes as u64),
        },
        "lists": lists,
        "groups": {
            "site": groups(report, Kind::Site),
            "stack": groups(report, Kind::Stack),
            "size": groups(report, Kind::Size),
            "thread": groups(report, Kind::Thread),
        },
    })
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Site => "site",
        Kind::Stack => "stack",
        Kind::Size => "size",
        Kind::Thread => "thread",
    }
}

/// Three digits behind the point are enough for hops.
fn round(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

/// The groups that have blocks: number, name, and sums.
fn groups(report: &Report<'_>, kind: Kind) -> Value {
    let used = report.lives.tallies.of(kind).iter().enumerate().filter(|(_, tally)| tally.blocks > 0);
    let row = |(group, tally): (usize, &Tally)| {
        let ended = tally.blocks - tally.live_blocks;
        json!({
            "group": group,
            "name": report.group_name(kind, group),
            "blocks": tally.blocks,
            "bytes": tally.bytes,
            "peak": tally.peak_bytes,
            "peakCall": tally.peak_call,
            "calls": (ended > 0).then(|| tally.calls as f64 / ended as f64),
            "hops": round(tally.hops as f64 / tally.blocks as f64),
        })
    };
    used.map(row).collect()
}

/// The stacks that have blocks, each with its site and its frames, and the names of all frames. Null if the trace has
/// none.
fn sites(report: &Report<'_>) -> Value {
    let Some(sites) = &report.sites else { return Value::Null };
    let used = report.lives.tallies.of(Kind::Stack).iter().enumerate().filter(|(_, it)| it.blocks > 0);
    let stacks = used.map(|(stack, _)| {
        let stack = stack as u32;
        (stack.to_string(), json!({ "site": sites.site_of(stack), "frames": sites.stack(stack) }))
    });
    json!({ "frames": sites.frames, "stacks": stacks.collect::<serde_json::Map<_, _>>() })
}
