//! The file of DHAT's viewer, `dh_view.html`, in version 2: sums for each program point, which is a call stack.
//!
//! The viewer does not check the numbers of frames, and refuses two program points of the same frames.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use super::{Frames, Replayed};
use crate::replay::{ALIVE, Kind};

/// Lives of fewer calls are called short.
const SHORT: u64 = 10;

/// The file. The names are the viewer's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    dhat_file_version: u32,
    mode: &'static str,
    verb: &'static str,
    /// Whether there are lifetimes, and accesses.
    bklt: bool,
    bkacc: bool,
    /// The unit of time, a million of it, and the limit of short lives.
    tu: &'static str,
    #[serde(rename = "Mtu")]
    mtu: &'static str,
    tuth: u64,
    cmd: &'a str,
    pid: u32,
    /// The time of the peak, and the end.
    tg: u64,
    te: u64,
    pps: Vec<Point>,
    ftbl: Vec<String>,
}

/// A program point.
#[derive(Serialize)]
struct Point {
    /// All bytes and blocks, and the sum of the blocks' lives.
    tb: u64,
    tbk: u64,
    tl: u64,
    /// When the point had the most bytes.
    mb: u64,
    mbk: u64,
    /// When the program had the most bytes.
    gb: u64,
    gbk: u64,
    /// At the end.
    eb: u64,
    ebk: u64,
    /// Frames, the innermost first.
    fs: Vec<usize>,
}

/// Writes the file.
pub(super) fn write(of: &Replayed<'_>, out: &mut dyn Write) -> Result<()> {
    let (tallies, calls) = (&of.lives.tallies, of.replay.calls());
    let mut unended = vec![0; tallies.of(of.kind()).len()];
    for life in of.lives.all.iter().filter(|life| life.death == ALIVE) {
        unended[of.kind().group(life)] += of.kind().weight(life) * (calls - u64::from(life.birth));
    }
    let mut frames = Frames::new(of);
    // The viewer keeps the first name for the sum of all.
    frames.number("[root]".to_owned());
    let points = of.groups().map(|(group, tally)| {
        let peak = tally.at_peak(tallies.peaks);
        Point {
            tb: tally.bytes,
            tbk: tally.blocks,
            tl: tally.calls + unended[group],
            mb: tally.peak_bytes,
            mbk: tally.peak_blocks,
            gb: peak.bytes,
            gbk: peak.blocks,
            eb: tally.live_bytes,
            ebk: tally.live_blocks,
            fs: frames.of_group(group),
        }
    });
    let pps = points.collect();
    let file = File {
        dhat_file_version: 2,
        mode: if of.kind() == Kind::Stack { "heap" } else { "heap, by size" },
        verb: "Allocated",
        bklt: true,
        bkacc: false,
        tu: "calls",
        mtu: "Mcall",
        tuth: SHORT,
        cmd: of.name,
        pid: 0,
        tg: of.replay.peak_live().1,
        te: calls,
        pps,
        ftbl: frames.names,
    };
    Ok(serde_json::to_writer(out, &file)?)
}
