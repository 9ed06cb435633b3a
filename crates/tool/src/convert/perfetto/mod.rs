//! A trace for Perfetto: numbers over time and the live bytes of call sites as counters, and the heap map as slices.
//!
//! On the tracks of counters a microsecond stands for a call. On the track of the map a nanosecond stands for a byte.

mod message;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;

use anyhow::Result;
use prost::Message;
use smalloc_terminal::{Bytes, Count};

use self::message::{
    BEGIN, BYTES, CLEARED, COUNT, COUNTER, CounterDescriptor, DebugAnnotation, END, INSTANT, Trace,
    TracePacket, TrackDescriptor, TrackEvent,
};
use super::{CALL, Replayed};
use crate::replay::{ALIVE, Bin, GRANULE, Kind, Life, Tally};
use crate::report::group_name;

/// Sites that get a track at most: those with the largest peaks.
const SITES: usize = 100;
/// Children of a track are in the order of their ranks.
const BY_RANK: i32 = 3;

/// A number of a bin.
enum Number {
    Bytes(fn(&Bin) -> usize),
    Count(fn(&Bin) -> f64),
}

const COUNTERS: [(&str, Number); 7] = [
    ("live: bytes that the program asked for", Number::Bytes(|bin| bin.sizes.live)),
    ("used: live bytes, rounded up", Number::Bytes(|bin| bin.sizes.used)),
    ("top: the end of the highest block", Number::Bytes(|bin| bin.sizes.top)),
    ("committed: memory of the heap, with its bookkeeping", Number::Bytes(|bin| bin.sizes.footprint)),
    ("holes: free segments below top", Number::Count(|bin| bin.sizes.holes as f64)),
    ("hops of a search, mean", Number::Count(|bin| bin.searches[0].mean().unwrap_or(0.0))),
    ("hops of a search, most", Number::Count(|bin| bin.searches[0].most as f64)),
];

/// Writes the file.
pub(super) fn write(of: &Replayed<'_>, out: &mut dyn Write) -> Result<()> {
    let mut writer = Writer { out, tracks: 0 };
    let root = writer.track(of.name, None, None)?;
    counters(of, &mut writer, root)?;
    sites(of, &mut writer, root)?;
    map(of, &mut writer, root)
}

/// Writes packets.
struct Writer<'a> {
    out: &'a mut dyn Write,
    tracks: u64,
}

impl Writer<'_> {
    fn packet(&mut self, packet: TracePacket) -> Result<()> {
        let packet = TracePacket { trusted_packet_sequence_id: Some(1), ..packet };
        Ok(self.out.write_all(&Trace { packet: vec![packet] }.encode_to_vec())?)
    }

    /// Describes a track, and returns its number. Those that have a unit are counters.
    fn track(&mut self, name: &str, parent: Option<u64>, unit: Option<i32>) -> Result<u64> {
        self.tracks += 1;
        let track = TrackDescriptor {
            uuid: Some(self.tracks),
            name: Some(name.to_owned()),
            parent_uuid: parent,
            counter: unit.map(|unit| CounterDescriptor { unit: Some(unit) }),
            child_ordering: Some(BY_RANK),
            sibling_order_rank: i32::try_from(self.tracks).ok(),
        };
        // The first packet begins the sequence.
        let sequence_flags = (self.tracks == 1).then_some(CLEARED);
        self.packet(TracePacket { track_descriptor: Some(track), sequence_flags, ..TracePacket::default() })?;
        Ok(self.tracks)
    }

    fn event(&mut self, timestamp: u64, r#type: i32, track: u64, event: TrackEvent) -> Result<()> {
        let event = TrackEvent { r#type: Some(r#type), track_uuid: Some(track), ..event };
        self.packet(TracePacket {
            timestamp: Some(timestamp),
            track_event: Some(event),
            ..TracePacket::default()
        })
    }

    fn bytes(&mut self, call: u64, track: u64, bytes: u64) -> Result<()> {
        let counter_value = Some(bytes.cast_signed());
        self.event(call * CALL, COUNTER, track, TrackEvent { counter_value, ..TrackEvent::default() })
    }

    fn count(&mut self, call: u64, track: u64, count: f64) -> Result<()> {
        let double_counter_value = Some(count);
        self.event(call * CALL, COUNTER, track, TrackEvent { double_counter_value, ..TrackEvent::default() })
    }
}

/// The numbers of the bins. A counter keeps its number until the next one: each bin's stands at its first call.
fn counters(of: &Replayed<'_>, writer: &mut Writer<'_>, root: u64) -> Result<()> {
    let group = writer.track("Heap over time (a microsecond is a call)", Some(root), None)?;
    let (most, call) = of.replay.peak_live();
    let name = Some(format!("peak: {most} live after call {}", Count(call)));
    writer.event(call * CALL, INSTANT, group, TrackEvent { name, ..TrackEvent::default() })?;
    let bins = &of.replay.series.bins;
    for (name, number) in COUNTERS {
        let unit = if matches!(number, Number::Bytes(_)) { BYTES } else { COUNT };
        let track = writer.track(name, Some(group), Some(unit))?;
        let firsts = std::iter::once(0).chain(bins.iter().map(|bin| bin.end)).map(|before| before + 1);
        for (first, bin) in firsts.zip(bins) {
            match number {
                Number::Bytes(number) => writer.bytes(first, track, number(bin) as u64)?,
                Number::Count(number) => writer.count(first, track, number(bin))?,
            }
        }
    }
    Ok(())
}

/// The live bytes of the sites with the largest peaks, at the end of each bin.
fn sites(of: &Replayed<'_>, writer: &mut Writer<'_>, root: u64) -> Result<()> {
    if of.sites.is_none() {
        return Ok(());
    }
    let tallies = of.lives.tallies.of(Kind::Site);
    let mut largest: Vec<(usize, &Tally)> =
        tallies.iter().enumerate().filter(|(_, tally)| tally.blocks > 0).collect();
    largest.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.peak_bytes));
    let title = match largest.len() {
        sites if sites > SITES => {
            format!("Live bytes of the {SITES} largest of {} sites", Count::from(sites))
        }
        _ => "Live bytes by site".to_owned(),
    };
    largest.truncate(SITES);
    let ends: Vec<u64> = of.replay.series.bins.iter().map(|bin| bin.end).collect();
    let mut changes: HashMap<usize, BTreeMap<u64, i64>> =
        largest.iter().map(|&(site, _)| (site, BTreeMap::new())).collect();
    for life in &of.lives.all {
        let Some(changes) = changes.get_mut(&(life.site as usize)) else { continue };
        let mut change = |call: u32, bytes: i64| {
            let bin = ends.partition_point(|&end| end < u64::from(call));
            *changes.entry(ends.get(bin).copied().unwrap_or(0)).or_default() += bytes;
        };
        let bytes = (Kind::Site.weight(life) * life.size).cast_signed();
        change(life.birth, bytes);
        if life.death != ALIVE {
            change(life.death, -bytes);
        }
    }
    let group = writer.track(&title, Some(root), None)?;
    for (site, _) in largest {
        let name = group_name(Kind::Site, site, of.sites, &of.lives.threads);
        let track = writer.track(&name, Some(group), Some(BYTES))?;
        let mut live = 0_i64;
        writer.bytes(0, track, 0)?;
        for (&call, &change) in changes.get(&site).into_iter().flatten().filter(|(_, change)| **change != 0) {
            live += change;
            writer.bytes(call, track, live.cast_unsigned())?;
        }
    }
    Ok(())
}

/// The segments below top, from left to right.
fn map(of: &Replayed<'_>, writer: &mut Writer<'_>, root: u64) -> Result<()> {
    let Some(snapshot) = of.replay.snapshot() else { return Ok(()) };
    let call = of.at.map_or(ALIVE, |call| u32::try_from(call).unwrap_or(ALIVE));
    let is_live = |life: &&Life| if call == ALIVE { life.death == ALIVE } else { life.is_live(call) };
    let lives: HashMap<u64, &Life> =
        of.lives.all.iter().filter(is_live).map(|life| (u64::from(life.offset) * GRANULE, life)).collect();
    let when = of.at.map_or("at the end".to_owned(), |call| format!("after call {}", Count(call)));
    let track = writer.track(&format!("Heap map {when} (a nanosecond is a byte)"), Some(root), None)?;
    let top = snapshot.stats().top;
    for segment in snapshot.segments().filter(|segment| segment.offset < top) {
        let (from, to) = (segment.offset as u64, (segment.offset + segment.size) as u64);
        let event = match lives.get(&from) {
            Some(life) if segment.in_use => block(of, life),
            _ if segment.in_use => named("used", format!("block of {}", Bytes(segment.size))),
            _ => named("hole", format!("hole of {}", Bytes(segment.size))),
        };
        writer.event(from, BEGIN, track, event)?;
        writer.event(to, END, track, TrackEvent::default())?;
    }
    Ok(())
}

fn named(category: &str, name: String) -> TrackEvent {
    TrackEvent { name: Some(name), categories: vec![category.to_owned()], ..TrackEvent::default() }
}

/// A block by its site, or else by its size, with all that is known of it.
fn block(of: &Replayed<'_>, life: &Life) -> TrackEvent {
    let size = Bytes(life.size as usize);
    let thread = group_name(Kind::Thread, life.thread as usize, of.sites, &of.lives.threads);
    let site = of.sites.map(|_| group_name(Kind::Site, life.site as usize, of.sites, &of.lives.threads));
    let number = |name: &str, number: u64| DebugAnnotation {
        name: Some(name.to_owned()),
        uint_value: Some(number),
        ..DebugAnnotation::default()
    };
    let debug_annotations = vec![
        DebugAnnotation {
            name: Some("offset".to_owned()),
            pointer_value: Some(u64::from(life.offset) * GRANULE),
            ..DebugAnnotation::default()
        },
        number("size", life.size),
        number("call", life.birth.into()),
        number("hops", life.hops.into()),
        DebugAnnotation {
            name: Some("thread".to_owned()),
            string_value: Some(thread),
            ..DebugAnnotation::default()
        },
    ];
    let event = named("used", site.unwrap_or_else(|| format!("block of {size}")));
    TrackEvent { debug_annotations, ..event }
}
